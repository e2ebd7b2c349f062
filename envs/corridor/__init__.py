from .env import CorridorEnv

__all__ = ["CorridorEnv"]
