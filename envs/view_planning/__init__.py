"""Rooms to be explored with a camera: planning by views."""

from .env import ViewPlanningEnv
from .lattice import Move
from .tasks import Episode, Item, Place

__all__ = ["Episode", "Item", "Move", "Place", "ViewPlanningEnv"]
