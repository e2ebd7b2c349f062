"""Files that are whole or not there, and folders that one process writes at a time."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to.

    At the end of the block it is renamed to `path`, so that a reader sees the old file or the new one; where the block
    fails it goes. So does what killed processes of this machine have left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.{socket.gethostname()}."
    for stale in path.parent.glob(f"{escape(prefix)}*.tmp"):
        if not _alive(int(stale.name.removeprefix(prefix).removesuffix(".tmp"))):
            stale.unlink(missing_ok=True)
    temporary = path.with_name(f"{prefix}{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def atomic_write(path: Path, content: bytes) -> None:
    """Write all of a file or nothing, by `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


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
