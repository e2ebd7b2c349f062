"""Diffusion policy: the chunk is denoised from noise, given the present and the past (Chi et al. 2023).

    condition c = pool(camera and state tokens) + time(k) + adapter(readout)               DiffusionAdapter
    f(sqrt(abar_k) x_k, c)   also attends to the camera and state tokens: where a thing is does not fit into one vector
    training    x_k = sqrt(abar_k) x_0 + sqrt(1 - abar_k) noise,  loss = masked (f - x_0)^2
    sampling    DDIM without noise (Song et al. 2021, eq. 12), `sampling_steps` of the `diffusion_steps` levels

f is a transformer over groups of `actions_per_token` consecutive actions whose layers are modulated by c
(adaLN-Zero, Peebles and Xie 2023). It predicts the clean chunk (Ramesh et al. 2022, section 2.2): with few steps
of training that beats predicting the noise, and the loss is on the same scale as regression's.

f is given sqrt(abar_k) x_k, the best linear guess of a standardised clean chunk from the noisy one, and so the less the
noisier: what is mostly noise need not be learned away before pictures count, and how far a chunk gives away which arm
will move falls with the noise. (Inputs of unit variance, as in Karras et al. 2022, keep the noise.)

Sampling starts from one stored draw of noise, scaled by a temperature: the policy is a function of its inputs, so an
exported file equals the eager policy, a rollout can be repeated, and replanning at each tick stays in one mode where
there are several. At temperature 1 every chunk carries the offset of that one draw, always the same, and grasps miss;
at 0, the default, sampling starts from the mean of the noise and ends where the flow of the middle leads.
"""

import math

import torch
from torch import Tensor, nn

from ..memory.base import Readout
from .adapters import DiffusionAdapter
from .base import Policy, PolicyLoss


def cosine_schedule(steps: int) -> Tensor:
    """abar_1 .. abar_steps, (steps,): cosine schedule of Nichol and Dhariwal (2021), eq. 17, betas at most 0.999."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    level = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
    betas = (1 - level[1:] / level[:-1]).clamp_max(0.999)
    return (1 - betas).cumprod(0).float()


def sinusoidal(position: Tensor, width: int) -> Tensor:
    """Positions (B,) -> (B, width), Vaswani et al. (2017)."""
    half = width // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=position.device) / max(half - 1, 1))
    angle = position.unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ModulatedBlock(nn.Module):
    """Self-attention, attention to the present and a two-layer map.

    The first and the last are scaled, shifted and gated by the condition, and start as the identity.
    """

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_query = nn.Linear(width, width)
        self.cross_key_value = nn.Linear(width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, present: Tensor) -> Tensor:
        """Tokens of the chunk (B, T, W), condition (B, W), tokens of the present (B, S, W) -> tokens of the chunk."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        hidden = self.norm(x) * (1 + scale1) + shift1
        query, key, value = self.qkv(hidden).unflatten(-1, [3, self.heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + gate1 * self.out(attended.transpose(1, 2).flatten(2))
        query = self.cross_query(self.cross_norm(x)).unflatten(-1, [self.heads, -1]).transpose(1, 2)
        key, value = self.cross_key_value(present).unflatten(-1, [2, self.heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.cross_out(attended.transpose(1, 2).flatten(2))
        return x + gate2 * self.feedforward(self.norm(x) * (1 + scale2) + shift2)


class DiffusionPolicy(Policy):
    """Denoising transformer over action chunks.

    Args:
        action_dim, chunk: A and H.
        slots, slot_width, address_dim: shape of the readout.
        width, heads, layers, feedforward: of the transformer.
        actions_per_token: consecutive actions in one token; must divide `chunk`.
        diffusion_steps: noise levels in training.
        sampling_steps: of them, used at test time; at most `diffusion_steps`.
        temperature: of the noise that sampling begins with, at least 0.
    Raises:
        ValueError: a size does not fit another.
    """

    signal: Tensor  # abar_0 = 1, abar_1, ...
    start: Tensor  # the noise that sampling begins with, (H, A)
    times: Tensor  # noise levels of sampling, descending, then 0

    def __init__(
        self,
        action_dim: int,
        slots: int,
        slot_width: int,
        address_dim: int,
        chunk: int = 40,
        width: int = 128,
        heads: int = 4,
        layers: int = 3,
        feedforward: int = 256,
        actions_per_token: int = 5,
        diffusion_steps: int = 100,
        sampling_steps: int = 8,
        temperature: float = 0.0,
    ) -> None:
        super().__init__()
        if chunk % actions_per_token:
            raise ValueError(f"chunk must be a multiple of actions_per_token, got {chunk} and {actions_per_token}")
        if not 1 <= sampling_steps <= diffusion_steps:
            raise ValueError(f"sampling_steps must be in 1..{diffusion_steps} (diffusion_steps), got {sampling_steps}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if width % 2 or width % heads:
            raise ValueError(f"width must be even and a multiple of heads, got {width} and {heads}")
        self.chunk, self.action_dim, self.width = chunk, action_dim, width
        self.actions_per_token, self.diffusion_steps = actions_per_token, diffusion_steps
        self.adapter = DiffusionAdapter(slot_width, address_dim, width)
        self.present = nn.Parameter(0.02 * torch.randn(1, 1, width))  # its output pools the tokens of the present
        self.encoder = nn.TransformerEncoderLayer(
            width, heads, feedforward, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.time = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.embed = nn.Linear(actions_per_token * action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(chunk // actions_per_token, width))
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads, feedforward) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, actions_per_token * action_dim)
        signal = torch.cat([torch.ones(1), cosine_schedule(diffusion_steps)])
        self.register_buffer("signal", signal)  # in checkpoints: a network knows the levels that it was trained on
        self.register_buffer("start", temperature * torch.randn(chunk, action_dim))
        times = torch.linspace(diffusion_steps, 0, sampling_steps + 1).round().long()
        self.register_buffer("times", times, persistent=False)

    def _present(self, features: Tensor) -> Tensor:
        """Tokens of the present (B, S, W) -> (B, 1 + S, W), the first of which pools the others."""
        query = self.present.expand(features.shape[0], -1, -1)
        return self.encoder(torch.cat([query, features], dim=1))

    def _denoise(self, noisy: Tensor, time: Tensor, present: Tensor, past: Tensor) -> Tensor:
        """Clean chunk (B, H, A).

        Args:
            noisy: chunk (B, H, A).
            time: noise level (B,), 1 to `diffusion_steps`.
            present: (B, 1 + S, W).
            past: what the adapter makes of the memory, (B, W).
        """
        condition = nn.functional.gelu(present[:, 0] + past + self.time(sinusoidal(time, self.width)))
        guess = self.signal[time].sqrt().view(-1, 1, 1) * noisy
        x = self.embed(guess.reshape(noisy.shape[0], self.position.shape[0], -1)) + self.position
        for block in self.blocks:
            x = block(x, condition, present)
        return self.head(self.norm(x)).view(noisy.shape[0], self.chunk, self.action_dim)

    def act(self, features: Tensor, readout: Readout) -> Tensor:
        present, past = self._present(features), self.adapter(readout)
        x = self.start.unsqueeze(0).expand(features.shape[0], -1, -1)
        # All at once: a tensor of one number as an index would wait for a GPU at every step.
        signal = self.signal[self.times].sqrt()
        spread = (1 - self.signal[self.times]).sqrt()
        for index in range(self.times.shape[0] - 1):
            clean = self._denoise(x, self.times[index].expand(features.shape[0]), present, past)
            noise = (x - signal[index] * clean) / spread[index]
            x = signal[index + 1] * clean + spread[index + 1] * noise
        return x

    @torch.jit.unused
    def loss(self, features: Tensor, readouts: list[Readout], target: Tensor, is_pad: Tensor) -> PolicyLoss:
        present = self._present(features)
        known = target.masked_fill(is_pad.unsqueeze(-1), 0.0)
        time = torch.randint(1, self.diffusion_steps + 1, (len(target),), device=target.device)
        level = self.signal[time].view(-1, 1, 1)
        noisy = level.sqrt() * known + (1 - level).sqrt() * torch.randn_like(known)
        chunks = [self._denoise(noisy, time, present, self.adapter(readout)) for readout in readouts]
        errors = [(chunk - target).square().mean(-1) for chunk in chunks]
        sample = chunks[0].detach() if self.training else self.act(features, readouts[0])
        return PolicyLoss(errors, {}, sample)
