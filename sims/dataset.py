"""Trajectories of the ground truth on disk: generated in parallel, seeded, resumable, whole or not there at all.

<root>/settings.json            what was asked for; written first, and compared when generation goes on
<root>/00000.npz ...            one trajectory each; a scene that diverges is drawn anew and counted as rejected
<root>/complete.json            counts and the equivariance floor; written last
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .flex import FlexSimulator, SimulationError
from .scenes import SceneSettings, random_rotation, random_scene
from .shapes import Mesh
from .state import VERSION, Body, Pusher, Scene, State, Wall

FRAME = 0.01  # s
ENERGY_TOLERANCE = 0.1  # share of the kinetic energy at the start that a trajectory may gain
SEEDS_EACH = 100  # scenes drawn for one trajectory before generation is given up
FLOOR_SCENES = 4  # by which the equivariance floor is measured


@dataclass(frozen=True, eq=False)
class Trajectory:
    """T + 1 frames of one scene. Points of soft bodies come first, then those of pushers."""

    positions: np.ndarray  # (T + 1, P, dim)
    velocities: np.ndarray  # (T + 1, P, dim)
    body: np.ndarray  # (P,)
    kinematic: np.ndarray  # (P,)
    rest: np.ndarray  # (P, dim), each body's own frame
    mass: np.ndarray  # (P,), kg; 0 of pushers
    elements: np.ndarray  # (E, dim + 1)
    surface: np.ndarray  # (F, dim), facets of the soft bodies, normals outwards
    young: np.ndarray  # (soft bodies,), Pa
    gravity: np.ndarray  # (dim,)
    drag: np.ndarray  # (), 1/s
    walls: np.ndarray  # (W, dim + 1): normal, offset
    seed: np.ndarray  # (), of the scene

    @property
    def dim(self) -> int:
        return self.positions.shape[-1]

    @property
    def frames(self) -> int:
        return len(self.positions) - 1

    def by_body(self, corners: np.ndarray) -> list[np.ndarray]:
        """Which of some facets or elements (N, ...) are of each soft body."""
        return [corners[self.body[corners[:, 0]] == body] for body in range(len(self.young))]


def describe(scene: Scene, states: list[State], seed: int, dtype: Any = np.float32) -> Trajectory:
    """Frames of a scene as a trajectory; states, gravity and walls are rounded to `dtype`, as they are on disk."""
    counts = [len(body.mesh.points) for body in scene.bodies]
    first = np.cumsum([0, *counts])
    pushers = [pusher.points for pusher in scene.pushers]
    number = sum(len(points) for points in pushers)
    return Trajectory(
        positions=np.stack([state.positions for state in states]).astype(dtype),
        velocities=np.stack([state.velocities for state in states]).astype(dtype),
        body=states[0].body,
        kinematic=states[0].kinematic,
        rest=np.concatenate([*(body.mesh.points for body in scene.bodies), *pushers]).astype(np.float32),
        mass=np.concatenate([*(body.masses for body in scene.bodies), np.zeros(number)]).astype(np.float32),
        elements=np.concatenate([b.mesh.elements + start for b, start in zip(scene.bodies, first, strict=False)]),
        surface=np.concatenate([b.mesh.surface + start for b, start in zip(scene.bodies, first, strict=False)]),
        young=np.array([body.young for body in scene.bodies], np.float32),
        gravity=scene.gravity.astype(dtype),
        drag=np.array(scene.drag, dtype),
        walls=np.array([[*w.normal, w.offset] for w in scene.walls], dtype).reshape(-1, scene.dim + 1),
        seed=np.array(seed),
    )


def simulate(scene: Scene, frames: int, seed: int = 0) -> Trajectory:
    """`frames` frames of the ground truth.

    Raises:
        ValueError, SimulationError: as the simulator; or energy came from nowhere in a scene without pushers.
    """
    simulator = FlexSimulator()
    states = [simulator.reset(scene)]
    for _ in range(frames):
        states.append(simulator.step(states[-1], FRAME))
    trajectory = describe(scene, states, seed)
    kinetic = 0.5 * (trajectory.velocities**2).sum(-1)
    fallen = (trajectory.positions - trajectory.positions[0]) @ trajectory.gravity
    gained = (kinetic - kinetic[0] - fallen) @ trajectory.mass
    if not scene.pushers and gained.max() > ENERGY_TOLERANCE * (1e-3 + kinetic[0] @ trajectory.mass):
        raise SimulationError(f"{gained.max():.3g} J of energy came from nowhere; use stiffer bodies or slower ones")
    return trajectory


def moved(scene: Scene, matrix: np.ndarray, shift: np.ndarray) -> Scene:
    """The scene under an orthogonal matrix (a rotation, or a reflection) and a shift."""
    # A mirrored body has a mirrored mesh, so that its orientation stays a rotation.
    mirror = np.eye(scene.dim)
    mirror[0, 0] = np.sign(np.linalg.det(matrix))
    bodies = []
    for body in scene.bodies:
        spin = body.spin * mirror[0, 0] if scene.dim == 2 else mirror[0, 0] * matrix @ body.spin
        mesh = body.mesh if mirror[0, 0] > 0 else _mirrored(body, mirror)
        orientation = matrix @ body.orientation @ mirror
        place, velocity = matrix @ body.position + shift, matrix @ body.velocity
        bodies.append(Body(mesh, place, orientation, velocity, spin, body.young))
    pushers = [Pusher(p.radius, matrix @ p.position + shift, matrix @ p.velocity) for p in scene.pushers]
    walls = [Wall(matrix @ wall.normal, wall.offset + float(matrix @ wall.normal @ shift)) for wall in scene.walls]
    return Scene(tuple(bodies), tuple(pushers), tuple(walls), matrix @ scene.gravity, scene.drag)


def _mirrored(body: Body, mirror: np.ndarray) -> Mesh:
    elements = body.mesh.elements.copy()
    elements[:, :2] = elements[:, 1::-1]
    return Mesh(body.mesh.points @ mirror, elements)


def equivariance_floor(settings: SceneSettings, frames: int, seeds: range) -> dict[str, float]:
    """RMS difference (m) between the moved result of a scene and the result of the moved scene, at the last frame."""
    rng = np.random.default_rng(0)
    squares: dict[str, list[float]] = {"rotation": [], "translation": [], "reflection": []}
    for seed in seeds:
        scene = random_scene(settings, seed)
        eye = np.eye(settings.dim)
        mirror = eye.copy()
        mirror[0, 0] = -1
        moves = {
            "rotation": (random_rotation(settings.dim, rng), 0 * eye[0]),
            "translation": (eye, rng.uniform(-1, 1, settings.dim)),
            "reflection": (mirror, 0 * eye[0]),
        }
        try:
            soft = ~(first := simulate(scene, frames)).kinematic
            ends = {name: simulate(moved(scene, *move), frames).positions[-1] for name, move in moves.items()}
        except SimulationError:
            continue
        for name, (matrix, shift) in moves.items():
            difference = ends[name] - (first.positions[-1] @ matrix.T + shift)
            squares[name].append(float((difference[soft] ** 2).sum(-1).mean()))
    return {name: float(np.sqrt(np.mean(values))) for name, values in squares.items() if values}


def transformed(trajectory: Trajectory, matrix: np.ndarray, shift: np.ndarray) -> Trajectory:
    """A trajectory under an orthogonal matrix (a rotation, or a reflection) and a shift."""
    rest, elements, surface = trajectory.rest, trajectory.elements, trajectory.surface
    if np.linalg.det(matrix) < 0:  # a mirrored body has a mirrored mesh
        rest = rest * np.where(np.arange(trajectory.dim) == 0, -1, 1).astype(rest.dtype)
        elements = elements[:, [1, 0, *range(2, trajectory.dim + 1)]]
        surface = surface[:, [1, 0, *range(2, trajectory.dim)]]
    walls = trajectory.walls.copy()
    walls[:, :-1] = walls[:, :-1] @ matrix.T
    walls[:, -1] += walls[:, :-1] @ shift
    return replace(
        trajectory, rest=rest, elements=elements, surface=surface, walls=walls,
        positions=trajectory.positions @ matrix.T + shift, velocities=trajectory.velocities @ matrix.T,
        gravity=matrix @ trajectory.gravity,
    )  # fmt: skip


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **content)
        file.flush()
        os.fsync(file.fileno())  # else a crash of the machine could leave a name without content
    temporary.replace(path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def seeds_of(count: int, first_seed: int) -> range:
    """Seeds from which the scenes of `count` trajectories, and of what is measured with them, may be drawn."""
    return range(first_seed, first_seed + count * SEEDS_EACH + FLOOR_SCENES)


def _generate(root: Path, settings: SceneSettings, frames: int, first_seed: int, number: int) -> int:
    """Write one trajectory; the number of scenes that were rejected."""
    for attempt in range(SEEDS_EACH):
        seed = first_seed + number * SEEDS_EACH + attempt
        try:
            trajectory = simulate(random_scene(settings, seed), frames, seed)
        except SimulationError:
            continue
        content = {field.name: getattr(trajectory, field.name) for field in fields(trajectory)}
        _write(root / f"{number:05d}.npz", {**content, "rejected": np.array(attempt)})
        return attempt
    raise SimulationError(
        f"{SEEDS_EACH} scenes from seed {first_seed + number * SEEDS_EACH} all diverged; make them gentler"
    )


def generate(
    root: Path, settings: SceneSettings, count: int, frames: int, first_seed: int,
    spread: Callable[[Callable[[int], int], Iterable[int]], Iterable[int]] = map,
) -> Iterator[int]:  # fmt: skip
    """Generate what is missing of `count` trajectories; yields how many there are after each.

    Args:
        spread: as `map`, over processes of this machine.
    Raises:
        ValueError: `root` holds trajectories of other settings.
        SimulationError: scenes of these settings always diverge.
    """
    asked = {"version": VERSION, **asdict(settings), "count": count, "frames": frames, "first_seed": first_seed}
    asked = json.loads(json.dumps(asked))
    file = root / "settings.json"
    if file.exists() and (found := json.loads(file.read_text())) != asked:
        key = next(key for key in asked if found.get(key) != asked[key])
        raise ValueError(
            f"{root} holds trajectories with {key}={found.get(key)}, asked for {asked[key]}; use another folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    _write_text(file, json.dumps(asked, indent=2))
    missing = [number for number in range(count) if not (root / f"{number:05d}.npz").exists()]
    done = count - len(missing)
    yield done
    work = partial(_generate, root, settings, frames, first_seed)
    for _ in spread(work, missing):
        done += 1
        yield done
    if not (root / "complete.json").exists():
        rejected = sum(int(np.load(path)["rejected"]) for path in sorted(root.glob("[0-9]*.npz")))
        floor = equivariance_floor(settings, frames, seeds_of(count, first_seed)[-FLOOR_SCENES:])
        about = {"trajectories": count, "rejected": rejected, "equivariance_floor_m": floor}
        _write_text(root / "complete.json", json.dumps(about, indent=2))


def load(root: Path) -> list[Trajectory]:
    """All trajectories of a complete dataset.

    Raises:
        ValueError: generation did not finish, or a file is missing or damaged since.
    """
    if not (root / "complete.json").exists():
        raise ValueError(f"{root} is not complete; generate it again, which goes on where it was")
    names = [field.name for field in fields(Trajectory)]
    out = []
    for number in range(json.loads((root / "complete.json").read_text())["trajectories"]):
        path = root / f"{number:05d}.npz"
        try:
            with np.load(path) as content:
                out.append(Trajectory(**{name: content[name] for name in names}))
        except (OSError, KeyError, ValueError, BadZipFile) as error:
            raise ValueError(
                f"{path} is missing or damaged ({error}); delete it and {root / 'complete.json'}, and it is made again"
            ) from error
    return out
