"""What every policy takes and gives. A policy sees the present (the encoder's tokens) and a `Readout`, nothing else.

Time alignment, for a chunk of H actions predicted at control step t (a tick) and `tick_every` = 3:

    step     t    t+1  t+2 | t+3  t+4  t+5 | ...  t+H-1
    target   a_t  .....................................     is_pad where the episode is over
    executed [chunk of t   ][chunk of t+3  ][ ...
"""

from typing import NamedTuple

from torch import Tensor, nn

from ..memory.base import Readout


class PolicyLoss(NamedTuple):
    """What a policy reports of one batch; masking and weighting of targets is the learner's."""

    errors: list[Tensor]  # for each readout, (B, H): error of each target, mean over A
    extra: dict[str, Tensor]  # further losses by name, scalars
    chunk: Tensor  # prediction with the first readout, (B, H, A), detached


class Policy(nn.Module):
    """Abstract policy. Targets and chunks are standardised actions, (B, H, A)."""

    chunk: int  # H

    def loss(self, features: Tensor, readouts: list[Readout], target: Tensor, is_pad: Tensor) -> "PolicyLoss":
        """Imitation error of each readout on the same present.

        Args:
            features: the present, (B, tokens, W) (ticks flattened into B).
            readouts: one or more readouts of the past; what does not depend on them is computed once.
            target: (B, H, A); is_pad: (B, H), True where there is no target.
        """
        raise NotImplementedError

    def act(self, features: Tensor, readout: Readout) -> Tensor:
        """Chunk (B, H, A) of standardised actions."""
        raise NotImplementedError
