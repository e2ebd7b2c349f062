"""The tasks. To add one, subclass `Task` and name it in `TASKS`."""

from .base import Layout, Progress, Task
from .book import Book
from .cable import Cable
from .laundry import Laundry
from .medicine import Medicine
from .tool import Tool

TASKS: dict[str, type[Task]] = {"medicine": Medicine, "book": Book, "tool": Tool, "laundry": Laundry, "cable": Cable}

__all__ = ["TASKS", "Book", "Cable", "Laundry", "Layout", "Medicine", "Progress", "Task", "Tool"]
