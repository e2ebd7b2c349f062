"""Tool: put an object away and, much later, take the tools in the order that its colour asks for.

The right hand lifts an object off its stand and drops it down a chute; the base drives to the workbench, the
hands above the tools. Object, motion and path are the same for every cue but for the object's colour; the
tool of that colour is taken first, the other hand's first tool second. Mobile base, visual-only evidence.
"""

from typing import Any

import mujoco
import numpy as np

from ..expert import DOWN, Script, Track
from ..robot import FINGER_OPEN
from ..scene import CUE_COLORS, Factors, add_box, add_lane, add_open_box
from .base import Layout, Progress, Task

TOP = 0.40  # height of stand and workbench, m
OBJECT = np.array([0.42, -0.29])
CHUTE = np.array([0.42, -0.45])
OBJECT_HALF = np.array([0.028, 0.018, 0.03])
LANE_END = 1.0  # x of the base at the workbench, m
BENCH_X = LANE_END + 0.42
TOOLS = np.array([[BENCH_X, 0.20], [BENCH_X, -0.20], [BENCH_X, 0.36], [BENCH_X, -0.36]])  # one a cue value
HANDLE_HALF = 0.05  # m, of a tool's upright handle
REACHED = 0.13  # m above the workbench to which a hand comes down for a tool
TAKEN = 0.04  # m above the workbench from which a tool counts as taken
GRAY, WOOD = (0.45, 0.47, 0.5, 1), (0.7, 0.6, 0.45, 1)


def second_tool(cue: int) -> int:
    """The tool that is taken after tool `cue`: the first one of the other hand."""
    return 1 - cue % 2


class Tool(Task):
    name = "tool"
    description = "put the object away, drive to the workbench and take first the tool of the object's colour"
    mobile = True
    horizon = 350
    stages = (("tidy", "object_lifted"), ("tidy", "object_stored"), ("work", "first_tool"), ("work", "second_tool"))
    visual_only = True
    tables = ("stand", "bench")
    max_cue_values = len(TOOLS)
    decoy_half = tuple(OBJECT_HALF)

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        add_box(world, "stand", (0.07, 0.06, TOP / 2), (*OBJECT, TOP / 2), WOOD, material="table_0")
        chute = world.add_body(name="chute", pos=(*CHUTE, 0))
        add_open_box(chute, "chute", (0.065, 0.065), TOP, GRAY)
        # A flap that things fall through, and that hides them from the camera above.
        add_box(chute, "flap", (0.065, 0.065, 0.002), (0, 0, TOP - 0.15), GRAY, solid=False)
        add_lane(world, 0.0, LANE_END)
        half = (0.16, 0.46, TOP / 2)
        add_box(world, "bench", half, (TOOLS[0, 0] + 0.06, 0, TOP / 2), WOOD, material="table_0")
        rough: dict[str, Any] = {"friction": (1.5, 0.02, 0.001), "condim": 4}
        thing = world.add_body(name="object", pos=(*OBJECT, TOP + OBJECT_HALF[2]))
        thing.add_freejoint(name="object")
        add_box(thing, "object", tuple(OBJECT_HALF), (0, 0, 0), GRAY, mass=0.06, **rough)
        for number, place in enumerate(TOOLS[: self.cue_values]):
            tool = world.add_body(name=f"tool_{number}", pos=(*place, TOP))
            tool.add_freejoint(name=f"tool_{number}")
            add_box(tool, f"head_{number}", (0.035, 0.02, 0.01), (0, 0, 0.01), (0.2, 0.2, 0.2, 1), mass=0.1, **rough)
            half = (0.024, 0.014, HANDLE_HALF)
            add_box(tool, f"handle_{number}", half, (0, 0, 0.02 + HANDLE_HALF), CUE_COLORS[number], mass=0.03, **rough)

    def distractor_places(self) -> np.ndarray:
        return np.array([[[0.2, 0.5, 0.03], [1.2, 0.9, 0.03]], [[0.7, -0.9, 0.03], [1.2, -0.5, 0.03]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        layout = {
            "object": OBJECT + factors.uniform(-0.015, 0.015, 2),
            "tools": TOOLS[: self.cue_values] + factors.uniform(-0.015, 0.015, (self.cue_values, 2)),
            "start": factors.uniform(-0.015, 0.015, (2, 3)),
            "base": factors.uniform((-0.03, -0.03, -0.02), (0.03, 0.03, 0.02)),
            # Where the expert stops at the bench: a policy stops less exactly, and must see what its hands have to do.
            "stop": (LANE_END, 0, 0) + factors.uniform(-0.03, 0.03, 3),
        }
        data.joint("object").qpos[:] = *layout["object"], TOP + OBJECT_HALF[2], 1, 0, 0, 0
        for number, place in enumerate(layout["tools"]):
            data.joint(f"tool_{number}").qpos[:] = *place, TOP, 1, 0, 0, 0
        return layout

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        model.geom("object").rgba = CUE_COLORS[cue]

    def script(self, layout: Layout, cue: int) -> Script:
        opened, closed = FINGER_OPEN, 0.0
        x, y = layout["object"]
        base = Track(layout["base"], linear=True)
        base.to(20, 0, 0, 0).hold(72).to(246, *layout["stop"])
        above = TOP + 0.17
        right = Track(np.array([*(np.array([0.30, -0.24, 0.62]) + layout["start"][1]), opened]))
        right.to(22, x, y, above, opened).to(46, x, y, TOP + 0.03, opened).to(50, x, y, TOP + 0.03, closed)
        right.through(58, x, y, TOP + 0.13, closed).to(70, *CHUTE, TOP + 0.13, closed)
        right.to(72, *CHUTE, TOP + 0.13, opened)
        left = Track(np.array([*(np.array([0.30, 0.24, 0.62 + self.left_raised]) + layout["start"][0]), opened]))
        left.to(60, 0.28, 0.22, 0.66 + self.left_raised, opened).to(160, 0.32, 0.26, 0.70 + self.left_raised, opened)
        right.to(150, 0.32, -0.26, 0.70, opened)
        hands = (left, right)
        high, grip = TOP + 0.23, TOP + 0.02 + HANDLE_HALF + 0.01
        x, y, yaw = layout["stop"]
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        places = (layout["tools"] - (x, y)) @ turn
        for number, hand in enumerate(hands):  # above the middle of its tools, whichever is right
            hand.to(246, *places[number::2].mean(0), high, opened)
        aside = 10 if self.cue_values > 2 else 0  # steps in which a hand that has a choice goes above its tool
        for number, begin in ((cue, 246), (second_tool(cue), 274 + aside)):
            hand, place = hands[number % 2], places[number]
            if begin > 246:
                hand.hold(begin)
            if aside:
                hand.to(begin + aside, *place, high, opened)
            begin += aside
            hand.to(begin + 24, *place, grip, opened).to(begin + 27, *place, grip, closed)
            hand.to(begin + 35, *place, TOP + 0.17, closed)
        # Pushes go on until shortly before the grasps: the way back must be in the demonstrations.
        calm = ((31, 54), (60, 74), (252 + aside, 274 + aside), (280 + 2 * aside, 303 + 2 * aside))
        return Script(left, right, base, (DOWN, DOWN), 72, 246, calm)

    def check_cue(self, model: mujoco.MjModel, data: mujoco.MjData, progress: Progress) -> None:
        """Whether the object's colour is or was in view: until it is below the flap."""
        progress.cue_seen = True
        below = data.body("object").xpos[2] < TOP - 0.2
        progress.cue_over = progress.cue_over or bool(progress.stage >= 2 and below)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        thing = data.body("object").xpos
        tools = np.array([data.body(f"tool_{number}").xpos for number in range(self.cue_values)])
        in_chute = np.abs(thing[:2] - CHUTE).max() < 0.065 and thing[2] < TOP - 0.1
        progress.reach("object_lifted", bool(thing[2] > TOP + 0.08))
        progress.reach("object_stored", bool(in_chute))
        self.check_cue(model, data, progress)
        base = data.body("base").xpos
        progress.at_branch = progress.at_branch or bool(progress.stage >= 2 and base[0] > LANE_END - 0.05)
        taken = tools[:, 2] > TOP + TAKEN
        hands = np.array([data.site(f"{side}_grip").xpos for side in ("left", "right")])
        down = hands[:, 2] < TOP + REACHED
        if progress.at_branch and down.any() and progress.choice < 0:  # the first hand that comes down has decided
            distance = np.linalg.norm(tools[:, :2] - hands[down.argmax(), :2], axis=1)
            progress.choice = int(distance.argmin())
        progress.reach("first_tool", bool(progress.choice == progress.cue and taken[progress.cue]))
        second = second_tool(progress.cue)
        progress.reach("second_tool", bool(taken[second]))
        # The episode goes on until the second tool is well up.
        wrong = progress.choice >= 0 and progress.choice != progress.cue
        progress.over = bool(tools[second, 2] > TOP + 0.08 if progress.success else wrong and taken.sum() >= 2)
        dropped = thing[2] < TOP - 0.1 and not in_chute
        progress.over = progress.over or bool(dropped or (tools[:, 2] < TOP - 0.05).any())
