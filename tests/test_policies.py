import numpy as np
import pytest
import torch

from trace_il.memory.base import Readout
from trace_il.policies import DiffusionPolicy
from trace_il.policies.diffusion import cosine_schedule

A, H, W, K, D, Q = 2, 6, 16, 3, 8, 5


def make_policy(**options) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(A, K, D, Q, chunk=H, width=W, feedforward=32, actions_per_token=3, **options)


def random_readout(batch: int) -> Readout:
    weights = torch.rand(batch, K).softmax(-1)
    summary = torch.randn(batch, D)
    return Readout(torch.randn(batch, K, D), summary, torch.randn(batch, Q), weights, weights, weights, summary)


def test_schedule_goes_from_signal_to_noise():
    signal = cosine_schedule(100)
    assert signal.shape == (100,) and (signal.diff() < 0).all() and 0.999 < signal[0] < 1 and signal[-1] < 1e-4


def test_pure_noise_changes_nothing_and_a_clean_chunk_does():
    policy, features = make_policy(), torch.randn(4, 1 + 3, W)
    one, two = torch.randn(2, 4, H, A)

    def said(noisy: torch.Tensor, level: int) -> torch.Tensor:
        return policy._denoise(noisy, torch.full((4,), level), features, torch.zeros(4, W))

    steps = policy.diffusion_steps
    changed = [(said(one, level) - said(two, level)).abs().mean() for level in (steps, steps // 2, 1)]
    assert changed[0] < 0.02 * changed[2] and changed[0] < changed[1] < changed[2]


def test_memory_changes_nothing_at_initialisation():
    policy, features = make_policy(), torch.randn(4, 3, W)
    torch.testing.assert_close(policy.act(features, random_readout(4)), policy.act(features, random_readout(4)))


def test_sampling_with_a_perfect_denoiser_gives_the_clean_chunk():
    policy, clean = make_policy(sampling_steps=5), torch.randn(4, H, A)
    policy._denoise = lambda noisy, time, present, past: clean
    torch.testing.assert_close(policy.act(torch.randn(4, 3, W), random_readout(4)), clean, atol=1e-5, rtol=1e-5)


def test_learns_two_modes_where_regression_gives_their_mean():
    """Targets +1 and -1 for the same present: samples lie at the modes. The start noise chooses between them."""
    policy = make_policy()
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    features, readout = torch.zeros(64, 3, W), Readout(*(torch.zeros_like(part) for part in random_readout(64)))
    pad = torch.zeros(64, H, dtype=torch.bool)
    for _ in range(300):
        target = torch.randint(0, 2, (64, 1, 1)).float().mul(2).sub(1).expand(-1, H, A)
        loss = policy.loss(features, [readout], target, pad).errors[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    signs = []
    for seed in range(20):
        torch.manual_seed(seed)
        policy.start.normal_()
        sample = policy.act(features[:1], Readout(*(part[:1] for part in readout)))
        assert (sample.abs() - 1).abs().mean() < 0.25, sample
        signs.append(float(sample.detach().mean().sign()))
    assert 2 <= np.sum(np.array(signs) > 0) <= 18


def test_padding_does_not_matter():
    policy, features, readout = make_policy(), torch.randn(4, 3, W), random_readout(4)
    target = torch.randn(4, H, A)
    pad = torch.zeros(4, H, dtype=torch.bool)
    pad[:, 4:] = True
    errors = []
    for filler in (0.0, 100.0):
        torch.manual_seed(1)
        errors.append(policy.loss(features, [readout], target.masked_fill(pad[..., None], filler), pad).errors[0])
    torch.testing.assert_close(errors[0][~pad], errors[1][~pad])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"sampling_steps": 101}, r"sampling_steps must be in 1\.\.100"),
        ({"heads": 3}, "multiple of heads"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_policy(**options)
