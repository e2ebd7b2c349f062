"""Soft bodies that a finger pushes on a table, in the ground truth or in a learned simulator."""

from .tasks import PushSoftEnv, SortSoftEnv

__all__ = ["PushSoftEnv", "SortSoftEnv"]
