"""Medicine: look into the tray, close it, and much later return the box to the bin of the colour seen.

The left hand slides the tray's lid open and shut; while it is open the tray's coloured floor shows the
cue. The right hand lifts the medicine box, carries it along a detour that is the same for every cue,
and puts it into one of two to four bins. Fixed base, visual-only evidence.
"""

import mujoco
import numpy as np

from ..expert import DOWN, Script, Track
from ..robot import FINGER_OPEN
from ..scene import CUE_COLORS, Factors, add_box, add_open_box
from .base import Layout, Progress, Task, touching

TABLE = 0.40  # height of the table top, m
TRAY = np.array([0.42, 0.19])
BOX = np.array([0.40, -0.04])
BINS = np.array([[0.52, -0.17], [0.48, -0.46], [0.585, -0.315], [0.26, -0.47]])  # one a cue value
BIN_HALF = 0.065
BOX_HALF = np.array([0.018, 0.018, 0.03])
LID_OPEN, LID_TRAVEL = 0.09, 0.13  # m
LID_HEIGHT = 0.05
BRANCH_POINT = np.array([0.37, -0.30, 0.58])
WHITE, GRAY, WOOD = (0.95, 0.95, 0.95, 1), (0.45, 0.47, 0.5, 1), (0.7, 0.6, 0.45, 1)


class Medicine(Task):
    name = "medicine"
    description = "open the tray, look, close it, and return the medicine box to the bin of the colour seen"
    mobile = False
    horizon = 340
    stages: tuple[tuple[str, str], ...] = (
        ("inspect", "lid_opened"),
        ("inspect", "lid_closed"),
        ("return", "box_lifted"),
        ("return", "box_placed"),
    )
    visual_only = True
    tables = ("table",)
    max_cue_values = len(BINS)
    decoy_half = (0.05, 0.05, 0.012)

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        add_box(world, "table", (0.30, 0.55, 0.02), (0.47, 0, TABLE - 0.02), (1, 1, 1, 1), material="table_0")
        self.build_evidence(world)
        box = world.add_body(name="box", pos=(*BOX, TABLE + BOX_HALF[2]))
        box.add_freejoint(name="box")
        add_box(box, "box", tuple(BOX_HALF), (0, 0, 0), WHITE, mass=0.06, friction=(1.5, 0.02, 0.001), condim=4)
        add_box(box, "box_label", (0.0185, 0.0185, 0.008), (0, 0, 0), (0.2, 0.7, 0.6, 1), solid=False, mass=0)
        for number, place in enumerate(BINS[: self.cue_values]):
            body = world.add_body(name=f"bin_{number}", pos=(*place, TABLE))
            add_open_box(body, f"bin_{number}", (BIN_HALF, BIN_HALF), 0.03, GRAY)
            label = (0.05, 0.01, 0.002)
            add_box(body, f"bin_label_{number}", label, (BIN_HALF + 0.03, 0, 0.002), CUE_COLORS[number], solid=False)

    def build_evidence(self, world: mujoco.MjsBody) -> None:
        """What shows the cue: a tray with a lid."""
        tray = world.add_body(name="tray", pos=(*TRAY, TABLE))
        add_open_box(tray, "tray", (0.065, 0.065), LID_HEIGHT - 0.006, WOOD)
        add_box(tray, "cue", (0.06, 0.06, 0.012), (0, 0, 0.012), GRAY, solid=False)
        lid = tray.add_body(name="lid", pos=(0, 0, LID_HEIGHT))
        lid.add_joint(
            name="lid",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(0, 1, 0),
            range=(0, LID_TRAVEL),
            frictionloss=1.0,
            damping=8,
        )
        add_box(lid, "lid", (0.072, 0.068, 0.004), (0, 0, 0), WOOD, mass=0.1)
        peg = {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": (0.012, 0.025, 0), "friction": (1.5, 0.02, 0.001)}
        lid.add_geom(name="peg", pos=(0, 0, 0.029), rgba=(0.2, 0.2, 0.2, 1), mass=0.02, **peg)

    def distractor_places(self) -> np.ndarray:
        top = TABLE + 0.03
        return np.array([[[0.62, 0.0, top], [0.72, 0.5, top]], [[0.25, 0.36, top], [0.6, 0.5, top]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        tray = TRAY + factors.uniform(-0.02, 0.02, 2)
        model.body("tray").pos[:2] = tray
        return {"tray": tray, **self.randomise_rest(model, data, factors)}

    def randomise_rest(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        """All but what shows the cue."""
        box = BOX + factors.uniform(-0.025, 0.025, 2)
        bins = BINS[: self.cue_values] + factors.uniform(-0.01, 0.01, (self.cue_values, 2))
        for number in range(self.cue_values):
            model.body(f"bin_{number}").pos[:2] = bins[number]
        data.joint("box").qpos[:] = *box, TABLE + BOX_HALF[2], 1, 0, 0, 0
        start = factors.uniform(-0.015, 0.015, (2, 3))
        return {"box": box, "bins": bins, "start": start, "release": factors.rng.integers(4, size=1)}

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        model.geom("cue").rgba = CUE_COLORS[cue]

    def script(self, layout: Layout, cue: int) -> Script:
        tx, ty = layout["tray"]
        opened, closed = FINGER_OPEN, 0.0
        above, grip = TABLE + 0.20, TABLE + LID_HEIGHT + 0.035
        left_home = np.array([0.30, 0.30, 0.62]) + layout["start"][0]
        left = Track(np.array([*left_home, opened]))
        left.to(18, tx, ty, above, opened).to(30, tx, ty, grip, opened).to(34, tx, ty, grip, closed)
        left.to(50, tx, ty + 0.12, grip, closed).hold(58).to(74, tx, ty - 0.02, grip, closed)
        left.to(78, tx, ty - 0.02, grip, opened).to(92, tx, ty, above, opened).to(130, *left_home, opened)
        right = Track(np.array([*(np.array([0.28, -0.22, 0.66]) + layout["start"][1]), opened]))
        right.to(60, *layout["box"], TABLE + 0.17, opened)
        self.put_away(right, layout, cue)
        calm = ((22, 36), (86, 104), (212, 240), (264, 300))
        return Script(left, right, Track(np.zeros(3)), (DOWN, DOWN), 78, 240, calm)

    def put_away(self, right: Track, layout: Layout, cue: int) -> None:
        """The way of the right hand from above the box, at step 60, into the bin."""
        (bx, by), target = layout["box"], layout["bins"][cue]
        opened, closed = FINGER_OPEN, 0.0
        low = TABLE + 0.03
        # A long way down over the box, seen from the wrist, so that pushes are recovered from by what is seen.
        right.to(98, bx, by, low, opened).to(102, bx, by, low, closed)
        right.through(118, bx, by, TABLE + 0.15, closed).through(156, 0.27, 0.0, 0.70, closed)
        right.through(200, 0.24, -0.26, 0.76, closed).through(240, *BRANCH_POINT, closed)
        # Straight down onto the floor of the bin, and open just before or after the box stands, in every episode at
        # another moment. An imitator that plans again every tick and comes down without opening is then in a place
        # that demonstrations show, and there they all open at once; after a stop it might begin to open for ever.
        right.through(256, *target, 0.53, closed, speed=0.4)
        opens = 266 + int(layout["release"][0])
        height = np.interp([opens, opens + 2], [256, 270], [0.53, TABLE + 0.01])
        right.through(opens, *target, height[0], closed).through(opens + 2, *target, height[1], opened)
        right.to(274, *target, TABLE + 0.02, opened).to(288, *target, 0.58, opened)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        lid = data.joint("lid").qpos[0]
        progress.reach("lid_opened", lid > LID_OPEN)
        progress.reach("lid_closed", lid < 0.01)  # farther open, cameras see the cue
        progress.cue_seen = progress.cue_seen or lid > 0.003
        self.check_box(model, data, layout, progress)
        progress.cue_over = progress.cue_over or progress.stage >= 3 or (progress.stage == 2 and lid < 0.003)

    def check_box(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        """The last two stages and the branch."""
        box, lifted = data.body("box").xpos, len(self.stages) - 1
        progress.reach("box_lifted", box[2] > TABLE + 0.10)
        if progress.stage >= lifted and np.linalg.norm(box - (*BRANCH_POINT[:2], box[2])) < 0.015:
            progress.at_branch = True
        inside = np.abs(box[:2] - layout["bins"]).max(axis=1) < BIN_HALF + 0.01
        if inside.any() and box[2] < TABLE + 0.075 and progress.stage >= lifted:
            progress.choice = int(inside.argmax()) if progress.choice < 0 else progress.choice
            if box[2] < TABLE + 0.05 and not touching(model, data, "box", "right_finger"):
                progress.reach("box_placed", progress.choice == progress.cue)
                # The episode goes on until the hand has left, so that demonstrations show an open hand.
                progress.over = bool(data.site("right_grip").xpos[2] > TABLE + 0.12)
        if box[2] < TABLE - 0.05:
            progress.over = True
