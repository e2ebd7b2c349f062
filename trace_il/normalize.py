"""Standardisation by stored statistics: computed once on the train split, kept in the checkpoint and the export."""

import torch
from torch import Tensor, nn

STD_FLOOR = 1e-6


class Standardizer(nn.Module):
    """(x - mean) / std, with channels that are constant in the train split masked to zero.

    Statistics are buffers, so they travel with every checkpoint and export. Before `fit` it is the identity.
    `limit` clamps the result to [-limit, limit] standard deviations (0: no clamp): online, a quantity may
    leave the range that training has seen.
    """

    mean: Tensor
    std: Tensor
    mask: Tensor

    def __init__(self, *shape: int, limit: float = 0.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("mask", torch.ones(shape))  # 0 for constant channels

    @torch.jit.unused
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Store statistics, each of the standardiser's shape. Channels with std <= 1e-6 are constant.

        Raises:
            ValueError: a statistic is not finite or has another shape.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != self.mean.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {tuple(self.mean.shape)}")
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} is not finite; check the dataset for NaN or infinite values")
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(STD_FLOOR))
        self.mask.copy_((std > STD_FLOOR).to(std.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(..., *shape) in physical units -> (..., *shape) standardised."""
        out = (x - self.mean) / self.std * self.mask
        if self.limit > 0:
            out = out.clamp(-self.limit, self.limit)
        return out

    def inverse(self, x: Tensor) -> Tensor:
        """(..., *shape) standardised -> physical units; constant channels give their constant."""
        return x * self.mask * self.std + self.mean
