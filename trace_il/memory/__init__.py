"""Memories behind one contract (`base.Memory`). To add one, subclass it and name it in `MEMORIES`."""

from .base import Evidence, Memory, Readout
from .gru import GRUMemory
from .none import NoMemory
from .trace import TraceMemory

MEMORIES: dict[str, type[Memory]] = {"trace": TraceMemory, "gru": GRUMemory, "none": NoMemory}

__all__ = ["MEMORIES", "Evidence", "GRUMemory", "Memory", "NoMemory", "Readout", "TraceMemory"]
