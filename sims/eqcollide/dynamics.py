"""Dynamics: forces between control points, and their integration in time (the neural ODE).

Inside a body every pair of control points is a spring with learned stiffness and damping,

    F_ij = -[ k(m_ij) (|d| - d0) + c(m_ij) d.(v_i - v_j)/|d| ] d/|d|,       d = p_i - p_j,  d0 its length at rest,

with k, c > 0 and m_ij = (strain, its rate, d0, stiffness of the material, symmetric features of both contexts). A body
that moves rigidly feels no force. Momentum is conserved exactly, by contact too; angular momentum by the springs, but
not quite by contact, whose forces do not act along the line between their samples.

Between bodies forces act where surfaces meet, not between the sparse control points: those are far apart still when
the surfaces touch, and a contact between them comes early. For surface samples a, b of two bodies, no farther apart
than r,

    f_ab = A_a A_b / r^(dim-1) w(|x_a - x_b|) P(g, |x_a - x_b|, g', |u_a - u_b|, |n_b - n_a|) n,      f_ba = -f_ab,

with n along n_b - n_a (outward normals), g = n.(x_a - x_b) the gap, w a cosine that ends smoothly at r, and a learned
pressure P > 0. A wall, and a pusher, whose surface is known exactly, pushes a sample alike along its normal. The field
hands f to the control points as G^T f.

With the accelerations a = F / m + gravity and the drag known, time goes in `substeps` of a frame by semi-implicit
Euler; or the classical Runge-Kutta method, or the adaptive one of Dormand and Prince, of torchdiffeq solve
dp/dt = v, dv/dt = a - drag v.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from .encoder import Statics

STIFFNESS, DAMPING, PRESSURE = 1000.0, 1.5, 3000.0  # scales of what is learned: 1/s^2, 1/s, Pa
INTEGRATORS = ("euler", "rk4", "dopri5")
TOLERANCE = 1e-5  # relative, and absolute in m and m/s, of dopri5
LENGTH = 0.08  # m, unit of sizes
MARGIN = 0.012  # m by which samples may come nearer in a frame, for the list of pairs that is made once a frame


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def unit(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Direction and length (..., 1); both are zero with finite gradients where the vector is zero."""
    length = (vector.square().sum(-1, keepdim=True) + 1e-18).sqrt()
    return vector / length, length


def window(distance: Tensor) -> Tensor:
    """1 at zero and below, 0 from one on, smooth between."""
    return 0.5 * (1 + torch.cos(math.pi * distance.clamp(0.0, 1.0)))


class Pairs(NamedTuple):
    """Surface samples that may touch within the frame: flat indices into (S, O Q) samples."""

    first: Tensor
    second: Tensor


class Prepared(NamedTuple):
    """What the springs need of a batch of scenes, computed once."""

    length: Tensor  # (S, O, K, K), m, 1 on the diagonal
    features: Tensor  # (S, O, K, K, F), those that do not change
    scale: Tensor  # (S, O, K, K), reduced mass times stiffness of the material; 0 on the diagonal


class Dynamics(nn.Module):
    """Accelerations of control points and their integration.

    Args:
        dim: 2 or 3.
        width, context: of the networks and of the context of a control point.
        radius: r, m.
        substeps: of a frame.
        collide: False leaves out the forces between soft bodies (ablation), not those of walls and pushers.
        integrator: "euler" (semi-implicit), "rk4", or "dopri5", which chooses steps that all scenes of a batch share.
    Raises:
        ValueError: an unknown integrator, or no substeps.
    """

    vectors = (0, 0, 0)  # that the networks of springs, of touch and of rigid surfaces are shown beside invariants

    def __init__(
        self, dim: int, width: int = 48, context: int = 16, radius: float = 0.0, substeps: int = 4,
        collide: bool = True, integrator: str = "euler",
    ) -> None:  # fmt: skip
        super().__init__()
        if integrator not in INTEGRATORS or substeps < 1:
            raise ValueError(
                f"integrator must be one of {INTEGRATORS} and substeps at least 1, got {integrator!r} and {substeps}"
            )
        self.dim, self.substeps, self.collide, self.integrator = dim, substeps, collide, integrator
        self.radius = radius or {2: 0.02, 3: 0.03}[dim]
        self.context = mlp(2, 32, context)
        shown = [number * dim for number in self.vectors]
        self.spring = mlp(4 + 2 * context + shown[0], width, 2)
        self.touch = mlp(5 + shown[1], 32, 1)
        self.bounce = mlp(3 + shown[2], 32, 1)
        with torch.no_grad():
            for network in (self.spring, self.touch, self.bounce):
                list(network.parameters())[-2].mul_(0.1)  # weights of the last layer

    def prepare(self, scenes: Statics) -> Prepared:
        offset = scenes.rest.unsqueeze(-2) - scenes.rest.unsqueeze(-3)
        length = offset.norm(dim=-1)
        count = length.shape[-1]
        size = (length.sum((-1, -2)) / (count * (count - 1))).clamp_min(1e-3)[..., None, None]
        relative = length / size
        context = self.context(torch.stack([relative, (size / LENGTH).expand_as(length)], dim=-1)).mean(-2)
        one, two = context.unsqueeze(-2), context.unsqueeze(-3)
        young = scenes.young.log()[..., None, None].expand_as(length)
        features = torch.cat([torch.stack([relative, young], -1), one + two, (one - two).abs()], dim=-1)
        itself = torch.eye(count, dtype=torch.bool, device=length.device)
        # The reduced mass of a pair, so that light points do not oscillate faster than the time steps can follow.
        one, two = scenes.mass.unsqueeze(-1), scenes.mass.unsqueeze(-2)
        mass = 2 * one * two / (one + two) * (scenes.young * scenes.present)[..., None, None]
        return Prepared(length.masked_fill(itself, 1.0).clamp_min(1e-3), features, mass.masked_fill(itself, 0.0))

    def ask(self, network: nn.Module, seen: Tensor, vectors: Sequence[Tensor], symmetric: bool = True) -> Tensor:
        """What a network answers to invariants (..., F). It is not shown the vectors that they were made of.

        Args:
            vectors: each (..., dim).
            symmetric: exchanging the two that meet changes the signs of the vectors, and must not change the answer.
        """
        return network(seen)

    def elastic(self, p: Tensor, v: Tensor, prepared: Prepared) -> Tensor:
        """Forces (S, O, K, dim) of the springs."""
        along, distance = unit(p.unsqueeze(-2) - p.unsqueeze(-3))
        relative = v.unsqueeze(-2) - v.unsqueeze(-3)
        rate = (relative * along).sum(-1)
        stretch = distance.squeeze(-1) - prepared.length
        changing = torch.stack([5 * stretch / prepared.length, rate], dim=-1)
        seen = torch.cat([changing, prepared.features], dim=-1)
        raw = nn.functional.softplus(self.ask(self.spring, seen, (along, relative)))
        force = prepared.scale * (STIFFNESS * raw[..., 0] * stretch + DAMPING * raw[..., 1] * rate)
        return -(force.unsqueeze(-1) * along).sum(-2)

    def surface(self, p: Tensor, v: Tensor, scenes: Statics) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, velocities and outward normals (S, O Q, dim) of the surface samples."""
        x, u = (scenes.samples @ p).flatten(1, 2), (scenes.samples @ v).flatten(1, 2)
        tangents = scenes.tangents.flatten(2, 3) @ p
        tangents = tangents.unflatten(2, scenes.tangents.shape[2:4]).flatten(1, 2)  # (S, O Q, dim - 1, dim)
        if self.dim == 2:
            normal = torch.stack([tangents[..., 0, 1], -tangents[..., 0, 0]], dim=-1)
        else:
            normal = torch.linalg.cross(tangents[..., 0, :], tangents[..., 1, :])
        return x, u, unit(normal)[0]

    def pressure(self, d: Tensor, du: Tensor, opposed: Tensor) -> Tensor:
        """Pressure times direction (N, dim) that pairs of samples exert on the first, from the differences of their
        positions and velocities (first less second) and of their normals (second less first)."""
        n, opposition = unit(opposed)
        distance = unit(d)[1]
        gap = (d * n).sum(-1, keepdim=True)
        closing = (du * n).sum(-1, keepdim=True)
        near = [gap / self.radius, distance / self.radius, closing, unit(du)[1], opposition]
        raw = nn.functional.softplus(self.ask(self.touch, torch.cat(near, dim=-1), (d / self.radius, du, opposed)))
        return PRESSURE * raw * window(distance / self.radius) * n

    def rigid(self, gap: Tensor, u: Tensor, normal: Tensor, n: Tensor) -> Tensor:
        """Pressures (S, samples, dim) of W rigid surfaces on the samples.

        Args:
            gap: to the surfaces, (S, samples, W).
            u: velocities relative to them, normal: of the samples, n: of the surfaces; (S, samples, W, dim) each.
        """
        seen = torch.stack([gap / self.radius, (u * n).sum(-1), (normal * n).sum(-1)], dim=-1)
        raw = nn.functional.softplus(self.ask(self.bounce, seen, (u, normal, n), symmetric=False).squeeze(-1))
        return ((window(gap / self.radius) * PRESSURE * raw).unsqueeze(-1) * n).sum(2)

    @torch.no_grad()
    def near(self, p: Tensor, scenes: Statics) -> Pairs:
        """Samples of different bodies that can come within `radius` in a frame."""
        x = scenes.samples @ p  # (S, O, Q, dim)
        bodies, samples = x.shape[1:3]
        real = scenes.areas > 0
        reach = self.radius + MARGIN
        centre = p.mean(2)
        extent = ((x - centre.unsqueeze(2)).norm(dim=-1) * real).amax(-1)
        apart = (centre.unsqueeze(1) - centre.unsqueeze(2)).norm(dim=-1)
        both = scenes.present.unsqueeze(1) & scenes.present.unsqueeze(2)
        close = (apart < extent.unsqueeze(1) + extent.unsqueeze(2) + reach) & both
        s, one, two = torch.triu(close & self.collide, diagonal=1).nonzero().unbind(-1)
        distance = torch.cdist(x[s, one], x[s, two], compute_mode="donot_use_mm_for_euclid_dist")
        hit = (distance < reach) & real[s, one].unsqueeze(-1) & real[s, two].unsqueeze(-2)
        m, a, b = hit.nonzero().unbind(-1)
        return Pairs((s[m] * bodies + one[m]) * samples + a, (s[m] * bodies + two[m]) * samples + b)

    def contact(self, p: Tensor, v: Tensor, scenes: Statics, pushers: tuple[Tensor, Tensor], pairs: Pairs) -> Tensor:
        """Forces (S, O, K, dim) between bodies, of pushers and of walls."""
        x, u, normal = self.surface(p, v, scenes)
        area, force = scenes.areas.flatten(1), torch.zeros_like(x)
        if len(pairs.first):
            i, j = pairs
            flat = [part.flatten(0, 1) for part in (x, u, normal)]
            d, du, facing = (part[i] - part[j] for part in flat)
            areas = (area.flatten()[i] * area.flatten()[j] / self.radius ** (self.dim - 1)).unsqueeze(-1)
            pushed = areas * scenes.depth * self.pressure(d, du, -facing)
            force = force.flatten(0, 1).index_add(0, i, pushed).index_add(0, j, -pushed).view_as(x)
        surfaces = []  # of each kind gap (S, samples, W), velocity, normal (S, 1 or samples, W, dim), presence (S, W)
        if scenes.walls.shape[1]:
            n, offset = scenes.walls[..., :-1], scenes.walls[..., -1]
            still = torch.zeros_like(n).unsqueeze(1)
            surfaces.append((x @ n.mT - offset.unsqueeze(1), still, n.unsqueeze(1), scenes.wall_present))
        if scenes.pusher_radii.shape[1]:
            centre, speed = (scenes.pusher_centres @ part for part in pushers)
            n, distance = unit(x.unsqueeze(2) - centre.unsqueeze(1))
            gap = distance.squeeze(-1) - scenes.pusher_radii.unsqueeze(1)
            surfaces.append((gap, speed.unsqueeze(1), n, scenes.pusher_radii > 0))
        for gap, moving, n, present in surfaces:
            shape = (*gap.shape, self.dim)
            far = (~present).unsqueeze(1) * 2 * self.radius  # what is not there is out of reach
            own = (u.unsqueeze(2) - moving).expand(shape), normal.unsqueeze(2).expand(shape), n.expand(shape)
            force = force + scenes.depth * area.unsqueeze(-1) * self.rigid(gap + far, *own)
        return scenes.samples.mT @ force.unflatten(1, scenes.samples.shape[1:3])

    def forward(
        self, p: Tensor, v: Tensor, scenes: Statics, prepared: Prepared, pushers: tuple[Tensor, Tensor], dt: float
    ) -> tuple[Tensor, Tensor]:
        """One frame of dt s: positions and velocities (S, O, K, dim) of the control points, `dt` later.

        Args:
            pushers: positions and velocities (S, R, dim) of the points of pushers at the beginning of the frame.
        """
        place, speed = pushers
        pairs = self.near(p, scenes)
        h = dt / self.substeps
        gravity = scenes.gravity[:, None, None]
        there = scenes.present[..., None, None]

        def acceleration(time: float | Tensor, p: Tensor, v: Tensor) -> Tensor:
            force = self.elastic(p, v, prepared)
            force = force + self.contact(p, v, scenes, (place + time * speed, speed), pairs)
            return (force / scenes.mass.unsqueeze(-1) + gravity) * there

        if self.integrator == "euler":
            decay = torch.exp(-h * scenes.drag)[:, None, None, None]
            for step in range(self.substeps):
                v = decay * v * there + h * acceleration(step * h, p, v)
                p = p + h * v
            return p, v

        def rate(time: Tensor, now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            p, v = now
            return v, acceleration(time, p, v) - scenes.drag[:, None, None, None] * v

        options = {"step_size": h} if self.integrator == "rk4" else None
        ends = p.new_tensor([0.0, dt])
        p, v = odeint(
            rate, (p, v * there), ends, rtol=TOLERANCE, atol=TOLERANCE, method=self.integrator, options=options
        )
        return p[-1], v[-1]
