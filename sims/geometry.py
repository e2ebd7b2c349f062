"""Distances between surfaces: segments in 2D, triangles in 3D, around meshes of elements. Lengths in m."""

import numpy as np


def _dot(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Scalar products along the last axis: several times as fast as a sum over so short an axis."""
    return np.einsum("...d,...d->...", one, two)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(_dot(vectors, vectors))


def contained(points: np.ndarray, corners: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Which points (P, dim) are in a mesh of `elements` over `corners`, (P,)."""
    box = (points >= corners.min(0)).all(1) & (points <= corners.max(0)).all(1)
    within = np.zeros(len(points), dtype=bool)
    if not box.any():
        return within
    tips = corners[elements]  # (E, dim + 1, dim)
    edges = tips[:, 1:] - tips[:, :1]
    inverse = np.linalg.inv(edges)
    weights = np.einsum("ped,edk->pek", points[box, None] - tips[:, 0], inverse)
    within[box] = (np.minimum(weights.min(-1), 1 - weights.sum(-1)) > 0).any(1)
    return within


def facet_distances(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distances (N, F) of points (N, dim) to facets (F, dim, dim): segments in 2D, triangles in 3D."""
    if corners.shape[-1] == 2:
        return _segment_distances(points, corners[:, 0], corners[:, 1])
    one, two, arm = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points[:, None] - corners[:, 0]
    u, v = _barycentric(arm, one, two)
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    normal = _cross(one, two)
    height = np.abs(_dot(arm, normal)) / _length(normal)
    sides = [_segment_distances(points, corners[:, i], corners[:, j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    return np.where(inside, height, np.min(sides, axis=0))


def _segment_distances(points: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    along, arm = end - begin, points[:, None] - begin
    return _length(arm - _foot(arm, along)[..., None] * along)


def _foot(arm: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Where on a segment `along` the point nearest to `arm` is, both from its beginning, 0 to 1."""
    return (_dot(arm, along) / _dot(along, along)).clip(0, 1)


def _barycentric(arm: np.ndarray, one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the foot of `arm` in the plane that `one` and `two` span."""
    a, b, c = _dot(one, one), _dot(one, two), _dot(two, two)
    x, y = _dot(arm, one), _dot(arm, two)
    scale = a * c - b * b
    return (c * x - b * y) / scale, (a * y - b * x) / scale


def nearest_weights(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights (N, dim) of the point of each facet (N, dim, dim) that is nearest to the point (N, dim)."""
    dim = corners.shape[-1]
    sides = [(0, 1)] if dim == 2 else [(0, 1), (1, 2), (2, 0)]
    choices = []
    for i, j in sides:
        t = _foot(points - corners[:, i], corners[:, j] - corners[:, i])
        choices.append(np.stack([1 - t if k == i else t if k == j else 0 * t for k in range(dim)], axis=1))
    if dim == 3:
        begin = corners[:, 0]
        u, v = _barycentric(points - begin, corners[:, 1] - begin, corners[:, 2] - begin)
        within = ((u >= 0) & (v >= 0) & (u + v <= 1))[:, None]
        choices.append(np.where(within, np.stack([1 - u - v, u, v], axis=1), choices[0]))
    feet = np.einsum("snk,nkd->snd", choices, corners)
    nearest = _length(points - feet).argmin(0)
    return np.stack(choices)[nearest, np.arange(len(points))]


def _end_distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Distances (N, M) of the nearest end of segments (N, 2, dim) and (M, 2, dim) to the other segment."""
    ends = [_segment_distances(one[:, i], two[:, 0], two[:, 1]) for i in (0, 1)]
    ends += [_segment_distances(two[:, i], one[:, 0], one[:, 1]).T for i in (0, 1)]
    return np.min(ends, axis=0)


def edge_distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Distances (N, M) of segments (N, 2, 3) to segments (M, 2, 3): between lines where both feet are inside, else
    of an end to the other segment (Ericson, Real-Time Collision Detection, 5.1.9)."""
    d, e = (one[:, 1] - one[:, 0])[:, None], (two[:, 1] - two[:, 0])[None]
    r = one[:, None, 0] - two[None, :, 0]
    a, b, f = _dot(d, d), _dot(d, e), _dot(e, e)
    c, g = _dot(d, r), _dot(e, r)
    scale = np.maximum(a * f - b * b, 1e-18)
    s, t = (b * g - c * f) / scale, (a * g - b * c) / scale
    inside = (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    between = _length(r + s[..., None] * d - t[..., None] * e)
    return np.minimum(np.where(inside, between, np.inf), _end_distances(one, two))


def crossing(edges: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which of segments (N, 2, 3) go through which of triangles (F, 3, 3), (N, F) (Moeller and Trumbore 1997)."""
    along = (edges[:, 1] - edges[:, 0])[:, None]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    cross = _cross(along, two)
    scale = _dot(cross, one)
    scale = np.where(np.abs(scale) < 1e-18, np.nan, scale)  # parallel: no comparison below holds
    arm = edges[:, None, 0] - corners[:, 0]
    u = _dot(arm, cross) / scale
    other = _cross(arm, one)
    v, t = _dot(along, other) / scale, _dot(two, other) / scale
    return (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0) & (t <= 1)


def _cross(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """`np.cross` in 3D without its checks."""
    (a, b, c), (x, y, z) = np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0)
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)


def crossing_depths(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """How far segments (N, 2, 2) that cross segments (M, 2, 2) of the plane are from coming apart at an end, (N, M); 0:
    they do not cross."""

    def sides(of: np.ndarray, ends: np.ndarray) -> np.ndarray:
        along, arm = of[:, 1] - of[:, 0], ends[:, None] - of[:, 0]
        return along[:, 0] * arm[..., 1] - along[:, 1] * arm[..., 0]

    apart = sides(two, one[:, 0]) * sides(two, one[:, 1]) < 0
    apart &= (sides(one, two[:, 0]) * sides(one, two[:, 1]) < 0).T
    return np.where(apart, _end_distances(one, two), 0.0)


def ball_gap(centre: np.ndarray, radius: float, points: np.ndarray, surface: np.ndarray, solid: np.ndarray) -> float:
    """Distance of a ball (a disc in 2D) from the surface of a body; negative: how deep one is in the other.

    Args:
        centre: (dim,).
        points: (P, dim), surface, solid: facets (F, dim) and elements (E, dim + 1) of the body.
    """
    apart = float(facet_distances(centre[None], points[surface]).min())
    within = contained(centre[None], points, solid)[0]
    return -(apart + radius) if within else apart - radius


def surface_gap(
    points: np.ndarray, surfaces: tuple[np.ndarray, np.ndarray], solids: tuple[np.ndarray, np.ndarray], reach: float
) -> float:
    """Smallest distance between the surfaces of two bodies, at most `reach`; negative: how deep they are in each other.

    Args:
        points: (P, dim).
        surfaces: facets of each, (F, dim).
        solids: elements of each, (E, dim + 1).
        reach: farther bodies are not told apart.
    """
    gap = min(reach, _sides_gap(points, surfaces, reach))
    for own, other in ((0, 1), (1, 0)):
        tips, corners = points[np.unique(surfaces[own])], points[surfaces[other]]
        tips = tips[near_box(tips[:, None], corners, reach)]
        corners = corners[near_box(corners, tips, reach)] if len(tips) else corners[:0]
        if len(corners):
            distance = facet_distances(tips, corners).min(1)
            inside = contained(tips, points, solids[other])
            gap = min(gap, float(np.where(inside, -distance, distance).min()))
    return gap


def _sides_gap(points: np.ndarray, surfaces: tuple[np.ndarray, np.ndarray], reach: float) -> float:
    """Smallest distance between the edges of two surfaces in 3D; negative, in 2D too, where a side of one goes through
    one of the other: how far it is from leaving it sideways."""
    flat = points.shape[1] == 2
    pairs = [[0, 1]] if flat else [[0, 1], [1, 2], [2, 0]]
    edges = [np.unique(np.sort(own[:, pairs].reshape(-1, 2), axis=1), axis=0) for own in surfaces]
    parts = [points[own] for own in edges]
    parts = [own[near_box(own, points[other], reach)] for own, other in zip(parts, surfaces[::-1], strict=True)]
    if not all(map(len, parts)):
        return reach
    if flat:
        deep = float(crossing_depths(parts[0], parts[1]).max())
        return -deep if deep > 0 else reach
    distance, deep = edge_distances(parts[0], parts[1]), 0.0
    for own, other, table in ((parts[0], surfaces[1], distance), (parts[1], surfaces[0], distance.T)):
        through = crossing(own, points[other]).any(1)
        if through.any():
            deep = max(deep, float(table[through].min(1).max()))
    return -deep if deep > 0 else float(distance.min())


def near_box(parts: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """Which of parts (N, corners, dim) come within `reach` of the box around others (..., dim)."""
    others = others.reshape(-1, others.shape[-1])
    return ((parts.max(1) > others.min(0) - reach) & (parts.min(1) < others.max(0) + reach)).all(1)
