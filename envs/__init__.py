"""Gymnasium environments with delayed evidence; importing this package registers them."""

import os

import gymnasium

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported: offscreen rendering without a display

from .base import DelayedEvidenceBase, Expert, ExpertAction, Phase

gymnasium.register("Corridor-v0", entry_point="envs.corridor:CorridorEnv")
gymnasium.register("DelayedEvidence-v0", entry_point="envs.delayed_evidence:DelayedEvidenceEnv")
gymnasium.register("PushSoft-v0", entry_point="envs.deformable:PushSoftEnv")
gymnasium.register("PushSoftArm-v0", entry_point="envs.deformable:PushSoftArmEnv")
gymnasium.register("SortSoft-v0", entry_point="envs.deformable:SortSoftEnv")
gymnasium.register("ViewPlanning-v0", entry_point="envs.view_planning:ViewPlanningEnv")

__all__ = ["DelayedEvidenceBase", "Expert", "ExpertAction", "Phase"]
