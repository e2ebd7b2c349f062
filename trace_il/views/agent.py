"""The agent: it compares what it sees with what it should see, and remembers its episode.

    f(image)        convolutional features, 8 x 8 places
    z(here, there)  comparison: how well each place matches the other's by displacement, and both features -> a vector
    w_t, c_t        where one view and its pitch alone say the goal is, and how sure they are
    belief_t        all w_s, s <= t, carried to the pose of view t and averaged with weights exp(c_s)
    h_t             causal transformer over z(view_t, goal) + pose since the start, and belief_t
    heads           moves and STOP, moves that are left, value (for reinforcement learning)
    P2V, V2P        score(z(start, end), g(moves)): whether moves lead from the first view to the second

Correlations are ordered by displacement, as in FlowNet (Dosovitskiy et al. 2015), so that "moved three places to the
left" looks alike wherever it is seen. The rest is small on purpose. Neither the last move nor the number of moves is
an input: in good examples both tell what comes next, and an agent that copies them cannot correct itself (de Haan et
al. 2019). What it has seen and where it has been tells the same and is true.

An agent knows its pose, so it knows which moves lead to where it has been, and which were blocked: these are closed.
It also knows how many moves it may make: when they are spent, it says STOP.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from envs.view_planning.lattice import MOVES

PLACES = 8  # of features along a side
SHIFTS = 2 * PLACES - 1  # displacements along a side
NO_MOVE = MOVES + 1  # behind the end of a path; MOVES is STOP
POSE_FEATURES = 6
SUREST = 1e3  # weight of a view
CLOSED, SPENT = 10.0, 1e4  # by how much the logit of a closed move falls, and of all moves when none is left


class PathBatch(NamedTuple):
    """B paths of at most T views. Images are given once, however often they are seen."""

    images: Tensor  # uint8 (U, S, S, 3)
    view: Tensor  # (B, T) index into images
    goal: Tensor  # (B,) index into images
    seen: Tensor  # (B, T) bool: False: the agent must do without this view
    pose: Tensor  # (B, T, POSE_FEATURES), since the start
    closed: Tensor  # (B, T, MOVES + 1) bool: moves that were blocked here, or lead to where the agent has been; last
    #   whether all moves are spent
    label: Tensor  # (B, T, MOVES + 1) distribution over what to do; zeros: not asked
    left: Tensor  # (B, T) moves that are left to the goal; -1: not asked
    where: Tensor  # (B, T, POSE_FEATURES), the goal as seen from each view; asked with `left`


class ChoiceBatch(NamedTuple):
    """B questions of C options: paths[b, c] leads from start[b] to end[b, c]."""

    images: Tensor  # uint8 (U, S, S, 3)
    start: Tensor  # (B,) index into images
    end: Tensor  # (B, C)
    paths: Tensor  # (B, C, L) moves, NO_MOVE behind the end
    answer: Tensor  # (B,)


class Thought(NamedTuple):
    """At every view of B paths."""

    hidden: Tensor  # (B, T, W)
    where: Tensor  # (B, T, POSE_FEATURES), the goal as seen from there, by that view alone
    belief: Tensor  # the same, by all views so far


def to_frame(what: Tensor, pose: Tensor) -> Tensor:
    """Poses (..., POSE_FEATURES) as seen from `pose` -> the same as seen from where `pose` is measured from."""
    return _turned(what, pose[..., 3], pose[..., 4]) + _shift(pose)


def from_frame(what: Tensor, pose: Tensor) -> Tensor:
    """The inverse of `to_frame`."""
    return _turned(what - _shift(pose), -pose[..., 3], pose[..., 4])


def _turned(what: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Poses turned to the left about the vertical axis."""
    ahead, left, up, own_sin, own_cos, pitch = what.unbind(-1)
    parts = (cos * ahead - sin * left, sin * ahead + cos * left, up)
    return torch.stack([*parts, cos * own_sin + sin * own_cos, cos * own_cos - sin * own_sin, pitch], dim=-1)


def _shift(pose: Tensor) -> Tensor:
    """What a pose adds to those as seen from it: its place."""
    return torch.cat([pose[..., :3], torch.zeros_like(pose[..., 3:])], dim=-1)


def _displacements() -> Tensor:
    """Which of the SHIFTS^2 displacements leads from each place (PLACES^2) to each other one, (here, there)."""
    row, column = torch.arange(PLACES).repeat_interleave(PLACES), torch.arange(PLACES).repeat(PLACES)
    down, right = row - row.unsqueeze(1), column - column.unsqueeze(1)
    return (down + PLACES - 1) * SHIFTS + right + PLACES - 1


class Comparison(nn.Module):
    """z(here, there): what two views have in common, and where.

    Args:
        channels: of the features.
        width: of z.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.displacement: Tensor
        self.sharpness = nn.Parameter(torch.tensor(1.5))  # logarithm of the factor of the correlations
        self.register_buffer("displacement", _displacements(), persistent=False)
        self.match = nn.Sequential(
            nn.Conv2d(SHIFTS**2 + 2 * channels, 64, 1), nn.SiLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * (PLACES // 2) ** 2, width), nn.SiLU(), nn.Linear(width, width),
        )  # fmt: skip

    def forward(self, here: Tensor, there: Tensor) -> Tensor:
        """Features (N, C, 8, 8) of two views -> (N, W)."""
        parts = (part.flatten(2) for part in (here, there))
        one, two = (nn.functional.normalize(part - part.mean(-1, keepdim=True), dim=1) for part in parts)
        same = self.sharpness.exp() * (one.transpose(1, 2) @ two)  # (N, places here, places there)
        # The first layer of `match` on correlations by displacement and features. Weights are put where displacements
        # lead, once, in place of the correlations of every pair.
        first = self.match[0]
        assert isinstance(first, nn.Conv2d)
        weight = first.weight
        moved = same.transpose(0, 1) @ weight[:, : SHIFTS**2, 0, 0].T[self.displacement]  # (places here, N, 64)
        kept = nn.functional.conv2d(torch.cat([here, there], dim=1), weight[:, SHIFTS**2 :], first.bias)
        return self.match[1:](kept + moved.permute(1, 2, 0).unflatten(-1, (PLACES, PLACES)))


class ViewAgent(nn.Module):
    """The agent.

    Args:
        image_size: side of the views, a multiple of 8, at least 32.
        channels: of the features.
        width, layers, heads: of the transformer.
        pose: False hides the pose (ablation).
        revisit: True leaves all moves open (ablation).
    Raises:
        ValueError: a size that does not fit.
    """

    def __init__(
        self, image_size: int = 64, channels: int = 48, width: int = 128, layers: int = 2, heads: int = 4,
        pose: bool = True, revisit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if image_size % 8 or image_size < 32:
            raise ValueError(f"image_size must be a multiple of 8, at least 32, got {image_size}")
        if channels % 8 or width % heads:
            raise ValueError(f"channels must be a multiple of 8 and width of heads, got {channels}, {width}, {heads}")
        self.image_size, self.width, self.uses_pose, self.revisits = image_size, width, pose, revisit
        stride = image_size // (2 * PLACES)
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 2 * stride, stride, stride // 2), nn.GroupNorm(8, 32), nn.SiLU(),
            nn.Conv2d(32, channels, 3, 2, 1), nn.GroupNorm(8, channels), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, 1, 1), nn.AdaptiveAvgPool2d(PLACES),
        )  # fmt: skip
        self.compare = Comparison(channels, width)
        self.unseen = nn.Parameter(torch.zeros(width))
        self.pose = nn.Linear(POSE_FEATURES, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.memory = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.where = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU(), nn.Linear(width, POSE_FEATURES + 1))
        self.plan = nn.Sequential(
            nn.Linear(width + POSE_FEATURES + 1, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU()
        )
        self.move = nn.Linear(width, MOVES + 1)
        self.moves_left = nn.Linear(width, 1)
        self.value = nn.Linear(width, 1)
        self.step = nn.Embedding(NO_MOVE + 1, width)
        self.path = nn.GRU(width, width, batch_first=True)
        self.pair = nn.ModuleDict({name: nn.Linear(width, width) for name in ("p2v", "v2p")})

    def shut(self, closed: Tensor, revisit: bool = False) -> Tensor:
        """What the agent leaves alone of (..., MOVES + 1), never STOP: all moves when they are spent, and closed ones.

        Args:
            revisit: not for being closed.
        """
        spent = closed[..., MOVES:].expand_as(closed)
        known = spent if revisit or self.revisits or not self.uses_pose else spent | closed
        return known & (torch.arange(MOVES + 1, device=closed.device) < MOVES)

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (U, S, S, 3) -> features (U, C, 8, 8)."""
        pixels = images.permute(0, 3, 1, 2).to(self.unseen.dtype) / 127.5 - 1
        return self.features(pixels.contiguous(memory_format=torch.channels_last))

    def remember(self, z: Tensor, pose: Tensor, seen: Tensor) -> Thought:
        """Comparisons (B, T, W), poses (B, T, POSE_FEATURES), which views were seen (B, T) -> what to think of it."""
        steps = z.shape[1]
        token = z + self.pose(pose) if self.uses_pose else z
        future = torch.ones(steps, steps, dtype=torch.bool, device=z.device).triu(1)
        own_pitch = pose[..., -1:] * self.uses_pose
        where, sure = self.where(torch.cat([z, own_pitch], dim=-1)).split((POSE_FEATURES, 1), dim=-1)
        belief, weight = where, sure.exp()
        if self.uses_pose:
            weight = seen.unsqueeze(-1) * weight.clamp_max(SUREST)
            total = weight.cumsum(1).clamp_min(1e-6)
            belief, weight = from_frame((weight * to_frame(where, pose)).cumsum(1) / total, pose), total
        hidden = self.plan(torch.cat([self.memory(token, mask=future), belief, weight.log()], dim=-1))
        return Thought(hidden, where, belief)

    def decide(self, hidden: Tensor, closed: Tensor) -> Tensor:
        """Logits (..., MOVES + 1) of what to do, for h (..., W). Without its pose it does not know what is closed."""
        return self.move(hidden) - CLOSED * self.shut(closed) - SPENT * self.shut(closed, revisit=True)

    def forward(self, batch: PathBatch) -> Thought:
        """What the agent thinks at every view of the paths."""
        features = self.encode(batch.images)
        goal = batch.goal.unsqueeze(1).expand_as(batch.view)
        z = self.unseen.expand(*batch.view.shape, -1).clone()
        at = batch.seen.nonzero(as_tuple=True)  # a GPU is waited for here, and nowhere else
        z[at] = self.compare(features[batch.view[at]], features[goal[at]]).to(z.dtype)
        return self.remember(z, batch.pose, batch.seen)

    def scores(self, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        """How well path p leads to end e, of P2V and of V2P, each (B, ends C, paths C)."""
        features = self.encode(batch.images)
        count, choices = batch.end.shape
        start = features[batch.start].unsqueeze(1).expand(-1, choices, -1, -1, -1).flatten(0, 1)
        z = self.compare(start, features[batch.end.flatten()]).unflatten(0, (count, choices))
        moves = self.step(batch.paths.flatten(0, 1))
        ends = (batch.paths.flatten(0, 1) != NO_MOVE).sum(-1).clamp_min(1) - 1
        with torch.autocast(
            moves.device.type, enabled=False
        ):  # cuDNN's would compute in float16, whatever is asked for
            paths = self.path(moves.float())[0]
        g = paths[torch.arange(count * choices, device=ends.device), ends].unflatten(0, (count, choices))
        p2v, v2p = (self.pair[name](z) @ g.transpose(1, 2) / self.width**0.5 for name in ("p2v", "v2p"))
        return p2v, v2p
