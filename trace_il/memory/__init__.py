"""Memories behind one contract (`base.Memory`). To add one, subclass it and name it in `MEMORIES`."""

from .base import Evidence, Memory, Readout
from .gru import GRUMemory
from .lru import LRUMemory
from .none import NoMemory
from .retrieval import RetrievalMemory
from .trace import TraceMemory
from .transformer import TransformerMemory

MEMORIES: dict[str, type[Memory]] = {
    "trace": TraceMemory,
    "gru": GRUMemory,
    "transformer": TransformerMemory,
    "lru": LRUMemory,
    "retrieval": RetrievalMemory,
    "none": NoMemory,
}

__all__ = [
    "MEMORIES",
    "Evidence",
    "GRUMemory",
    "LRUMemory",
    "Memory",
    "NoMemory",
    "Readout",
    "RetrievalMemory",
    "TraceMemory",
    "TransformerMemory",
]
