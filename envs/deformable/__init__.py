"""Soft bodies that are pushed on a table by a finger or by an arm, in the ground truth or in a learned simulator."""

from .arm import PushSoftArmEnv
from .tasks import PushSoftEnv, SortSoftEnv

__all__ = ["PushSoftArmEnv", "PushSoftEnv", "SortSoftEnv"]
