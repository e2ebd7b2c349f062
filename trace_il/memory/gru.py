"""A GRU over the same evidence: the recurrent baseline with one slot."""

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout

KEEP = 3.5  # of the update gate at the beginning, as TRACE's gate: what a tick left fades over 30 ticks, not over two


class GRUMemory(Memory):
    """Gated recurrent unit (Cho et al. 2014) on [content, address]; its hidden state is the only slot.

    Its update gate begins nearly shut (Gers et al. 2000; Tallec and Ollivier 2018): with no bias a cue would have faded
    before the branch, and nothing of it would be left to learn from.
    """

    def __init__(self, content_dim: int, address_dim: int, width: int = 128) -> None:
        super().__init__(content_dim, address_dim, slots=1, width=width)
        self.gru = nn.GRU(content_dim + address_dim, width, batch_first=True)
        with torch.no_grad():
            self.gru.get_parameter("bias_hh_l0")[width : 2 * width] += KEEP

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        inputs = torch.cat([evidence.content, evidence.address], dim=-1).unsqueeze(1)
        output = self._run(inputs, state)
        return output, self._readout(output.squeeze(1), evidence)

    def scan(self, evidence: Evidence) -> Readout:
        inputs = torch.cat([evidence.content, evidence.address], dim=-1)
        return self._readout(self._run(inputs, self.init_state(evidence.content.float())), evidence)

    def _run(self, inputs: Tensor, state: Tensor) -> Tensor:
        """Hidden states (B, N, d) after each of the inputs (B, N, E + Q), from (B, 1, d)."""
        first = state.transpose(0, 1).contiguous()
        if torch.jit.is_scripting():
            return self.gru(inputs, first)[0]
        # Under mixed precision cuDNN's would compute in float16, whatever is asked for, and lose small gradients.
        with torch.autocast(inputs.device.type, enabled=False):
            return self.gru(inputs.to(first.dtype), first)[0]

    def _readout(self, hidden: Tensor, evidence: Evidence) -> Readout:
        ones = torch.ones_like(hidden[..., :1])
        return Readout(hidden.unsqueeze(-2), hidden, evidence.address, ones, ones, ones, hidden)
