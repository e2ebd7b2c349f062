"""Medicine, where the colour must be looked for in a cupboard: the active variant of Medicine.

The right hand looks into the cupboard, lifts the medicine box, carries it along a detour that is the same for every
cue, and puts it into the bin of the card's colour. Fixed base, visual-only evidence.
"""

import mujoco
import numpy as np

from ..expert import DOWN, Script, Track
from ..robot import FINGER_OPEN
from ..scene import Factors
from .base import Layout, Progress
from .cupboard import CARD_HALF, add_cupboard, check_card, looking, place_cupboard
from .medicine import TABLE, Medicine

CUPBOARD = np.array([0.46, 0.13])


class MedicineActive(Medicine):
    name = "medicine_active"
    version = 4
    goes_astray = True
    description = "look into the cupboard and return the medicine box to the bin of the card's colour"
    horizon = 640
    stages = (("return", "box_lifted"), ("return", "box_placed"))
    decoy_half = CARD_HALF

    def build_evidence(self, world: mujoco.MjsBody) -> None:
        add_cupboard(world, (*CUPBOARD, TABLE))

    def distractor_places(self) -> np.ndarray:
        top = TABLE + 0.03
        return np.array([[[0.64, 0.0, top], [0.72, 0.5, top]], [[0.25, 0.36, top], [0.6, 0.5, top]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        rest = self.randomise_rest(model, data, factors)
        return rest | place_cupboard(self, model, data, factors, CUPBOARD, np.zeros(3))

    def script(self, layout: Layout, cue: int) -> Script:
        left = Track(np.array([*(np.array([0.30, 0.30, 0.62]) + layout["start"][0]), FINGER_OPEN]))
        right = Track(np.array([*(np.array([0.28, -0.22, 0.66]) + layout["start"][1]), FINGER_OPEN]))
        right.to(60, *layout["box"], TABLE + 0.17, FINGER_OPEN)
        self.put_away(right, layout, cue)
        calm = ((86, 104), (212, 240), (264, 300))
        return looking(Script(left, right, Track(np.zeros(3)), (DOWN, DOWN), 1, 240, calm), layout)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        check_card(self, data, progress)
        self.check_box(model, data, layout, progress)
