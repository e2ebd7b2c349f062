"""The tasks. To add one, subclass `Task` and name it in `TASKS`."""

from .base import Layout, Progress, Task
from .book import Book
from .medicine import Medicine

TASKS: dict[str, type[Task]] = {"medicine": Medicine, "book": Book}

__all__ = ["TASKS", "Book", "Layout", "Medicine", "Progress", "Task"]
