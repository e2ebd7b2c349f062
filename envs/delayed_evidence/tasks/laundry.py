"""Laundry: hang a garment in the middle and, much later, treat it as the side it came from asks for.

A garment, a cloth on a hanger, hangs on a rack on the left or on the right. The hand of that side hangs it on the rack
in the middle, where nothing tells any more where it came from. Later a garment from the left is swept along
a brush and dropped into a basket, by the left hand; one from the right is folded down onto a shelf and
left there, by the right hand. With more than two cue values each side has an inner rack, whose brush and basket or
shelf are the far ones, and an outer rack with the near ones. Fixed base, origin evidence, a real cloth (a MuJoCo flex).
"""

import mujoco
import numpy as np

from ..expert import DOWN, Script, Track
from ..robot import FINGER_OPEN
from ..scene import Factors, add_box, add_open_box
from .base import Layout, Progress, Task, flex_touching, held

TABLE = 0.40  # height of the table top, m
RACKS = {2: np.array([[0.50, 0.30], [0.50, -0.30]])}  # by number of racks; even ones on the left, odd on the right
RACKS[4] = np.array([[0.54, 0.20], [0.54, -0.20], [0.54, 0.40], [0.54, -0.40]])
BRUSHES = {2: np.array([[0.36, 0.22]]), 4: np.array([[0.40, 0.20], [0.24, 0.20]])}
PLACES = {2: np.array([[0.30, 0.42], [0.30, -0.40]])}  # of baskets and shelves, in the order of the racks
PLACES[4] = np.array([[0.38, 0.42], [0.38, -0.40], [0.22, 0.42], [0.22, -0.40]])
CENTRE = np.array([0.42, 0.0])
RACK_HEIGHT = 0.19  # of the hanger's bar above the table, m
BAR_HALF, POSTS = 0.10, 0.072  # m, half the length of the bar, and where the posts stand that it lies on
CLOTH, WIDTH, VERTICES = 0.14, 0.11, 6  # height and width of the cloth, m; vertices a side
SHELF_TOP = 0.02  # above the table, m
NOTCH = 0.024  # half the width of the notches that the bar lies in, m
PEG = 0.035  # height of the middle of the peg above the bar, m
WOOD, GRAY, STEEL = (0.7, 0.6, 0.45, 1), (0.45, 0.47, 0.5, 1), (0.75, 0.75, 0.78, 1)
GARMENT = f"""
<mujoco><worldbody><body name="body"><freejoint name="joint"/>
  <geom name="hanger" type="box" size="0.006 {BAR_HALF} 0.006" mass="0.03" rgba="0.5 0.4 0.3 1" friction="1 .02 .001"/>
  <geom name="peg" type="box" size="0.024 0.012 0.025" pos="0 0 {PEG - 0.004}" mass="0.02" rgba="0.5 0.4 0.3 1"
    friction="1.5 .02 .001" condim="4"/>
  <geom name="keel" type="box" size="0.003 0.03 0.004" pos="0 0 -0.05" mass="0.08" contype="0" conaffinity="0"
    rgba="0.5 0.4 0.3 1"/>
  <flexcomp name="cloth" type="grid" count="{VERTICES} {VERTICES} 1" spacing="{CLOTH / (VERTICES - 1)}
    {WIDTH / (VERTICES - 1)} 0.02" dim="2" mass="0.04" radius="0.003" pos="0 0 {-CLOTH / 2}" euler="0 90 0"
    rgba="0.25 0.55 0.6 1">
    <edge equality="true" damping="0.1"/>
    <pin gridrange="0 0 0 {VERTICES - 1}"/>
    <contact selfcollide="none" condim="3" friction="0.6"/>
  </flexcomp>
</body></worldbody></mujoco>"""


class Laundry(Task):
    name = "laundry"
    description = "hang the garment in the middle; later brush and basket it if from the left, else fold and store it"
    mobile = False
    horizon = 370
    stages = (("fetch", "garment_taken"), ("fetch", "garment_hung"), ("treat", "treated"), ("treat", "stored"))
    visual_only = False
    max_cue_values = 4
    tables = ("table",)
    decoy_half = (0.003, WIDTH / 2, CLOTH / 2)

    def __init__(self, cue_values: int = 2) -> None:
        super().__init__(cue_values)
        number = 2 if cue_values == 2 else 4
        self.racks, self.brushes, self.places = RACKS[number], BRUSHES[number], PLACES[number]
        self.rack_names = [*(f"rack_{i}" for i in range(number)), "rack_centre"]
        self.half = (0.09 if number == 2 else 0.07, 0.11)  # of baskets and shelves, m

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        add_box(world, "table", (0.30, 0.55, 0.02), (0.47, 0, TABLE - 0.02), (1, 1, 1, 1), material="table_0")
        for name, (x, y) in zip(self.rack_names, (*self.racks, CENTRE), strict=True):
            rack = world.add_body(name=name, pos=(x, y, TABLE))
            for side in (-1, 1):  # a post with a notch at either end of the bar
                foot = side * POSTS
                half = (RACK_HEIGHT - 0.006) / 2
                add_box(rack, f"{name}_{side}", (0.02, 0.005, half), (0, foot, half), STEEL)
                for edge in (-1, 1):
                    add_box(
                        rack,
                        f"{name}_{side}_{edge}",
                        (0.003, 0.005, 0.008),
                        (edge * NOTCH, foot, 2 * half + 0.008),
                        STEEL,
                    )
        for number, brush in enumerate(self.brushes):
            add_box(world, f"brush_{number}", (0.04, 0.008, 0.06), (*brush, TABLE + 0.06), (0.9, 0.6, 0.1, 1))
        for number, place in enumerate(self.places):
            if number % 2 == 0:
                basket = world.add_body(name=f"basket_{number}", pos=(*place, TABLE))
                add_open_box(basket, f"basket_{number}", self.half, 0.05, WOOD)
            else:
                size = (*self.half, SHELF_TOP / 2)
                add_box(world, f"shelf_{number}", size, (*place, TABLE + SHELF_TOP / 2), WOOD)
        spec.attach(mujoco.MjSpec.from_string(GARMENT), prefix="garment_", frame=world.add_frame())

    def distractor_places(self) -> np.ndarray:
        top = TABLE + 0.03
        return np.array([[[0.64, -0.2, top], [0.74, 0.2, top]], [[0.60, 0.46, top], [0.74, 0.53, top]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        racks = np.stack([*self.racks, CENTRE])
        racks = racks + factors.uniform(-0.012, 0.012, racks.shape)
        for name, place in zip(self.rack_names, racks, strict=True):
            model.body(name).pos[:2] = place
        color = (*factors.uniform(0.2, 0.8, 3), 1)
        model.flex_rgba[0], self.decoy_colors = color, (color,)
        return {"racks": racks, "start": factors.uniform(-0.015, 0.015, (2, 3))}

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        data.joint("garment_joint").qpos[:] = *layout["racks"][cue], TABLE + RACK_HEIGHT, 1, 0, 0, 0

    def script(self, layout: Layout, cue: int) -> Script:
        opened, closed = FINGER_OPEN, 0.0
        grip = TABLE + RACK_HEIGHT + PEG
        origin, centre, place = layout["racks"][cue], layout["racks"][-1], self.places[cue]
        homes = [np.array([0.20, 0.36, 0.72]), np.array([0.20, -0.36, 0.72])]  # the racks are in full view
        tracks = [Track(np.array([*(home + layout["start"][i]), opened])) for i, home in enumerate(homes)]
        own = cue % 2
        hand, other = tracks[own], tracks[1 - own]
        back = np.array([0.10, 0])  # out of a rack's plane before going sideways: the cloth hangs between the posts
        hand.to(18, *origin, grip + 0.10, opened).to(30, *origin, grip, opened).to(33, *origin, grip, closed)
        hand.through(40, *origin, grip + 0.04, closed).through(48, *origin - back, grip + 0.05, closed)
        hand.through(60, *centre - back, grip + 0.05, closed).to(69, *centre, grip + 0.04, closed)
        hand.to(75, *centre, grip - 0.004, closed).to(77, *centre, grip - 0.004, opened)
        hand.to(82, *centre, grip + 0.07, opened).to(92, *homes[own], opened)
        other.to(50, *homes[1 - own], opened).hold(92)
        for number, track in enumerate(tracks):  # the shared segment: both hands wander alike for both cues
            sign = 1 - 2 * number
            track.to(140, 0.27, sign * 0.28, 0.76, opened).to(190, 0.32, sign * 0.26, 0.70, opened)
            track.to(252, 0.30, sign * 0.27, 0.74, opened)
        hand.to(260, *centre, grip + 0.09, opened).to(268, *centre, grip, opened).to(271, *centre, grip, closed)
        hand.through(278, *centre, grip + 0.04, closed).through(285, *centre - back, grip + 0.04, closed)
        if own == 0:
            brush = self.brushes[cue // 2]
            hand.through(298, *brush - (0, 0.02), grip - 0.03, closed).to(310, *place, grip, closed)
            hand.to(318, *place, TABLE + 0.10, closed).to(320, *place, TABLE + 0.10, opened)
            hand.to(330, *place, grip + 0.05, opened)
        else:
            hand.to(302, *place + (0.06, 0), TABLE + SHELF_TOP + CLOTH + PEG, closed)
            hand.to(316, *place - (0.04, 0), TABLE + SHELF_TOP + 0.02 + PEG, closed)
            hand.to(318, *place - (0.04, 0), TABLE + SHELF_TOP + 0.02 + PEG, opened)
            hand.to(330, *place - (0.04, 0), grip + 0.05, opened)
        # Pushes go on between grasps and releases: the way back must be in the demonstrations.
        calm = ((18, 46), (58, 80), (254, 282), (302, 324))
        return Script(tracks[0], tracks[1], Track(np.zeros(3)), (DOWN, DOWN), 92, 252, calm)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        bar = data.body("garment_body").xpos
        cloth = data.flexvert_xpos.reshape(-1, 3)
        in_hand = held(model, data, "garment_body")
        lifted = bar[2] > TABLE + RACK_HEIGHT + 0.03
        progress.reach("garment_taken", bool(lifted))
        at_centre = np.abs(bar - (*layout["racks"][-1], TABLE + RACK_HEIGHT)).max() < 0.035
        progress.reach("garment_hung", bool(at_centre and not in_hand))
        progress.cue_seen = True
        home = min(abs(data.site(f"{side}_grip").xpos[1]) for side in ("left", "right")) > 0.2
        progress.at_branch = progress.at_branch or (progress.cue_over and not home)
        progress.cue_over = progress.cue_over or bool(progress.stage >= 2 and home)
        if progress.stage < 2:
            progress.over = bool(bar[2] < TABLE + 0.05)
            return
        cue, place = progress.cue, self.places[progress.cue]
        if progress.choice < 0 and in_hand and abs(bar[1]) > 0.2:  # on the way to a brush or to a shelf
            other_side = self.places[:, 1] * bar[1] < 0
            progress.choice = int((np.abs(self.places[:, 0] + 0.03 - bar[0]) + other_side).argmin())
        if cue % 2 == 0:
            treated = flex_touching(model, data, f"brush_{cue // 2}")
        else:
            treated = bool(np.ptp(cloth[:, 2]) < 0.45 * CLOTH and abs(bar[1] - place[1]) < 0.12)
        progress.reach("treated", progress.choice == cue and treated)
        inside = (np.abs(bar[:2] - place) < (0.1, 0.12)).all() and bar[2] < TABLE + 0.10
        progress.reach("stored", bool(progress.stage >= 3 and inside and not in_hand))
        hands = [data.site(f"{name}_grip").xpos for name in ("left", "right")]
        away = min(np.linalg.norm(hand - bar) for hand in hands) > 0.1
        progress.over = bool(bar[2] < TABLE + 0.12 and not in_hand and away)
