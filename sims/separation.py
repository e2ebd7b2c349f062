"""Surfaces that have come too near each other, pushed apart: the dents that control points are too few to show.

Forces between bodies begin in time, but a dent of a touch is smaller than the distance between control points:
decoded, bodies that bounce go into each other by some mm. Surfaces of the ground truth stay two contact radii r apart,
and one from pushers and walls. So each point x of a surface that is nearer to a facet of another body, whose nearest
point is c = sum_k w_k c_k, moves out, and the corners of the facet move back, by position-based dynamics (Mueller et
al. 2007, section 3.3; equal masses; all constraints at once, and the mean of those that move the same point):

    C = n.(x - c) - 2 r < 0,   dx = -C n / (1 + sum_k w_k^2),   dc_k = w_k C n / (1 + sum_k w_k^2)

It commutes with rotations, reflections and shifts, and is done to what any model predicts, not by it: neither its own
variables nor velocities are touched.
"""

from itertools import combinations

import numpy as np

from .dataset import Trajectory
from .geometry import contained, facet_distances, near_box, nearest_weights
from .state import CONTACT_RADIUS

ITERATIONS = 3


def separated(trajectory: Trajectory, positions: np.ndarray) -> np.ndarray:
    """Positions (T + 1, P, dim), m, of a scene's particles, with the points of its soft surfaces pushed apart."""
    surfaces, solids = trajectory.by_body(trajectory.surface), trajectory.by_body(trajectory.elements)
    out = positions.copy()
    for now in out:
        if np.isfinite(now).all():
            for _ in range(ITERATIONS):
                _between_bodies(now, surfaces, solids)
                _out_of_rigid(trajectory, now)
    return out


def _between_bodies(now: np.ndarray, surfaces: list[np.ndarray], solids: list[np.ndarray]) -> None:
    """One iteration for all pairs of soft bodies, in place, by their facets and elements."""
    parts = [np.unique(surface) for surface in surfaces]
    reach, push, count = 2 * CONTACT_RADIUS, np.zeros_like(now), np.zeros(len(now))
    low, high = (np.stack([ends(now[own], axis=0) for own in parts]) for ends in (np.min, np.max))
    pairs = [
        (a, b)
        for a, b in combinations(range(len(parts)), 2)
        if ((low[a] - high[b]).max() < reach) and ((low[b] - high[a]).max() < reach)
    ]
    for own, other in [*pairs, *((b, a) for a, b in pairs)]:
        points = parts[own][near_box(now[parts[own], None], now[parts[other]], reach)]
        facets = surfaces[other][near_box(now[surfaces[other]], now[points], reach)] if len(points) else points
        if not len(facets):
            continue
        distance = facet_distances(now[points], now[facets])
        facet, distance = facets[distance.argmin(1)], distance.min(1)
        weights = nearest_weights(now[points], now[facet])  # (N, dim)
        away = now[points] - np.einsum("nk,nkd->nd", weights, now[facet])
        sign = np.where(contained(now[points], now, solids[other]), -1.0, 1.0)
        lack = reach - sign * distance
        hit = (lack > 0) & (distance > 1e-9)
        step = (sign * lack / distance.clip(1e-9) / (1 + (weights**2).sum(1)))[hit, None] * away[hit]
        np.add.at(push, points[hit], step)
        np.add.at(count, points[hit], 1)
        for corner in range(now.shape[1]):
            np.add.at(push, facet[hit, corner], -weights[hit, corner, None] * step)
            np.add.at(count, facet[hit, corner], weights[hit, corner])
    now += push / np.maximum(count, 1)[:, None]


def _out_of_rigid(trajectory: Trajectory, now: np.ndarray) -> None:
    """Points of soft bodies moved out of pushers and walls, in place."""
    points = np.flatnonzero(~trajectory.kinematic)
    for pusher in np.unique(trajectory.body[trajectory.kinematic]):
        there = now[trajectory.body == pusher]
        centre = there.mean(0)
        away = now[points] - centre
        distance = np.linalg.norm(away, axis=1, keepdims=True).clip(1e-9)
        wanted = np.linalg.norm(there - centre, axis=1).mean() + CONTACT_RADIUS
        now[points] += away / distance * np.maximum(wanted - distance, 0)
    for *normal, offset in trajectory.walls.astype(float):
        now[points] += np.maximum(offset + CONTACT_RADIUS - now[points] @ normal, 0)[:, None] * np.array(normal)
