"""Gymnasium environments with delayed evidence; importing this package registers them."""

import gymnasium

from .base import DelayedEvidenceBase, Expert, ExpertAction, Phase

gymnasium.register("Corridor-v0", entry_point="envs.corridor:CorridorEnv")
gymnasium.register("DelayedEvidence-v0", entry_point="envs.delayed_evidence:DelayedEvidenceEnv")

__all__ = ["DelayedEvidenceBase", "Expert", "ExpertAction", "Phase"]
