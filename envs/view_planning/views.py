"""Views of rooms: each is rendered once and kept on disk, shared between processes."""

import errno
import hashlib
import shutil
import zlib
from pathlib import Path

import mujoco
import numpy as np

from ..base import new_renderer
from .lattice import Lattice
from .scenes import Room

VERSION = 3  # of what rooms look like and how views are kept; raised whenever it changes
SPARE = 2**24  # bytes of a disk that are left free
ONE_COLOR = 0.8  # share of a view beyond which one colour makes it useless as a target


class RoomRenderer:
    """Pictures of a room from the poses of its lattice.

    Raises:
        RenderingError: no offscreen OpenGL context can be made.
    """

    def __init__(self, room: Room) -> None:
        self.lattice: Lattice = room.lattice
        self.model = room.spec().compile()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.camera = mujoco.MjvCamera()
        self.camera.distance = 1.0
        self.renderers: dict[int, mujoco.Renderer] = {}

    def picture(self, node: int, size: int) -> np.ndarray:
        """uint8 (size, size, 3)."""
        if size not in self.renderers:
            self.renderers[size] = new_renderer(self.model, size, size)
        x, y, z, _, pitch, yaw = self.lattice.metric(node)
        up, turn = np.radians(pitch), np.radians(yaw)
        forward = np.array([np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)])
        self.camera.lookat[:] = (x, y, z) + forward
        self.camera.azimuth, self.camera.elevation = yaw, pitch
        renderer = self.renderers[size]
        renderer.update_scene(self.data, self.camera)
        return renderer.render()

    def close(self) -> None:
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()


class Views:
    """Views of a room by node, from a memory-mapped file that is filled as they are asked for.

    Two processes may fill it at once: both write the same. A view counts as there when its checksum is, which is
    written after it: what a machine that went down has left half-written is rendered again.

    Args:
        room: the room.
        size: side of the pictures, pixels.
        folder: where files are kept; they have holes, so they take the space of what was rendered.
    Raises:
        OSError: when called: the disk is full.
    """

    def __init__(self, room: Room, size: int, folder: Path | None = None) -> None:
        self.room, self.size = room, size
        self.renderer: RoomRenderer | None = None
        self.kept: dict[int, np.ndarray] = {}
        self.frames: np.memmap | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        look = hashlib.sha256(repr((VERSION, room.lattice, size)).encode() + room.boxes.tobytes()).hexdigest()[:8]
        count, parts = room.lattice.size, []
        for name, dtype, shape in (("views", np.uint8, (count, size, size, 3)), ("sums", np.uint32, (count,))):
            path = folder / f"room_{room.seed}_{look}.{name}"
            with path.open("ab") as file:  # made by whoever comes first, with holes
                file.truncate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
            parts.append(np.memmap(path, dtype, "r+", shape=shape))
        self.frames, self.sums = parts
        self.folder, self.checked = folder, np.zeros(count, bool)

    def __call__(self, nodes: np.ndarray | int) -> np.ndarray:
        """Views of nodes (...) -> uint8 (..., size, size, 3); those that are missing are rendered."""
        nodes = np.asarray(nodes)
        missing = [node for node in map(int, np.unique(nodes)) if not self._has(node)]
        if missing and self.frames is not None:
            free, needed = shutil.disk_usage(self.folder).free, len(missing) * self.frames[0].nbytes
            if free < needed + SPARE:  # a write to a mapped file that does not fit would end the process without a word
                raise OSError(
                    errno.ENOSPC, f"{len(missing)} views need {needed} bytes, {free} are free", str(self.folder)
                )
        for node in missing:
            self._render(node)
        if self.frames is not None:
            return np.asarray(self.frames[nodes])
        flat = np.stack([self.kept[int(node)] for node in nodes.ravel()])
        return flat.reshape(*nodes.shape, *flat.shape[1:])

    def _has(self, node: int) -> bool:
        if self.frames is None:
            return node in self.kept
        if not self.checked[node] and self.sums[node]:
            self.checked[node] = self.sums[node] == _checksum(self.frames[node])
        return bool(self.checked[node])

    def _render(self, node: int) -> None:
        if self.renderer is None:
            self.renderer = RoomRenderer(self.room)
        picture = self.renderer.picture(node, self.size)
        if self.frames is None:
            self.kept[node] = picture
        else:
            self.frames[node] = picture
            self.sums[node] = _checksum(picture)
            self.checked[node] = True

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None


def _checksum(picture: np.ndarray) -> int:
    """Never zero, which is what a file holds where nothing was written."""
    return zlib.crc32(picture.tobytes()) or 1


def telling(view: np.ndarray) -> bool:
    """Whether a view (S, S, 3) is more than one colour: no bin of 16 levels a channel holds over 80 % of it."""
    bins = (view >> 4).astype(np.int64) @ np.array([256, 16, 1])
    return bool(np.bincount(bins.ravel()).max() <= ONE_COLOR * bins.size)
