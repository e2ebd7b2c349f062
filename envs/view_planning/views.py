"""Views of rooms: each is rendered once and kept on disk, shared between processes."""

from pathlib import Path

import mujoco
import numpy as np

from ..base import RenderingError
from .lattice import Lattice
from .scenes import Room

VERSION = 1  # of what rooms look like; raised whenever it changes
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
            try:
                self.renderers[size] = mujoco.Renderer(self.model, size, size)
            except Exception as error:  # the GL back ends raise a different type each
                raise RenderingError(
                    f"no offscreen OpenGL context ({error}); install libegl1 and libgl1-mesa-dri, or set MUJOCO_GL"
                ) from error
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

    Two processes may fill it at once: both write the same. A view counts as there once its mark is set, which is
    written after it.

    Args:
        room: the room.
        size: side of the pictures, pixels.
        folder: where files are kept; they have holes, so they take the space of what was rendered.
    """

    def __init__(self, room: Room, size: int, folder: Path | None = None) -> None:
        self.room, self.size = room, size
        self.renderer: RoomRenderer | None = None
        shape = (room.lattice.size, size, size, 3)
        if folder is None:
            self.frames, self.there = np.zeros(shape, np.uint8), np.zeros(len(room.table), np.uint8)
            return
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for name, own in (("views", shape), ("there", shape[:1])):
            path = folder / f"room_{room.seed}_{len(room.pieces)}_{size}_{VERSION}.{name}"
            size_in_bytes = int(np.prod(own))
            if not path.exists() or path.stat().st_size != size_in_bytes:
                with path.open("ab") as file:
                    file.truncate(size_in_bytes)
            parts.append(np.memmap(path, np.uint8, "r+", shape=own))
        self.frames, self.there = parts

    def __call__(self, nodes: np.ndarray | int) -> np.ndarray:
        """Views of nodes (...) -> uint8 (..., size, size, 3); those that are missing are rendered."""
        nodes = np.asarray(nodes)
        for node in np.unique(nodes):
            if not self.there[node]:
                if self.renderer is None:
                    self.renderer = RoomRenderer(self.room)
                self.frames[node] = self.renderer.picture(int(node), self.size)
                self.there[node] = 1
        return np.asarray(self.frames[nodes])

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None


def telling(view: np.ndarray) -> bool:
    """Whether a view (S, S, 3) is more than one colour: no bin of 16 levels a channel holds over 80 % of it."""
    bins = (view >> 4).astype(np.int64) @ np.array([256, 16, 1])
    return bool(np.bincount(bins.ravel()).max() <= ONE_COLOR * bins.size)
