"""Soft bodies that are pushed on a table: by a finger, in the ground truth or in a learned simulator, or by an arm."""

from .arm import PushSoftArmEnv
from .tasks import PushSoftEnv, SortSoftEnv

__all__ = ["PushSoftArmEnv", "PushSoftEnv", "SortSoftEnv"]
