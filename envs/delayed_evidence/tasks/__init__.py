"""The tasks. To add one, subclass `Task` and name it in `TASKS`."""

from .base import Layout, Progress, Task
from .book import Book
from .cable import Cable
from .laundry import Laundry
from .medicine import Medicine
from .medicine_active import MedicineActive
from .tool import Tool
from .tool_active import ToolActive

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Medicine, Book, Tool, Laundry, Cable, MedicineActive, ToolActive)
}

__all__ = ["TASKS", "Layout", "Progress", "Task"]
