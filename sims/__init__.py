"""Simulators of deformable bodies: a ground truth on MuJoCo flex and learned ones, behind one contract."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported: envs/ render what is simulated here
