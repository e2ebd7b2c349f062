"""Views of rooms: each is rendered once and kept on disk, shared between processes."""

import hashlib
from pathlib import Path

import mujoco
import numpy as np

from ..base import new_renderer
from .lattice import Lattice
from .scenes import Room

VERSION = 2  # of what rooms look like; raised whenever it changes
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
        self.kept: dict[int, np.ndarray] = {}
        self.frames: np.memmap | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        look = hashlib.sha256(repr((VERSION, room.lattice, size)).encode() + room.boxes.tobytes()).hexdigest()[:8]
        count, parts = room.lattice.size, []
        for name, shape in (("views", (count, size, size, 3)), ("there", (count,))):
            path = folder / f"room_{room.seed}_{look}.{name}"
            with path.open("ab") as file:  # made by whoever comes first, with holes
                file.truncate(int(np.prod(shape)))
            parts.append(np.memmap(path, np.uint8, "r+", shape=shape))
        self.frames, self.there = parts

    def __call__(self, nodes: np.ndarray | int) -> np.ndarray:
        """Views of nodes (...) -> uint8 (..., size, size, 3); those that are missing are rendered."""
        nodes = np.asarray(nodes)
        for node in map(int, np.unique(nodes)):
            known = node in self.kept if self.frames is None else self.there[node]
            if not known:
                self._render(node)
        if self.frames is not None:
            return np.asarray(self.frames[nodes])
        flat = np.stack([self.kept[int(node)] for node in nodes.ravel()])
        return flat.reshape(*nodes.shape, *flat.shape[1:])

    def _render(self, node: int) -> None:
        if self.renderer is None:
            self.renderer = RoomRenderer(self.room)
        picture = self.renderer.picture(node, self.size)
        if self.frames is None:
            self.kept[node] = picture
        else:
            self.frames[node] = picture
            self.there[node] = 1

    def close(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None


def telling(view: np.ndarray) -> bool:
    """Whether a view (S, S, 3) is more than one colour: no bin of 16 levels a channel holds over 80 % of it."""
    bins = (view >> 4).astype(np.int64) @ np.array([256, 16, 1])
    return bool(np.bincount(bins.ravel()).max() <= ONE_COLOR * bins.size)
