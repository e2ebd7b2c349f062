"""Policies behind one contract (`base.Policy`). To add one, subclass it and name it in `POLICIES`."""

from .act import ACTPolicy
from .base import Policy

POLICIES: dict[str, type[Policy]] = {"act": ACTPolicy}

__all__ = ["POLICIES", "ACTPolicy", "Policy"]
