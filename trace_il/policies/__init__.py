"""Policies behind one contract (`base.Policy`). To add one, subclass it and name it in `POLICIES`."""

from .act import ACTPolicy
from .base import Policy
from .diffusion import DiffusionPolicy

POLICIES: dict[str, type[Policy]] = {"act": ACTPolicy, "diffusion": DiffusionPolicy}

__all__ = ["POLICIES", "ACTPolicy", "DiffusionPolicy", "Policy"]
