"""Memory-mapped frames: each image of a dataset is decoded once and then read as raw uint8."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import numpy as np

from ..errors import UserError
from ..files import atomic_write, only_writer, replacing
from .reader import DatasetReader


class FrameCache:
    """The frames of a dataset's first episodes, (F, C, H, W, 3) uint8 on disk, F counted over episodes in order.

    Lives in `<dataset>/cache`. It is keyed by a digest of the metadata and of the size and time of every
    file, and rebuilt when that changes or more episodes are wanted; a half-built cache is never used.

    Args:
        dataset: the reader.
        episodes: how many are wanted; 0: all.
        progress: wraps an iterable of episode numbers, e.g. with a progress bar, while the cache is built.
    """

    def __init__(
        self,
        dataset: DatasetReader,
        episodes: int = 0,
        progress: Callable[[range], Iterable[int]] = lambda numbers: numbers,
    ) -> None:
        sizes = set(dataset.cameras.values())
        if len(sizes) != 1:
            raise UserError(f"{dataset.root} needs cameras of one image size, it has {dataset.cameras}")
        height, width = sizes.pop()
        folder = dataset.root / "cache"
        self.path, record = folder / "frames.u8", folder / "frames.json"
        key = {"digest": _digest(dataset), "size": [height, width], "cameras": list(dataset.cameras)}
        wanted = episodes or len(dataset)

        shape = (int(dataset.lengths[:wanted].sum()), len(dataset.cameras), height, width, 3)

        def built() -> bool:
            if not (record.exists() and self.path.exists()):
                return False
            try:
                here = json.loads(record.read_text())
                episodes = here.pop("episodes")
            except (ValueError, AttributeError, KeyError):  # damaged; it is made again
                return False
            whole = int(dataset.lengths[:episodes].sum()) * math.prod(shape[1:])
            return episodes >= wanted and here == key and self.path.stat().st_size == whole

        # Runs that begin at the same time wait for the one that builds it.
        with nullcontext() if built() else only_writer(folder, lambda: None):
            if not built():
                folder.mkdir(exist_ok=True)
                record.unlink(missing_ok=True)
                self._build(dataset, wanted, shape, progress)
                atomic_write(record, json.dumps({**key, "episodes": wanted}).encode())
        self.starts = np.concatenate([[0], np.cumsum(dataset.lengths)])
        self.frames = np.memmap(self.path, np.uint8, "r", shape=shape)

    def _build(
        self, dataset: DatasetReader, count: int, shape: tuple[int, ...], progress: Callable[[range], Iterable[int]]
    ) -> None:
        with replacing(self.path) as temporary:
            with temporary.open("wb") as file:
                # A memory map of a file with holes would end the process, without a word, where the disk is full.
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            store, start = np.memmap(temporary, np.uint8, "r+", shape=shape), 0
            for episode in progress(range(count)):
                for index, camera in enumerate(dataset.cameras):
                    store[start : start + dataset.lengths[episode], index] = dataset.frames(episode, camera)
                start += int(dataset.lengths[episode])
            store.flush()
            del store

    def episode(self, episode: int) -> np.ndarray:
        """The frames of an episode, (T, C, H, W, 3)."""
        return self.frames[self.starts[episode] : self.starts[episode + 1]]


def _digest(dataset: DatasetReader) -> str:
    digest = hashlib.sha256((dataset.root / "meta/info.json").read_bytes())
    for path in sorted(dataset.root.glob("**/*")):
        if path.suffix in (".parquet", ".mp4"):
            status = path.stat()
            digest.update(f"{path.relative_to(dataset.root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
