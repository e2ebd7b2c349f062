from .env import DelayedEvidenceEnv

__all__ = ["DelayedEvidenceEnv"]
