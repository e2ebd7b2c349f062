"""Book: fetch a book from one of two to four shelves and, much later, bring it to the table on the same side.

The base drives to the shelf that holds the book, the right hand takes it, the base returns to the
lane and drives through a shared passage. At its end nothing in view tells where the book came from; route
and placement depend on it. Mobile base, origin evidence.
"""

from typing import Any

import mujoco
import numpy as np

from ..expert import FORWARD, Script, Track
from ..robot import FINGER_OPEN, SHOULDER_SIDE
from ..scene import Factors, add_box, add_lane
from .base import Layout, Progress, Task, touching

SIDE = np.array([0.42, -0.42, 0.80, -0.80])  # y of the base in front of shelf and table, one a cue value, m
LANE_Y = -0.15  # y of the base in the passage, m: between the shelves, which the right hand reaches
SHELF_X, SHELF_TOP = 0.66, 0.55
TABLE_X, TABLE_TOP = 1.76, 0.52
LANE_END = 1.0  # x of the base at the branch, m
BOOK_HALF = np.array([0.06, 0.014, 0.08])
GRIP = np.array([0.42, -SHOULDER_SIDE, SHELF_TOP + 0.09])  # hand in the base frame when grasping
LIFT = 0.06
WOOD, ORANGE = (0.55, 0.42, 0.3, 1), (1.0, 0.35, 0.0, 1)


class Book(Task):
    name = "book"
    description = "take the book from its shelf and bring it to the table on the side it came from"
    mobile = True
    horizon = 356
    max_cue_values = len(SIDE)
    stages = (("pick", "book_lifted"), ("carry", "passage_crossed"), ("place", "route_taken"), ("place", "book_placed"))
    visual_only = False
    decoy_half = tuple(BOOK_HALF)
    decoy_colors = (ORANGE,)
    decoys_ahead = True

    def __init__(self, cue_values: int = 2) -> None:
        super().__init__(cue_values)
        self.sides = SIDE[:cue_values]
        self.tables = tuple(f"{kind}_{number}" for kind in ("shelf", "table") for number in range(cue_values))

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        for number in range(self.cue_values):
            y = SIDE[number] - SHOULDER_SIDE
            half = (0.08, 0.09, SHELF_TOP / 2)
            add_box(world, f"shelf_{number}", half, (SHELF_X, y, SHELF_TOP / 2), WOOD, material="table_0")
            half = (0.14, 0.14, TABLE_TOP / 2)
            add_box(world, f"table_{number}", half, (TABLE_X, y, TABLE_TOP / 2), WOOD, material="table_0")
        add_lane(world, LANE_Y, LANE_END)
        book = world.add_body(name="book", pos=(SHELF_X, 0, SHELF_TOP + BOOK_HALF[2]))
        book.add_freejoint(name="book")
        more: dict[str, Any] = {"mass": 0.12, "friction": (1.5, 0.02, 0.001), "condim": 4}
        add_box(book, "book", tuple(BOOK_HALF), (0, 0, 0), ORANGE, **more)
        add_box(book, "pages", (0.056, 0.01, 0.0805), (0.002, 0, 0), (0.95, 0.93, 0.85, 1), solid=False, mass=0)

    def distractor_places(self) -> np.ndarray:
        more = 0.35 if self.cue_values > 2 else 0.0
        left, right = [[0.2, 0.75 + more, 0.03], [1.2, 0.95 + more, 0.03]], [[0.2, -1.1, 0.03], [1.2, -0.9, 0.03]]
        return np.array([left, right]) - np.array([[[0.0, 0, 0]], [[0, more, 0]]])

    def decoy_places(self) -> np.ndarray:
        """In the passage, before the robot."""
        height = float(BOOK_HALF[2])
        return np.array([[[0.75, -0.1, height], [1.2, 0.1, height]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        furniture = factors.uniform(-0.02, 0.02, 2)  # how much nearer or farther shelves and tables stand
        for number in range(self.cue_values):
            model.geom(f"shelf_{number}").pos[0] = SHELF_X + furniture[0]
            model.geom(f"table_{number}").pos[0] = TABLE_X + furniture[1]
        return {
            "furniture": furniture,
            "book": factors.uniform(-0.012, 0.012, 2) + (furniture[0], 0),
            "start": factors.uniform(-0.015, 0.015, (2, 3)),
            "base": (0, LANE_Y, 0) + factors.uniform((-0.03, -0.03, -0.02), (0.03, 0.03, 0.02)),
        }

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        dx, dy = layout["book"]
        place = (SHELF_X - 0.02 + dx, SIDE[cue] - SHOULDER_SIDE + dy, SHELF_TOP + BOOK_HALF[2])
        data.joint("book").qpos[:] = *place, 1, 0, 0, 0

    def script(self, layout: Layout, cue: int) -> Script:
        dx, dy = layout["book"]
        opened, closed = FINGER_OPEN, 0.0
        side = SIDE[cue]
        far = 12 if self.cue_values > 2 else 0  # steps for the ways to the outer shelves and tables
        contact_x = SHELF_X - 0.02 + dx - GRIP[0] - 0.01  # the fingers reach a little past the spine's middle
        at_table = LANE_END + 0.28 + layout["furniture"][1]
        base = Track(layout["base"], linear=True)
        base.to(30, 0.0, side + dy, 0).to(54, contact_x, side + dy, 0).hold(64)
        base.to(74, 0.0, side, 0).to(92 + far, 0.0, LANE_Y, 0).to(254 + far, LANE_END, LANE_Y, 0)
        base.to(280 + 2 * far, LANE_END + 0.10, side, 0).to(290 + 2 * far, at_table, side, 0).hold(296 + 2 * far)
        base.to(312 + 2 * far, LANE_END, side, 0)
        rest = np.array([0.32, -SHOULDER_SIDE, 0.62])
        right = Track(np.array([*(rest + layout["start"][1]), opened]))
        low = GRIP[2] + TABLE_TOP - SHELF_TOP + 0.004
        right.to(24, *GRIP, opened).hold(56).to(58, *GRIP, closed)
        right.to(66, GRIP[0], GRIP[1], GRIP[2] + LIFT, closed).to(74, *GRIP + (0, 0, LIFT), closed)
        right.through(108 + far, 0.30, GRIP[1], GRIP[2] + 0.05, closed)
        right.through(174 + far, 0.32, GRIP[1] + 0.02, GRIP[2] + 0.10, closed)
        right.to(254 + far, 0.36, GRIP[1], GRIP[2] + 0.05, closed).hold(283 + 2 * far)
        right.through(293 + 2 * far, 0.36, GRIP[1], low + 0.006, closed).to(295 + 2 * far, 0.36, GRIP[1], low, opened)
        left_home = np.array([0.28, 0.24, 0.60]) + layout["start"][0]
        left = Track(np.array([*left_home, opened]))
        left.to(60, 0.28, 0.22, 0.66, opened).to(160, 0.30, 0.26, 0.72, opened).to(250, 0.34, 0.22, 0.66, opened)
        # Pushes go on while the hand nears the book: the way back to its middle must be in the demonstrations.
        calm = ((36, 64), (280 + 2 * far, 314 + 2 * far))
        return Script(left, right, base, (FORWARD, FORWARD), 92 + far, 254 + far, calm)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        book = data.body("book").xpos
        base = data.body("base").xpos
        held = book[2] > SHELF_TOP + BOOK_HALF[2] + 0.02
        progress.reach("book_lifted", bool(held))
        progress.cue_seen = True
        progress.cue_over = progress.cue_over or (progress.stage >= 1 and abs(base[1] - LANE_Y) < 0.03)
        progress.reach("passage_crossed", bool(base[0] > LANE_END - 0.12 and book[2] > TABLE_TOP))
        progress.at_branch = progress.at_branch or bool(progress.stage >= 2 and base[0] > LANE_END - 0.02)
        # On its way to a table the base may pass others; it has chosen when it drives up to one.
        if progress.stage >= 2 and base[0] > LANE_END + 0.17 and progress.choice < 0:
            progress.choice = int(np.abs(self.sides - base[1]).argmin())
        progress.reach("route_taken", progress.choice == progress.cue)
        tables_x = np.full(self.cue_values, TABLE_X + layout["furniture"][1])
        place = np.stack([tables_x, self.sides - SHOULDER_SIDE], axis=1)
        on_table = (np.abs(book[:2] - place) < 0.14).all(axis=1)
        placed = on_table.any() and book[2] < TABLE_TOP + BOOK_HALF[2] + 0.02
        if placed and not touching(model, data, "book", "right_finger"):
            progress.reach("book_placed", bool(on_table[progress.cue]))
            # The episode goes on until the hand has left, so that demonstrations show an open hand.
            progress.over = bool(book[0] - data.site("right_grip").xpos[0] > 0.08)
        if book[2] < 0.3:
            progress.over = True
