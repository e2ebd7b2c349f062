import os

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported: offscreen rendering without a display

from .env import DelayedEvidenceEnv

__all__ = ["DelayedEvidenceEnv"]
