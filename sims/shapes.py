"""Bodies to collide: outlines in 2D, triangulated, and solids in 3D, in tetrahedra.

Every mesh is centred on its centre of mass and has elements of positive orientation and of similar size, since slivers
make an explicit integrator diverge. Lengths are in metres.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from math import factorial

import numpy as np
from scipy.spatial import Delaunay

KINDS_2D = ("disc", "box", "ellipse", "star", "l_shape", "ring", "polygon")
KINDS_3D = ("box", "ellipsoid", "extrusion")
LEAST_QUALITY = 0.05  # of an element: see `Mesh.quality`


@dataclass(frozen=True)
class Mesh:
    """A body at rest: points (P, dim) and elements (E, dim + 1), triangles or tetrahedra."""

    points: np.ndarray
    elements: np.ndarray

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @cached_property
    def volumes(self) -> np.ndarray:
        """Signed areas or volumes of the elements, (E,)."""
        return element_volumes(self.points, self.elements)

    @cached_property
    def shares(self) -> np.ndarray:
        """Share of the body's mass at each point, (P,): an equal part of every element around it."""
        part = np.repeat(self.volumes / (self.dim + 1), self.dim + 1)
        return np.bincount(self.elements.ravel(), part, len(self.points)) / self.volumes.sum()

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The facets of every element, (E (dim + 1), dim), and the corner opposite of each."""
        corners = range(self.dim + 1)
        facets = np.concatenate([np.delete(self.elements, i, axis=1) for i in corners])
        return facets, np.concatenate([self.elements[:, i] for i in corners])

    @cached_property
    def surface(self) -> np.ndarray:
        """Facets with an element on one side only, (F, dim), in the order that makes their normals point outwards."""
        facets, opposite = self.sides()
        _, first, count = np.unique(np.sort(facets, axis=1), axis=0, return_index=True, return_counts=True)
        facets, opposite = facets[first[count == 1]], opposite[first[count == 1]]
        inward = self.points[opposite] - self.points[facets[:, 0]]
        flip = np.einsum("fd,fd->f", facet_normals(self.points, facets), inward) > 0
        facets[flip, :2] = facets[flip, 1::-1]
        return facets

    def folded(self) -> int | None:
        """An element that lies on the same side of a facet as the other one there; None: there is none."""
        facets, opposite = self.sides()
        facets = np.sort(facets, axis=1)
        side = np.sign(element_volumes(self.points, np.column_stack([facets, opposite])))
        _, which, count = np.unique(facets, axis=0, return_inverse=True, return_counts=True)
        bad = np.flatnonzero((count > 2) | ((count == 2) & (np.bincount(which.ravel(), side) != 0)))
        return int(np.flatnonzero(which.ravel() == bad[0])[0] % len(self.elements)) if len(bad) else None

    def check(self) -> None:
        """Raise a ValueError where this is no mesh, has a point that no element uses, or its centre of mass elsewhere
        than at zero, or as `check_shape`."""
        check_elements(self.points, self.elements)
        unused = np.setdiff1d(np.arange(len(self.points)), self.elements)
        if len(unused):
            raise ValueError(f"point {unused[0]} of the body belongs to no element; `make_mesh` leaves such points out")
        self.check_shape()
        centre = self.shares @ self.points
        if np.linalg.norm(centre) > 1e-4 * np.ptp(self.points, axis=0).max():
            raise ValueError(f"the body's centre of mass must be at zero, it is at {centre}; `make_mesh` puts it there")

    def check_shape(self) -> None:
        """Raise a ValueError where an element is inverted or degenerate, or the body is folded over itself."""
        worst = int(self.quality.argmin())
        if not self.quality[worst] >= LEAST_QUALITY:
            raise ValueError(
                f"element {worst} of the body is inverted or degenerate: quality {self.quality[worst]:.3g}, at least "
                f"{LEAST_QUALITY} is needed; mesh the body again with elements of similar size"
            )
        folded = self.folded()
        if folded is not None:
            raise ValueError(
                f"element {folded} of the body lies over its neighbour: it is folded or inside out there; mesh the "
                "body again"
            )

    @cached_property
    def quality(self) -> np.ndarray:
        """Volume of each element over that of the regular one with the same mean square edge, (E,), 1 at best."""
        edges = [
            self.points[self.elements[:, i]] - self.points[self.elements[:, j]]
            for i in range(self.dim + 1)
            for j in range(i)
        ]
        mean_square = np.mean([(edge**2).sum(1) for edge in edges], axis=0)
        regular = {2: np.sqrt(3) / 4, 3: 1 / (6 * np.sqrt(2))}[self.dim]
        return self.volumes / (regular * mean_square ** (self.dim / 2))


def element_volumes(points: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """Signed areas or volumes (..., E) of elements (E, dim + 1) over points (..., P, dim)."""
    corners = points[..., elements, :]
    dim = points.shape[-1]
    return np.linalg.det(corners[..., 1:, :] - corners[..., :1, :]) / factorial(dim)


def facet_normals(points: np.ndarray, facets: np.ndarray) -> np.ndarray:
    """Normals (F, dim) of segments (F, 2) or triangles (F, 3), as long or large as the facets."""
    corners = points[facets]
    if points.shape[1] == 2:
        along = corners[:, 1] - corners[:, 0]
        return np.stack([along[:, 1], -along[:, 0]], axis=1)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


def check_elements(points: np.ndarray, elements: np.ndarray) -> None:
    """Raise a ValueError where arrays are not the points (P, dim) and elements (E, dim + 1) of a body."""
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) <= points.shape[1]:
        raise ValueError(f"a body needs more than dim points in 2D or 3D, got an array of shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{int((~np.isfinite(points)).sum())} coordinates of the body's points are not finite")
    if len(elements) == 0:
        raise ValueError("a body needs at least one element, got none")
    if elements.ndim != 2 or elements.shape[1] != points.shape[1] + 1:
        raise ValueError(f"elements must have shape (E, {points.shape[1] + 1}), got {elements.shape}")
    if elements.min() < 0 or elements.max() >= len(points):
        raise ValueError(f"elements must be over points 0..{len(points) - 1}, got {elements.min()}..{elements.max()}")


def make_mesh(points: np.ndarray, elements: np.ndarray) -> Mesh:
    """A mesh that is centred, oriented, and free of unused points.

    Raises:
        ValueError: fewer points than an element has, points that are not finite, elements over points that are not
            there, an element without volume, or a body that is folded over itself.
    """
    points, elements = np.asarray(points, dtype=float), np.asarray(elements)
    check_elements(points, elements)
    used, elements = np.unique(elements, return_inverse=True)
    points, elements = points[used], elements.reshape(-1, points.shape[1] + 1)
    volumes = element_volumes(points, elements)
    elements[volumes < 0, :2] = elements[volumes < 0, 1::-1]
    mesh = Mesh(points, elements)
    mesh.check_shape()
    return Mesh(points - mesh.shares @ points, elements)


def inside(points: np.ndarray, outlines: list[np.ndarray]) -> np.ndarray:
    """Whether points (P, 2) are inside closed outlines [(N, 2)], by the even-odd rule: an outline within is a hole."""
    crossings = np.zeros(len(points), dtype=int)
    for outline in outlines:
        a, b = outline, np.roll(outline, -1, axis=0)
        x, y = points[:, :1], points[:, 1:]
        spans = (a[:, 1] > y) != (b[:, 1] > y)
        rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
        crossings += (spans & (x < a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0]))).sum(1)
    return crossings % 2 == 1


def resample(outline: np.ndarray, spacing: float) -> np.ndarray:
    """Points on a closed outline about `spacing` apart; corners sharper than 40 degrees are kept."""
    before, after = outline - np.roll(outline, 1, axis=0), np.roll(outline, -1, axis=0) - outline
    turn = np.abs(np.angle((after @ (1, 1j)) / (before @ (1, 1j))))
    corners = np.flatnonzero(turn > np.deg2rad(40))
    corners = corners if len(corners) else np.array([0])
    closed = np.concatenate([outline[corners[0] :], outline[: corners[0] + 1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    parts = []
    for first, last in zip(corners - corners[0], [*(corners[1:] - corners[0]), len(outline)], strict=True):
        count = max(1, round((along[last] - along[first]) / spacing))
        at = np.linspace(along[first], along[last], count, endpoint=False)
        parts.append(np.stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)], axis=1))
    return np.concatenate(parts)


def triangulate(outlines: list[np.ndarray], spacing: float) -> Mesh:
    """Triangles of about `spacing` inside closed outlines [(N, 2)].

    Raises:
        ValueError: the outlines are too narrow for the spacing.
    """
    border = np.concatenate([resample(outline, spacing) for outline in outlines])
    low, high = border.min(0), border.max(0)
    rows = np.arange(low[1], high[1] + spacing, spacing * np.sqrt(3) / 2)
    columns = np.arange(low[0], high[0] + spacing, spacing)
    lattice = np.concatenate(
        [np.stack([columns + spacing / 2 * (i % 2), 0 * columns + y], axis=1) for i, y in enumerate(rows)]
    )
    gap = np.linalg.norm(lattice[:, None] - border, axis=-1).min(1)
    points = np.concatenate([border, lattice[inside(lattice, outlines) & (gap > 0.6 * spacing)]])
    for _ in range(5):  # Delaunay, and each inner point to the mean of its neighbours
        triangles = Delaunay(points).simplices
        triangles = triangles[inside(points[triangles].mean(1), outlines)]
        links = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        links = np.unique(np.concatenate([links, links[:, ::-1]]), axis=0)
        total = np.zeros_like(points)
        np.add.at(total, links[:, 0], points[links[:, 1]])
        mean = total / np.bincount(links[:, 0], minlength=len(points)).clip(1)[:, None]
        points[len(border) :] = mean[len(border) :]
    # Where the outline bends inwards, three of its points may make a sliver.
    corners = points[triangles]
    lengths = sum(((corners[:, i] - corners[:, i - 1]) ** 2).sum(1) for i in range(3))
    quality = np.abs(element_volumes(points, triangles)) / (np.sqrt(3) / 12 * lengths)
    return make_mesh(points, triangles[(quality > 0.3) | (triangles >= len(border)).any(1)])


def outline_of(kind: str, radius: float, spacing: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Closed outlines of a 2D kind that is about 2 * radius across; round ones have points about `spacing` apart.

    Raises:
        ValueError: unknown kind.
    """
    around = np.linspace(0, 2 * np.pi, max(32, 2 * round(2 * np.pi * radius / spacing)), endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], axis=1)
    if kind == "disc":
        return [radius * circle]
    if kind == "ellipse":
        ratio = rng.uniform(0.5, 0.8)
        return [radius * circle * (1 / np.sqrt(ratio), np.sqrt(ratio))]
    if kind == "box":
        ratio = rng.uniform(0.5, 1.0)
        half = 0.886 * radius * np.array([1 / np.sqrt(ratio), np.sqrt(ratio)])
        return [half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])]
    if kind == "star":
        arms = int(rng.integers(4, 7))
        return [radius * (1 + 0.28 * np.cos(arms * around))[:, None] * circle]
    if kind == "l_shape":
        a = 1.1 * radius
        return [a * (np.array([[0, 0], [2, 0], [2, 0.9], [0.9, 0.9], [0.9, 2], [0, 2]]) - 0.8)]
    if kind == "ring":
        return [1.15 * radius * circle, 0.5 * radius * circle]
    if kind == "polygon":
        corners = int(rng.integers(5, 9))
        angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
        return [radius * rng.uniform(0.8, 1.25, corners)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)]
    raise ValueError(f"unknown shape {kind!r}; choose one of {', '.join(KINDS_2D)}")


def grid(cells: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) of a grid over [-1, 1]^3 and its cubes in six tetrahedra each (Kuhn), (E, 4)."""
    nx, ny, nz = cells
    axes = np.meshgrid(*(np.linspace(-1, 1, n + 1) for n in cells), indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    steps = np.array([(ny + 1) * (nz + 1), nz + 1, 1])
    corner = np.stack(np.meshgrid(range(nx), range(ny), range(nz), indexing="ij"), -1).reshape(-1, 3) @ steps
    paths = [np.cumsum([0, *steps[list(order)]]) for order in permutations(range(3))]
    return points, (corner[:, None, None] + np.array(paths)).reshape(-1, 4)


def extrude(flat: Mesh, height: float, layers: int) -> Mesh:
    """A prism over a 2D mesh, in tetrahedra that fit together across prisms."""
    count = len(flat.points)
    levels = np.linspace(-height / 2, height / 2, layers + 1)
    points = np.concatenate([np.column_stack([flat.points, np.full(count, z)]) for z in levels])
    low = np.sort(flat.elements, axis=1)  # the diagonals of a side face are then the same in both of its prisms
    high = low + count
    a, b, c, d, e, f = *low.T, *high.T
    prism = np.concatenate([np.stack(tet, axis=1) for tet in ((a, b, c, f), (a, b, e, f), (a, d, e, f))])
    return make_mesh(points, np.concatenate([prism + layer * count for layer in range(layers)]))


def body_mesh(kind: str, dim: int, radius: float, spacing: float, rng: np.random.Generator) -> Mesh:
    """A random body of a kind, about 2 * radius across, with points about `spacing` apart.

    Raises:
        ValueError: unknown kind, dim other than 2 or 3, or a radius too small for the spacing.
    """
    if dim not in (2, 3):
        raise ValueError(f"dim must be 2 or 3, got {dim}")
    if not 0 < 1.5 * spacing <= radius:
        raise ValueError(f"radius must be at least 1.5 spacings, got radius {radius} m and spacing {spacing} m")
    if dim == 2:
        return triangulate(outline_of(kind, radius, spacing, rng), spacing)
    if kind == "extrusion":
        kind = str(rng.choice(["disc", "l_shape", "star", "polygon"]))
        flat = triangulate(outline_of(kind, radius, spacing, rng), spacing)
        return extrude(flat, 1.4 * radius, max(2, round(1.4 * radius / spacing)))
    if kind not in KINDS_3D:
        raise ValueError(f"unknown shape {kind!r}; choose one of {', '.join(KINDS_3D)}")
    half = radius * rng.uniform(0.75, 1.1, 3) * (0.81 if kind == "box" else 1.0)
    cells = tuple(max(2, round(2 * h / spacing)) for h in half)
    points, elements = grid((cells[0], cells[1], cells[2]))
    if kind == "ellipsoid":  # cube to ball, less pointed at the cube's edges than the exact ball
        longest, length = np.abs(points).max(1, keepdims=True), np.linalg.norm(points, axis=1, keepdims=True)
        ball = points * np.divide(longest, length, out=np.ones_like(length), where=length > 0)
        points = 0.8 * ball + 0.2 * points
    return make_mesh(points * half, elements)
