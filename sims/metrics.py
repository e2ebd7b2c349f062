"""How good a predicted trajectory is: errors, contact, conservation, symmetry. Lengths in m."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from .dataset import FRAME, Trajectory, transformed
from .geometry import ball_gap, surface_gap
from .model import LearnedModel, Prediction, predict, pushed_apart
from .scenes import random_rotation
from .state import CONTACT_RADIUS

WILD = 10.0  # times the largest true speed: a rollout in which a particle goes farther in a frame has diverged
LOST = 0.25  # m^2, mean squared error that a diverged rollout counts as at least: three bodies' size
AT = (1, 10, 49, 99)  # frames whose error is told apart
TOUCH = 2 * CONTACT_RADIUS + 0.002  # surfaces of bodies that are nearer meet
TOUCH_RIGID = CONTACT_RADIUS + 0.002  # and a body and a pusher or a wall
SEEN = 0.05  # gaps are measured up to here


def squared_errors(truth: Trajectory, positions: np.ndarray) -> np.ndarray:
    """Squared distance to the truth, a mean over the particles of soft bodies, of each frame, (T + 1,)."""
    soft, frames = ~truth.kinematic, len(positions)
    difference = positions[:, soft] - truth.positions[:frames, soft]
    with np.errstate(over="ignore", invalid="ignore"):
        return (difference**2).sum(-1).mean(1)


def has_diverged(truth: Trajectory, positions: np.ndarray) -> bool:
    """Whether positions (T + 1, P, dim) are not finite, or move WILD times as fast as anything in the truth."""
    soft = ~truth.kinematic
    if not np.isfinite(positions).all():
        return True
    fastest = np.linalg.norm(np.diff(positions[:, soft], axis=0), axis=-1).max(initial=0.0) / FRAME
    return bool(fastest > WILD * np.linalg.norm(truth.velocities[:, soft], axis=-1).max())


def gaps(truth: Trajectory, positions: np.ndarray) -> np.ndarray:
    """Smallest distance between the surfaces of soft bodies in each frame, (T + 1,), at most SEEN; negative: how deep
    one body is in another."""
    bodies = len(truth.young)
    surfaces, solids = truth.by_body(truth.surface), truth.by_body(truth.elements)
    out = np.full(len(positions), SEEN)
    own = [positions[:, truth.body == body] for body in range(bodies)]
    low, high = (np.stack([ends(points, axis=1) for points in own]) for ends in (np.min, np.max))  # (bodies, T, dim)
    for frame, now in enumerate(positions):
        for a, b in combinations(range(bodies), 2) if np.isfinite(now).all() else ():
            apart = np.maximum(low[a, frame] - high[b, frame], low[b, frame] - high[a, frame])
            if apart.max() >= out[frame]:
                continue
            out[frame] = min(out[frame], surface_gap(now, (surfaces[a], surfaces[b]), (solids[a], solids[b]), SEEN))
    return out


@lru_cache(maxsize=512)
def true_gaps(truth: Trajectory) -> np.ndarray:
    """`gaps` of the truth itself, which every simulator is compared with."""
    return gaps(truth, truth.positions)


def pusher_gaps(truth: Trajectory, positions: np.ndarray) -> np.ndarray:
    """The same between soft bodies and pushers."""
    surfaces, solids = truth.by_body(truth.surface), truth.by_body(truth.elements)
    out = np.full(len(positions), SEEN)
    for pusher in np.unique(truth.body[truth.kinematic]):
        places = positions[:, truth.body == pusher]
        centres = places.mean(1)
        radius = float(np.linalg.norm(places[0] - centres[0], axis=1).mean())
        for frame, now in enumerate(positions):
            for surface, solid in zip(surfaces, solids, strict=True) if np.isfinite(now).all() else ():
                out[frame] = min(out[frame], ball_gap(centres[frame], radius, now, surface, solid))
    return out


def wall_gaps(truth: Trajectory, positions: np.ndarray) -> np.ndarray:
    """The same between soft bodies and walls."""
    inside = positions[:, ~truth.kinematic] @ truth.walls[:, :-1].T - truth.walls[:, -1]
    return np.minimum(inside.min((1, 2)), SEEN)


def contact_scores(found: np.ndarray, wanted: np.ndarray, touch: float) -> dict[str, float]:
    """Of smallest gaps (T + 1,), m, predicted and true: error of the smallest one, where surfaces come near each other,
    penetration, and by how many frames the first touch is missed: by all where only one of both has a touch."""
    met, meant = (np.flatnonzero(own < touch) for own in (found, wanted))
    scores = {"penetration": float(max(0.0, -found.min()))}
    if wanted.min() < SEEN:
        scores["gap_error"] = float(abs(found.min() - wanted.min()))
    if len(met) or len(meant):
        scores["missed_impact"] = float(len(met) == 0 or len(meant) == 0)
        scores["impact_frames"] = float(abs(met[0] - meant[0]) if len(met) and len(meant) else len(found))
    return scores


def _drift(values: np.ndarray, scale: float) -> float:
    return float(np.linalg.norm(values - values[0], axis=-1).max() / scale)


def rollout_scores(truth: Trajectory, result: Prediction) -> dict[str, float]:
    """All scores of one rollout; without those that do not apply, such as the momentum of a scene with a pusher.

    Those of `apart_` are of the same with surfaces `pushed_apart`; all others of what the model itself predicts.
    """
    frames, soft = len(result.positions), ~truth.kinematic
    errors = squared_errors(truth, result.positions)
    diverged = has_diverged(truth, result.positions)
    scores: dict[str, float] = {"diverged": float(diverged), "mse": float(errors[1:].mean())}
    scores["mse_last"] = float(errors[-1])
    for frame in AT:
        if frame < frames:
            gone = diverged and has_diverged(truth, result.positions[: frame + 1])
            scores[f"mse_{frame}"] = math.inf if gone else float(errors[frame])
    if diverged:
        return scores | {"mse": math.inf, "mse_last": math.inf}
    mass, x, v = truth.mass[soft].astype(float), result.positions[:, soft], result.velocities[:, soft]
    expected = truth.velocities[:frames, soft].astype(float)
    kinetic, real = (0.5 * np.einsum("p,tpd,tpd->t", mass, u, u) for u in (v, expected))
    scores["kinetic_energy_error"] = float(np.abs(kinetic - real).mean() / real.max())
    last, aim = x[-1], truth.positions[frames - 1, soft].astype(float)
    scores["chamfer"] = float(cKDTree(aim).query(last)[0].mean() + cKDTree(last).query(aim)[0].mean())
    # Optimal transport between equal weights, exactly: what Sinkhorn's iteration approximates.
    cost = cdist(last, aim, "sqeuclidean")
    scores["transport"] = float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))
    free = frames
    if len(truth.young) > 1:
        wanted = true_gaps(truth)[:frames]
        scores |= contact_scores(gaps(truth, result.positions), wanted, TOUCH)
        apart = contact_scores(gaps(truth, pushed_apart(truth, result).positions), wanted, TOUCH)
        scores |= {f"apart_{key}": apart[key] for key in ("gap_error", "penetration") if key in apart}
        free = min([frames, *(np.flatnonzero(wanted < TOUCH) - 1).tolist()])
    for name, there, measure in (("pusher", truth.kinematic.any(), pusher_gaps), ("wall", len(truth.walls), wall_gaps)):
        if there:
            own = measure(truth, result.positions), measure(truth, truth.positions[:frames])
            scores |= {f"{name}_{key}": value for key, value in contact_scores(*own, TOUCH_RIGID).items()}
    alone = not truth.kinematic.any() and not len(truth.walls) and float(truth.drag) == 0
    if alone and not truth.gravity.any():
        momentum = np.einsum("p,tpd->td", mass, v)
        scores["momentum_drift"] = _drift(momentum, float(mass @ np.linalg.norm(v[0], axis=-1)))
        arm = x - np.einsum("p,tpd->td", mass, x)[:, None] / mass.sum()
        if truth.dim == 2:
            turning = np.einsum("p,tp->t", mass, arm[..., 0] * v[..., 1] - arm[..., 1] * v[..., 0])[:, None]
        else:
            turning = np.einsum("p,tpd->td", mass, np.cross(arm, v))
        scale = float(mass @ (np.linalg.norm(arm[0], axis=-1) * np.linalg.norm(v[0], axis=-1)))
        scores["angular_momentum_drift"] = _drift(turning, scale)
        if free > 3:
            scores["free_energy_drift"] = float(np.abs(kinetic[:free] / kinetic[0] - 1).max())
    return scores


def summarise(scores: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over scenes (of those that did not diverge, but for the errors), and medians where they say more."""
    names = [name for name in dict.fromkeys(key for own in scores for key in own)]
    out: dict[str, Any] = {"scenes": len(scores)}
    for name in names:
        values = np.array([own.get(name, np.nan) for own in scores], float)
        if name.startswith("mse"):  # what had diverged counts as the worst of the others, and at least as LOST
            values = np.where(np.isinf(values), max([LOST, *values[np.isfinite(values)]]), values)
        if np.isnan(values).all():
            continue
        out[name] = float(np.nanmean(values))
        if name.endswith(("mse", "impact_frames", "gap_error")):
            out[f"{name}_median"] = float(np.nanmedian(values))
        if name == "penetration":
            out["penetration_worst"] = float(np.nanmax(values))
    return out


def at_impact(trajectory: Trajectory) -> Trajectory:
    """The same from two frames before its bodies are nearest to each other."""
    first = max(0, int(true_gaps(trajectory).argmin()) - 2)
    cut = {name: getattr(trajectory, name)[first:] for name in ("positions", "velocities")}
    return replace(trajectory, **cut)


def equivariance_error(model: LearnedModel, trajectories: Sequence[Trajectory], frames: int, seed: int = 0) -> float:
    """Largest distance between the moved prediction of a scene and the prediction of the moved scene, m.

    Every scene is moved by a random rotation, every second one is mirrored too, and by a shift of up to 1 m.
    """
    rng, moves = np.random.default_rng(seed), []
    for number, trajectory in enumerate(trajectories):
        matrix = random_rotation(trajectory.dim, rng)
        matrix[0] *= 1 - 2 * (number % 2)
        moves.append((matrix, rng.uniform(-1, 1, trajectory.dim)))
    starts = [_wide(trajectory) for trajectory in trajectories]
    first = predict(model, starts, frames)
    second = predict(model, [transformed(t, *move) for t, move in zip(starts, moves, strict=True)], frames)
    return max(
        float(np.linalg.norm(two.positions - (one.positions @ matrix.T + shift), axis=-1).max())
        for one, two, (matrix, shift) in zip(first, second, moves, strict=True)
    )


def _wide(trajectory: Trajectory) -> Trajectory:
    """In float64, so that moving a scene does not round it."""
    names = ("positions", "velocities", "gravity", "walls")
    return replace(trajectory, **{name: getattr(trajectory, name).astype(float) for name in names})
