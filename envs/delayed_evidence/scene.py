"""Furniture, textures and lights, and their randomisation without recompiling the model."""

from typing import Any

import mujoco
import numpy as np

TEXTURES = 6  # floor and table textures to draw from
CUE_COLORS = ((0.85, 0.12, 0.12, 1), (0.12, 0.25, 0.9, 1), (0.1, 0.7, 0.2, 1), (0.9, 0.75, 0.1, 1))
DISTRACTORS = 3


class Factors:
    """Draws what varies between scenes: poses, lights, textures, distractors.

    Args:
        rng: source of randomness.
        share: "all" of every range; or, to see whether a policy generalises, "train" for the middle of every range
            and the first textures, "held_out" for both ends of every range, HELD_OUT of it, and the last textures.
    """

    HELD_OUT = 0.2
    SHARES = ("all", "train", "held_out")

    def __init__(self, rng: np.random.Generator, share: str = "all") -> None:
        self.rng, self.share = rng, share

    def uniform(self, low: Any, high: Any, size: Any = None) -> Any:
        """As `numpy.random.Generator.uniform`, from this share of [low, high]."""
        if self.share == "all":
            return self.rng.uniform(low, high, size)
        low, high = np.asarray(low, float), np.asarray(high, float)
        place = self.rng.uniform(size=np.broadcast_shapes(low.shape, high.shape) if size is None else size)
        end = self.HELD_OUT / 2
        if self.share == "train":
            place = end + (1 - 2 * end) * place
        else:
            place = np.where(place < 0.5, 2 * end * place, 1 - 2 * end * (1 - place))
        return low + (high - low) * place

    def textures(self, size: int) -> np.ndarray:
        """Numbers (size,) of textures."""
        known = TEXTURES - 2
        low, high = {"all": (0, TEXTURES), "train": (0, known), "held_out": (known, TEXTURES)}[self.share]
        return self.rng.integers(low, high, size=size)


def new_spec(camera_size: tuple[int, int]) -> mujoco.MjSpec:
    """An empty room: floor, lights, textures; shadows and multisampling off."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.005
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    getattr(spec.visual, "global").offheight = max(480, camera_size[0])
    getattr(spec.visual, "global").offwidth = max(640, camera_size[1])
    spec.visual.map.znear = 0.01
    builtin = mujoco.mjtBuiltin
    rng = np.random.default_rng(0)  # the palette is part of the world, not of an episode
    for kind, base in (("floor", 0.45), ("table", 0.6)):
        for number in range(TEXTURES):
            name = f"{kind}_{number}"
            color = np.clip(base + rng.uniform(-0.15, 0.15, 3), 0, 1)
            spec.add_texture(
                name=name,
                type=mujoco.mjtTexture.mjTEXTURE_2D,
                builtin=builtin.mjBUILTIN_CHECKER if kind == "floor" else builtin.mjBUILTIN_FLAT,
                rgb1=color,
                rgb2=color * rng.uniform(0.8, 0.9),
                width=64,
                height=64,
            )
            material = spec.add_material(name=name, texrepeat=(4, 4), texuniform=True, specular=0.1)
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(6, 6, 0.1), material="floor_0")
    spec.worldbody.add_light(name="lamp", pos=(0.4, 0, 3), dir=(0, 0, -1), castshadow=False)
    return spec


def add_box(
    body: mujoco.MjsBody, name: str, half: tuple, position: tuple, rgba: tuple, solid: bool = True, **more: Any
) -> None:
    """A box geom; one that is not solid is only seen."""
    contact = {} if solid else {"contype": 0, "conaffinity": 0}
    body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=position, rgba=rgba, **contact, **more)


def add_open_box(body: mujoco.MjsBody, name: str, half: tuple[float, float], wall: float, rgba: tuple) -> None:
    """Four walls of height `wall` around a rectangle of half sizes `half`, on the body's origin plane."""
    x, y = half
    for side, size, position in (
        ("front", (0.005, y, wall / 2), (x, 0, wall / 2)),
        ("back", (0.005, y, wall / 2), (-x, 0, wall / 2)),
        ("left", (x, 0.005, wall / 2), (0, y, wall / 2)),
        ("right", (x, 0.005, wall / 2), (0, -y, wall / 2)),
    ):
        add_box(body, f"{name}_{side}", size, position, rgba)


def add_lane(body: mujoco.MjsBody, y: float, end: float) -> None:
    """Lines on the floor, as warehouses have: the middle of a lane along x, its start, marks of distance, its end.

    `end` is the x of the base where the lane ends, m.
    """
    yellow = (0.95, 0.85, 0.2, 1)
    for name, x, half in (
        ("lane", 0.75, (1.0, 0.012, 0.001)),
        ("start_line", 0.45, (0.012, 0.5, 0.001)),
        ("stop_line", end + 0.45, (0.03, 0.3, 0.001)),
    ):
        add_box(body, name, half, (x, y, 0.001), yellow, solid=False)
    for number in range(5):
        shade = (0.2 + 0.15 * number, 0.2, 0.8 - 0.15 * number, 1)
        place = (0.65 + 0.2 * number, y + 0.12, 0.001)
        add_box(body, f"mark_{number}", (0.03, 0.06, 0.001), place, shade, solid=False)


def add_distractors(spec: mujoco.MjSpec) -> None:
    """Small coloured things that mean nothing; `randomise_looks` moves and colours them."""
    for number in range(DISTRACTORS):
        body = spec.worldbody.add_body(name=f"distractor_{number}", mocap=True)
        add_box(body, f"distractor_{number}", (0.02, 0.02, 0.03), (0, 0, 0), (0.5, 0.5, 0.5, 1), solid=False)


def add_decoys(spec: mujoco.MjSpec, count: int, half: tuple[float, float, float]) -> None:
    """Things in the look of the cue that show up later, when they mean nothing; invisible until then."""
    for number in range(count):
        body = spec.worldbody.add_body(name=f"decoy_{number}", mocap=True)
        add_box(body, f"decoy_{number}", half, (0, 0, 0), (0.5, 0.5, 0.5, 0), solid=False)


def randomise_looks(
    model: mujoco.MjModel, data: mujoco.MjData, factors: Factors, tables: list[str], places: np.ndarray
) -> None:
    """Draw textures, light and distractors. `places` (M, 2, 3) are boxes [low, high] for distractors."""
    draw, rng = factors.textures(2), factors.rng
    model.geom("floor").matid = model.material(f"floor_{draw[0]}").id
    for table in tables:
        model.geom(table).matid = model.material(f"table_{draw[1]}").id
    model.light("lamp").pos = (factors.uniform(0, 0.8), factors.uniform(-0.6, 0.6), 3)
    brightness = factors.uniform(0.55, 0.8)
    model.light("lamp").diffuse = brightness
    model.vis.headlight.ambient[:] = 0.25
    model.vis.headlight.diffuse[:] = 0.25
    for number in range(DISTRACTORS):
        low, high = places[rng.integers(len(places))]
        data.mocap_pos[model.body(f"distractor_{number}").mocapid[0]] = factors.uniform(low, high)
        angle = factors.uniform(0, np.pi)
        data.mocap_quat[model.body(f"distractor_{number}").mocapid[0]] = np.cos(angle / 2), 0, 0, np.sin(angle / 2)
        gray = factors.uniform(0.2, 0.9)  # never a cue colour
        model.geom(f"distractor_{number}").rgba = (gray, np.clip(gray + factors.uniform(-0.1, 0.1), 0, 1), gray, 1)
