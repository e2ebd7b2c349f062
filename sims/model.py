"""What every learned simulator is: a map from particles to its own variables and back, and steps of these.

S scenes are a batch; `...` below are a model's own axes, such as bodies and control points, or particles; padded.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .dataset import FRAME, Trajectory, describe
from .separation import separated
from .state import Scene, State, check_step

Own = TypeVar("Own", bound="Batch")


@dataclass
class Batch:
    """Tensors of a batch of scenes."""

    def to(self: Own, *where: torch.device | torch.dtype) -> Own:
        """On another device or in another precision."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Batch):
                value = value.to(*where)
            elif isinstance(value, Tensor):
                for target in where:
                    if isinstance(target, torch.device) or value.is_floating_point():
                        value = value.to(target)
            moved[field.name] = value
        return type(self)(**moved)


@dataclass
class Window(Batch):
    """Some frames of a batch of scenes: T + 1 states, the first of which is given to the model."""

    statics: Any  # the model's batch of what does not change
    positions: Tensor  # (T + 1, S, ..., dim)
    velocities: Tensor  # (T + 1, S, ..., dim)
    past: Tensor  # (history, S, ..., dim), velocities before; the first frame's where there was none before
    place: Tensor  # (S, R, dim), samples of pushers at the beginning
    speeds: Tensor  # (T, S, R, dim), of pushers in each frame


class LearnedModel(nn.Module):
    """Base of all learned simulators.

    Args:
        dim: 2 or 3.
    Raises:
        ValueError: another dim.
    """

    history = 0  # frames before the present whose velocities a step wants
    markov = True  # whether a step is a function of positions and velocities alone
    touching = True  # whether bodies feel each other: pictures then show them `pushed_apart`
    place: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise ValueError(f"dim must be 2 or 3, got {dim}")
        self.dim = dim
        self.register_buffer("place", torch.zeros(()), persistent=False)  # tells device and precision

    def speeds(self, trajectory: Trajectory) -> np.ndarray:
        """The velocities (T + 1, P, dim) that the model is shown and should predict, m/s."""
        return trajectory.velocities

    @abstractmethod
    def gather(self, trajectories: Sequence[Trajectory]) -> Any:
        """What does not change in scenes, a `Batch` of float64."""

    @abstractmethod
    def encode(self, trajectories: Sequence[Trajectory], values: Sequence[np.ndarray]) -> Tensor:
        """Positions or velocities (T, P, dim) of the particles of each scene as the model's (T, S, ..., dim)."""

    @abstractmethod
    def decode(self, trajectories: Sequence[Trajectory], values: np.ndarray) -> list[np.ndarray]:
        """The inverse; (T, P, dim) of each scene. What it says of pushers does not count."""

    @abstractmethod
    def weights(self, statics: Any) -> Tensor:
        """How much each variable counts, (S, ...); 0 for padding and pushers."""

    @abstractmethod
    def rollout(
        self, p: Tensor, v: Tensor, statics: Any, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Positions and velocities (frames + 1, S, ..., dim), the given ones first. Differentiable.

        Args:
            p, v: (S, ..., dim).
            pushers: positions (S, R, dim) at the beginning, velocities (frames, S, R, dim) of each frame.
            past: (history, S, ..., dim), velocities before; None: always v.
        """

    @abstractmethod
    def contact_edges(self, p: Tensor, statics: Any, place: Tensor) -> Tensor:
        """Ends (E, 2, dim) of the edges along which bodies of a batch feel each other; for pictures.

        Args:
            p: (S, ..., dim).
            place: samples of pushers, (S, R, dim).
        """

    def statics(self, trajectories: Sequence[Trajectory]) -> Any:
        """What does not change in scenes, on the model's device and in its precision.

        Raises:
            ValueError: no scene, or one of another dimension.
        """
        self.check(trajectories)
        return self.gather(trajectories).to(self.place.device, self.place.dtype)

    def check(self, trajectories: Sequence[Trajectory]) -> None:
        """Raise a ValueError for no scene, or one of another dimension."""
        if not trajectories:
            raise ValueError("no scene was given; at least one is needed")
        for trajectory in trajectories:
            if trajectory.dim != self.dim:
                raise ValueError(f"this model is of {self.dim} dimensions, the scene has {trajectory.dim}")

    def window(self, trajectories: Sequence[Trajectory], starts: Sequence[int], frames: int) -> Window:
        """`frames` frames of each trajectory from a frame of its own, in float64 on the CPU."""
        self.check(trajectories)
        pairs = list(zip(trajectories, starts, strict=True))
        place, speeds = pusher_frames(trajectories, starts, frames)
        positions = self.encode(trajectories, [t.positions[start : start + frames + 1] for t, start in pairs])
        before = [np.maximum(np.arange(start - self.history, start + frames + 1), 0) for start in starts]
        shown = [self.speeds(t)[own] for t, own in zip(trajectories, before, strict=True)]
        past, velocities = self.encode(trajectories, shown).tensor_split([self.history])
        return Window(self.gather(trajectories), positions, velocities, past, place, speeds)


def pusher_frames(trajectories: Sequence[Trajectory], starts: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """Pusher samples of trajectories from frame `starts` on: positions (S, R, dim), velocities (frames, S, R, dim).

    Beyond the end of a trajectory its pushers keep their last velocity.
    """
    own = [np.flatnonzero(trajectory.kinematic) for trajectory in trajectories]
    most, dim = max(len(points) for points in own), trajectories[0].dim
    place = np.zeros((len(trajectories), most, dim))
    speed = np.zeros((frames, len(trajectories), most, dim))
    for scene, (trajectory, points, start) in enumerate(zip(trajectories, own, starts, strict=True)):
        at = np.minimum(np.arange(start, start + frames), len(trajectory.velocities) - 1)
        place[scene, : len(points)] = trajectory.positions[start, points]
        speed[:, scene, : len(points)] = trajectory.velocities[at][:, points]
    return torch.from_numpy(place), torch.from_numpy(speed)


@dataclass
class Prediction:
    """Frames of one scene as a model sees them: positions and velocities (T + 1, P, dim), and its own variables."""

    positions: np.ndarray
    velocities: np.ndarray
    latent: np.ndarray  # (T + 1, ..., dim), positions


@torch.no_grad()
def predict(
    model: LearnedModel, trajectories: Sequence[Trajectory], frames: int, dt: float = FRAME, statics: Any = None
) -> list[Prediction]:
    """`frames` frames of dt s of each scene, from its first state.

    Args:
        statics: of these scenes, if they are known already.
    """
    statics = model.statics(trajectories) if statics is None else statics
    like = model.place
    p = model.encode(trajectories, [t.positions[:1] for t in trajectories])[0].to(like)
    v = model.encode(trajectories, [t.velocities[:1] for t in trajectories])[0].to(like)
    place, speeds = pusher_frames(trajectories, [0] * len(trajectories), frames)
    result = model.rollout(p, v, statics, (place.to(like), speeds.to(like)), frames, dt)
    latent, change = (part.double().cpu().numpy() for part in result)
    out = []
    positions, velocities = model.decode(trajectories, latent), model.decode(trajectories, change)
    for scene, trajectory in enumerate(trajectories):
        pushed = trajectory.kinematic
        count = int(pushed.sum())
        steps = dt * np.cumsum(speeds[:, scene, :count].numpy(), axis=0)
        positions[scene][:, pushed] = trajectory.positions[0, pushed] + np.concatenate([0 * steps[:1], steps])
        velocities[scene][:, pushed] = speeds[:, scene, :count][[*range(frames), frames - 1]].numpy()
        out.append(Prediction(positions[scene], velocities[scene], latent[:, scene]))
    return out


def pushed_apart(trajectory: Trajectory, result: Prediction) -> Prediction:
    """A prediction with surfaces as far from each other as contact keeps them (`separated`), but in its first frame."""
    positions = result.positions.copy()
    positions[1:] = separated(trajectory, positions[1:])
    return replace(result, positions=positions)


@dataclass(frozen=True)
class Range:
    """What training data showed: largest speed of a point, m/s, least and largest stretch of an edge, Young's modulus,
    Pa, and drag, 1/s, from and to, largest gravity, m/s^2, largest speed of a pusher, m/s, 0 without any, and whether
    there were walls."""

    speed: float
    least: float
    most: float
    young: tuple[float, float] = (0.0, math.inf)
    drag: tuple[float, float] = (0.0, math.inf)
    gravity: float = math.inf
    pusher: float = math.inf
    walls: bool = True

    SLACK = 1.25  # by which a state may leave the range

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> "Range":
        """That of trajectories."""
        speed, least, most = 0.0, 1.0, 1.0
        for own in trajectories:
            speed = max(speed, float(np.linalg.norm(own.velocities[:, ~own.kinematic], axis=-1).max()))
            ratio = stretches(own, own.positions)
            least, most = min(least, float(ratio.min())), max(most, float(ratio.max()))
        moduli = np.concatenate([own.young for own in trajectories])
        drags = [float(own.drag) for own in trajectories]
        gravity = max(float(np.linalg.norm(own.gravity)) for own in trajectories)
        pushed = [np.linalg.norm(own.velocities[:, own.kinematic], axis=-1).max(initial=0.0) for own in trajectories]
        young, drag = (float(moduli.min()), float(moduli.max())), (min(drags), max(drags))
        return cls(
            speed, least, most, young, drag, gravity, float(max(pushed)), any(len(t.walls) for t in trajectories)
        )

    def left_by(self, described: Trajectory, state: State) -> str:
        """How a state has left the range; empty where it has not."""
        if not (np.isfinite(state.positions).all() and np.isfinite(state.velocities).all()):
            return "the simulator's state is not finite"
        speed = float(np.linalg.norm(state.velocities[~state.kinematic], axis=-1).max())
        if speed > self.SLACK * self.speed:
            return f"a point moves at {speed:.2f} m/s, training knew up to {self.speed:.2f}"
        ratio = stretches(described, state.positions)
        low, high = 1 - self.SLACK * (1 - self.least), 1 + self.SLACK * (self.most - 1)
        if ratio.min() < low or ratio.max() > high:
            worst = ratio.min() if ratio.min() < low else ratio.max()
            return f"an edge has {worst:.2f} of its length, training knew {self.least:.2f} to {self.most:.2f}"
        return self._left_by_scene(described) or self._left_by_pusher(state)

    def _left_by_pusher(self, state: State) -> str:
        speed = float(np.linalg.norm(state.velocities[state.kinematic], axis=-1).max(initial=0.0))
        if state.kinematic.any() and not self.pusher:
            return "there is a pusher, training knew none"
        if speed > self.SLACK * self.pusher:
            return f"a pusher moves at {speed:.2f} m/s, training knew up to {self.pusher:.2f}"
        return ""

    def _left_by_scene(self, described: Trajectory) -> str:
        softest, stiffest = float(described.young.min()), float(described.young.max())
        if softest < self.young[0] / self.SLACK or stiffest > self.young[1] * self.SLACK:
            worst = softest if softest < self.young[0] / self.SLACK else stiffest
            low, high = self.young
            return f"a body has a Young's modulus of {worst:.3g} Pa, training knew {low:.3g} to {high:.3g}"
        low, high = self.drag
        if not low / self.SLACK <= described.drag <= high * self.SLACK:
            return f"drag is {float(described.drag):.3g}/s, training knew {low:.3g} to {high:.3g}"
        gravity = float(np.linalg.norm(described.gravity))
        if gravity > self.SLACK * self.gravity:
            return f"gravity is {gravity:.3g} m/s^2, training knew up to {self.gravity:.3g}"
        if len(described.walls) and not self.walls:
            return "there is a wall, training knew none"
        return ""


def stretches(trajectory: Trajectory, positions: np.ndarray) -> np.ndarray:
    """Lengths of the edges of all elements over those at rest, of positions (..., P, dim)."""
    corners = trajectory.elements
    ends = np.concatenate([corners[:, [i, j]] for i, j in combinations(range(corners.shape[1]), 2)])
    rest = np.linalg.norm(trajectory.rest[ends[:, 0]] - trajectory.rest[ends[:, 1]], axis=-1)
    return np.linalg.norm(positions[..., ends[:, 0], :] - positions[..., ends[:, 1], :], axis=-1) / rest


class LearnedSimulator:
    """A trained model behind the simulator's contract. A step is a function of the state alone, and surfaces are as the
    model's variables have them: pushed apart, they would be another state.

    Args:
        model: the trained model.
        seen: range of its training data, for `out_of_distribution`; None: everything is in it.
    Raises:
        ValueError: a step of the model wants more than the state, such as earlier velocities.
    """

    def __init__(self, model: LearnedModel, seen: Range | None = None) -> None:
        if not model.markov:
            raise ValueError(
                f"a step of {type(model).__name__} wants more than positions and velocities, which a state does not "
                "hold; take a simulator without memory, such as sim=eqcollide"
            )
        self.model, self.seen = model.eval(), seen
        self.started: State | None = None

    def out_of_distribution(self, state: State) -> str:
        """In words, how a state has left the range that training knew; empty where it has not."""
        return "" if self.seen is None else self.seen.left_by(self.described, state)

    def reset(self, scene: Scene) -> State:
        """Put up a scene. Raises ValueError for one that cannot be simulated, or of another dimension."""
        scene.check()
        start = self.started = scene.start()
        self.described = describe(scene, [start], 0, float)
        self.statics = self.model.statics([self.described])
        return start

    def step(self, state: State, dt: float) -> State:
        """The state `dt` seconds later, in equal frames of at most the length that the model was trained with.

        Raises ValueError as `check_step`.
        """
        check_step(state, self.started, dt)
        now = replace(self.described, positions=state.positions[None], velocities=state.velocities[None])
        frames = max(1, math.ceil(dt / FRAME - 1e-6))
        result = predict(self.model, [now], frames, dt / frames, self.statics)[0]
        return State(result.positions[-1], result.velocities[-1], state.body, state.kinematic)
