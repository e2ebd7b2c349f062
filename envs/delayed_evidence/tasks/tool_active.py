"""Tool, where the colour must be looked for in a cupboard: the active variant of Tool.

The right hand looks into a cupboard on a stand, puts a gray object away, and the base drives to the workbench, where
the tool of the card's colour is taken first. Mobile base, visual-only evidence.
"""

import mujoco
import numpy as np

from ..expert import Script
from ..scene import CUE_COLORS, Factors, add_box
from .base import Layout, Progress
from .cupboard import CARD_HALF, HALF, add_cupboard, check_card, looking, place_cupboard
from .tool import TOP, WOOD, Tool

CUPBOARD = np.array([0.46, 0.33])


class ToolActive(Tool):
    name = "tool_active"
    version = 4
    goes_astray = True
    description = "look into the cupboard, put the object away, drive and take first the tool of the card's colour"
    horizon = 690
    decoy_half = CARD_HALF
    left_raised = 0.14  # over the cupboard

    def build(self, spec: mujoco.MjSpec) -> None:
        super().build(spec)
        half = (HALF + 0.04, HALF + 0.04, TOP / 2)
        add_box(spec.worldbody, "cupboard_stand", half, (*CUPBOARD, TOP / 2), WOOD, material="table_0")
        add_cupboard(spec.worldbody, (*CUPBOARD, TOP))

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        rest = super().randomise(model, data, factors)
        return rest | place_cupboard(self, model, data, factors, CUPBOARD, rest["base"])

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        model.geom("cue").rgba = CUE_COLORS[cue]

    def script(self, layout: Layout, cue: int) -> Script:
        return looking(super().script(layout, cue), layout)

    def check_cue(self, model: mujoco.MjModel, data: mujoco.MjData, progress: Progress) -> None:
        check_card(self, data, progress)
