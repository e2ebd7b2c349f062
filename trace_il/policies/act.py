"""ACT-style action chunking by regression (Zhao et al. 2023, "Learning fine-grained bimanual manipulation").

    tokens   = Encoder([latent, camera tokens, state token])
    chunk    = Decoder(queries; attends to [tokens, memory tokens])          memory tokens: RegressionAdapter
    loss     = masked e^2 + absolute_weight |e| + kl_weight KL(q(latent | state, target) || N(0, 1))
    e        = chunk - target

ACT takes the absolute value alone. But few targets depend on a cue that has left view, and they are the ones
with a large error: the absolute error's gradient is as large on all the others, which drown them. The square alone,
in turn, forgives the small errors that decide a grasp.

Smaller than the reference in two respects, for two CPU cores: a camera is one token, not a grid of
them; and a decoder query stands for `actions_per_query` consecutive actions. The CVAE is off unless
`latent_dim` > 0; at test time the latent is zero, as in ACT.
"""

import torch
from torch import Tensor, nn

from ..memory.base import Readout
from .adapters import RegressionAdapter
from .base import Policy, PolicyLoss


class ACTPolicy(Policy):
    """Action-chunking transformer.

    Args:
        action_dim, chunk: A and H.
        slots, slot_width, address_dim: shape of the readout.
        width, heads, encoder_layers, decoder_layers, feedforward, dropout: of the transformer.
        actions_per_query: consecutive actions decoded from one query; must divide `chunk`.
        latent_dim: width of the CVAE's latent; 0 turns the CVAE off.
        kl_weight: weight of the KL term.
        absolute_weight: weight of the absolute error beside the squared one.
    Raises:
        ValueError: chunk is not a multiple of actions_per_query.
    """

    def __init__(
        self,
        action_dim: int,
        slots: int,
        slot_width: int,
        address_dim: int,
        chunk: int = 40,
        width: int = 128,
        heads: int = 4,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        feedforward: int = 256,
        dropout: float = 0.0,
        actions_per_query: int = 10,
        latent_dim: int = 0,
        kl_weight: float = 10.0,
        absolute_weight: float = 0.3,
    ) -> None:
        super().__init__()
        if chunk % actions_per_query:
            raise ValueError(f"chunk must be a multiple of actions_per_query, got {chunk} and {actions_per_query}")
        self.chunk, self.action_dim = chunk, action_dim
        self.latent_dim, self.kl_weight, self.absolute_weight = latent_dim, kl_weight, absolute_weight
        self.adapter = RegressionAdapter(slots, slot_width, address_dim, width)
        encoder_layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(encoder_layer, encoder_layers, enable_nested_tensor=False)
        decoder_layer = nn.TransformerDecoderLayer(
            width, heads, feedforward, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(decoder_layer, decoder_layers, nn.LayerNorm(width))
        self.queries = nn.Parameter(0.02 * torch.randn(chunk // actions_per_query, width))
        self.head = nn.Linear(width, actions_per_query * action_dim)
        self.latent_token = nn.Linear(max(latent_dim, 1), width)
        self.posterior: nn.Module = nn.Identity()
        if latent_dim > 0:
            inputs = width + chunk * action_dim
            self.posterior = nn.Sequential(
                nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * latent_dim)
            )

    def _encode(self, features: Tensor, latent: Tensor) -> Tensor:
        return self.encoder(torch.cat([self.latent_token(latent).unsqueeze(1), features], dim=1))

    def _decode(self, encoded: Tensor, readout: Readout) -> Tensor:
        attention_memory = torch.cat([encoded, self.adapter(readout)], dim=1)
        queries = self.queries + self.adapter.query_shift(readout).unsqueeze(1)
        return self.head(self.decoder(queries, attention_memory)).view(encoded.shape[0], self.chunk, self.action_dim)

    def act(self, features: Tensor, readout: Readout) -> Tensor:
        latent = features.new_zeros(features.shape[0], max(self.latent_dim, 1))
        return self._decode(self._encode(features, latent), readout)

    @torch.jit.unused
    def loss(self, features: Tensor, readouts: list[Readout], target: Tensor, is_pad: Tensor) -> PolicyLoss:
        state = features[:, -1]
        latent = state.new_zeros(state.shape[0], max(self.latent_dim, 1))
        extra: dict[str, Tensor] = {}
        if self.latent_dim > 0:
            known = target.masked_fill(is_pad.unsqueeze(-1), 0.0).flatten(1)
            mean, log_var = self.posterior(torch.cat([state, known], dim=-1)).chunk(2, dim=-1)
            latent = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
            divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)
            has_target = (~is_pad).any(-1).to(divergence.dtype)
            extra["kl"] = self.kl_weight * (divergence * has_target).sum() / has_target.sum().clamp_min(1.0)
        encoded = self._encode(features, latent)
        chunks = [self._decode(encoded, readout) for readout in readouts]
        errors = [chunk - target for chunk in chunks]
        means = [(error.square() + self.absolute_weight * error.abs()).mean(-1) for error in errors]
        return PolicyLoss(means, extra, chunks[0].detach())
