"""Files that are whole or not there, and folders that one process writes at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def atomic_write(path: Path, content: bytes) -> None:
    """Write through a temporary file and a rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def open_lock(folder: Path) -> tuple[IO[str], bool]:
    """The lock of a folder, and whether it is ours now, or another process's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f".{folder.name}.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return file, False
    return file, True


@contextmanager
def only_writer(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep other processes of this machine that ask for the same folder waiting.

    The lock is the operating system's, on the empty file `.<folder>.lock` beside it: it goes with its process.

    Args:
        folder: it need not be there yet.
        waiting: called once when another process has it, before the wait.
    """
    file, ours = open_lock(folder)
    with file:
        if not ours:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
