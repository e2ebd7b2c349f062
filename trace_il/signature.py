"""Streamed and prefix path signatures in torch.

For a piecewise-linear path x_1..x_t in R^d the signature is the sequence of iterated integrals

    S^n_t  in  (R^d)^(x n),   n = 1..p          (level 0, the constant 1, is dropped)

One more segment with increment x extends it by Chen's identity, S_{t+1} = S_t (x) exp(x). In
Horner form level n is

    S^n' = S^n + (...((x/n + S^1) (x) x/(n-1) + S^2) (x) ... + S^{n-1}) (x) x

which needs the levels below n only. `update` applies it once (online, memory constant in t);
`prefix_signature` can replace the loop over time by one cumulative sum a level, because the increment of
level n at step t depends only on the levels below n at step t-1.

Layout: all levels are flattened row-major and concatenated, d + d^2 + ... + d^p numbers, the order of
iisignature and pysiglib. Everything here is TorchScript-compatible and works on any device and on
float32 and float64.

Source: Lyons 2014, "Rough paths, signatures and the modelling of functions on streams"; TRACE
(arXiv 2606.14551), section "streamed path signatures".
"""

import torch
from torch import Tensor


def signature_dim(channels: int, depth: int) -> int:
    """Number of signature coordinates, d + d^2 + ... + d^depth.

    Raises:
        ValueError: channels < 1 or depth outside 1..4.
    """
    if channels < 1:
        raise ValueError(f"a path needs at least 1 channel, got channels={channels}")
    if depth < 1 or depth > 4:
        raise ValueError(f"signature depth must be in 1..4, got {depth}")
    total, size = 0, 1
    for _ in range(depth):
        size *= channels
        total += size
    return total


def split_levels(signature: Tensor, channels: int, depth: int) -> list[Tensor]:
    """Views of the flat signature (..., dim), level by level: (..., d), (..., d^2), ..."""
    levels: list[Tensor] = []
    start, size = 0, 1
    for _ in range(depth):
        size *= channels
        levels.append(signature.narrow(-1, start, size))
        start += size
    return levels


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Tensor product over the last axis, flattened: (..., a), (..., b) -> (..., a*b)."""
    return (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)


def _add_outer(to: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """to + scale left (x) right, in one operation."""
    matrix = to.unflatten(-1, [-1, right.shape[-1]])
    return torch.addcmul(matrix, left.unsqueeze(-1), right.unsqueeze(-2), value=scale).flatten(-2)


def _left_factor(below: list[Tensor], x: Tensor, level: int) -> Tensor:
    """What is multiplied by x to give the increment of a level >= 2 (Horner form); `below` are levels 1..level-1."""
    left = torch.add(below[0], x, alpha=1 / level)
    for n in range(2, level):
        left = _add_outer(below[n - 1], left, x, 1 / (level + 1 - n))
    return left


def _level_increment(below: list[Tensor], x: Tensor, level: int) -> Tensor:
    """Increment of one level by Chen's identity; `below` are levels 1..level-1."""
    return x if level == 1 else _outer(_left_factor(below, x, level), x)


def update(signature: Tensor, increment: Tensor, depth: int) -> Tensor:
    """Signature after one more linear segment (Chen's identity), O(d^depth).

    Args:
        signature: (..., signature_dim(d, depth)), zeros for a path of one point.
        increment: (..., d), the step x_{t+1} - x_t of the path.
        depth: truncation level p.
    Returns:
        (..., signature_dim(d, depth)).
    """
    channels = increment.shape[-1]
    if signature.shape[-1] != signature_dim(channels, depth):
        raise ValueError(
            f"a depth-{depth} signature of a {channels}-channel path has {signature_dim(channels, depth)} "
            f"coordinates, got {signature.shape[-1]}"
        )
    levels = split_levels(signature, channels, depth)
    new = [levels[0] + increment]
    for level in range(2, depth + 1):
        new.append(_add_outer(levels[level - 1], _left_factor(levels, increment, level), increment, 1.0))
    return torch.cat(new, dim=-1)


def prefix_signature(path: Tensor, depth: int, every: int = 1, large: int = 2**17) -> Tensor:
    """Signatures of prefixes of a path: without a loop over time, unless a processor's cache is what counts.

    The highest level has most of the numbers. With `every` > 1 its increments over a stretch of steps are one matrix
    product, so that it is never held for the steps between. For many paths on a CPU `update` step by step is faster:
    what the next step needs is still in the cache, while a cumulative sum goes through memory several times.

    Args:
        path: (..., T, d), T >= 1 points.
        depth: truncation level p, 1..4.
        every: of the points 0, every, 2 every, ...
        large: numbers in the signatures of one point of all paths from which a CPU goes step by step.
    Returns:
        (..., ceil(T / every), signature_dim(d, depth)); the first entry, of one point, is zero.
    """
    channels = path.shape[-1]
    dim = signature_dim(channels, depth)
    stretches = (path.shape[-2] - 1) // every
    if stretches < 1:
        return path.new_zeros(path.shape[:-2] + (1, dim))
    steps = path.diff(dim=-2).narrow(-2, 0, stretches * every)
    if path.device.type == "cpu" and path[..., 0, 0].numel() * dim >= large:
        rows = path.new_zeros([stretches + 1] + list(path.shape[:-2]) + [dim])
        now = torch.zeros_like(rows[0])
        for index, step in enumerate(steps.movedim(-2, 0).contiguous()):
            now = update(now, step, depth)
            if (index + 1) % every == 0:
                rows[(index + 1) // every] = now
        return rows.movedim(0, -2)
    out = path.new_zeros(path.shape[:-2] + (stretches + 1, dim))
    below: list[Tensor] = []  # levels at the beginning of each step
    start = 0
    for level in range(1, depth + 1):
        if level == depth and level > 1 and every > 1:
            left = _left_factor(below, steps, level).unflatten(-2, [stretches, every])
            after = (left.transpose(-1, -2) @ steps.unflatten(-2, [stretches, every])).flatten(-2).cumsum(dim=-2)
        else:
            after = _level_increment(below, steps, level).cumsum(dim=-2)
            if level < depth:
                zero = torch.zeros_like(after.narrow(-2, 0, 1))
                below.append(torch.cat([zero, after.narrow(-2, 0, after.shape[-2] - 1)], dim=-2))
            after = after[..., every - 1 :: every, :]
        out.narrow(-2, 1, stretches).narrow(-1, start, after.shape[-1]).copy_(after)
        start += after.shape[-1]
    return out


def signature(path: Tensor, depth: int) -> Tensor:
    """Signature of a whole path (..., T, d) -> (..., signature_dim(d, depth))."""
    out = path.new_zeros(path.shape[:-2] + (signature_dim(path.shape[-1], depth),))
    for step in path.diff(dim=-2).unbind(-2):
        out = update(out, step, depth)
    return out


def lyndon_positions(channels: int, depth: int) -> list[int]:
    """Flat positions of the Lyndon words in a signature: strictly smaller than all their rotations.

    The coefficients of the log-signature at these words determine it (Reizenstein and Graham 2020, section 2): for 17
    channels they are 17, 153, 1785 and 22593 numbers at depths 1 to 4. Duval's algorithm.
    """
    starts = [0]
    for level in range(1, depth):
        starts.append(starts[-1] + channels**level)
    positions: list[int] = []
    word = [-1]
    while word:
        word[-1] += 1
        place = 0
        for letter in word:
            place = place * channels + letter
        positions.append(starts[len(word) - 1] + place)
        period = len(word)
        while len(word) < depth:
            word.append(word[len(word) - period])
        while word and word[-1] == channels - 1:
            word.pop()
    return sorted(positions)


def log_signature(signature: Tensor, channels: int, depth: int) -> Tensor:
    """Tensor logarithm of signatures, log(1 + x) = x - x (x) x / 2 + x (x) x (x) x / 3 - ..., truncated.

    Args:
        signature: (..., signature_dim(channels, depth)).
    Returns:
        The same shape: the log-signature in the expanded (tensor) basis. `lyndon_positions` selects a minimal part.
    """
    levels = split_levels(signature, channels, depth)
    power = levels
    total = levels
    for n in range(2, depth + 1):
        next_power: list[Tensor] = []
        for level in range(depth):
            term = torch.zeros_like(levels[level])
            for first in range(level):
                term = term + _outer(power[first], levels[level - 1 - first])
            next_power.append(term)
        power = next_power
        sign = -1.0 if n % 2 == 0 else 1.0
        next_total: list[Tensor] = []
        for level in range(depth):
            next_total.append(total[level] + sign / n * power[level])
        total = next_total
    return torch.cat(total, dim=-1)
