import time

import hypothesis.strategies as st
import iisignature
import numpy as np
import pysiglib
import pytest
import torch
from hypothesis import given, settings

from trace_il import signature as sig

paths = st.tuples(
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)


def make_path(batch: int, points: int, channels: int, seed: int, constant: bool) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    path = rng.normal(size=(batch, points, channels))
    if constant:
        path[..., 0] = path[:, :1, 0]
    return torch.from_numpy(path)


@settings(max_examples=60, deadline=None)
@given(paths)
def test_equals_iisignature_and_pysiglib(case):
    batch, points, channels, depth, seed, constant = case
    path = make_path(batch, points, channels, seed, constant)
    ours = sig.prefix_signature(path, depth)
    assert ours.shape == (batch, points, sig.signature_dim(channels, depth))
    assert (ours[:, 0] == 0).all()
    for end in range(2, points + 1):
        prefix = np.ascontiguousarray(path[:, :end].numpy()).copy()
        np.testing.assert_allclose(ours[:, end - 1].numpy(), iisignature.sig(prefix, depth), atol=1e-10)
        reference = np.asarray(pysiglib.signature(prefix, depth))[:, -ours.shape[-1] :]
        np.testing.assert_allclose(ours[:, end - 1].numpy(), reference, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(paths, st.integers(1, 6))
def test_every_so_many_points_are_those_of_all_points(case, every):
    batch, points, channels, depth, seed, constant = case
    path = make_path(batch, points, channels, seed, constant)
    torch.testing.assert_close(
        sig.prefix_signature(path, depth, every), sig.prefix_signature(path, depth)[:, ::every], atol=1e-10, rtol=1e-10
    )


@pytest.mark.parametrize("every", [1, 3])
def test_many_paths_at_once_are_those_of_each(every):
    path = make_path(70, 31, 17, 0, False)
    together = sig.prefix_signature(path, 3, every, large=10**9)
    for large in (2**17, 1):  # step by step
        torch.testing.assert_close(sig.prefix_signature(path, 3, every, large), together, atol=1e-10, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(paths, st.sampled_from([torch.float32, torch.float64]))
def test_streaming_equals_prefix(case, dtype):
    batch, points, channels, depth, seed, constant = case
    path = make_path(batch, points, channels, seed, constant).to(dtype)
    prefixes = sig.prefix_signature(path, depth)
    stream = torch.zeros_like(prefixes[:, 0])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    for t in range(1, points):
        stream = sig.update(stream, path[:, t] - path[:, t - 1], depth)
        torch.testing.assert_close(stream, prefixes[:, t], atol=tolerance, rtol=tolerance)
    assert stream.dtype == dtype


@settings(max_examples=30, deadline=None)
@given(paths)
def test_log_signature_equals_iisignature(case):
    _, points, channels, depth, seed, constant = case
    if points < 2 or depth < 2:  # iisignature's preparation needs depth 2
        return
    path = make_path(1, points, channels, seed, constant)
    ours = sig.log_signature(sig.signature(path, depth), channels, depth)[0].numpy()
    expanded = iisignature.logsig(path[0].numpy().copy(), iisignature.prepare(channels, depth, "x"), "x")
    np.testing.assert_allclose(ours, expanded, atol=1e-10)
    assert len(sig.lyndon_positions(channels, depth)) == iisignature.logsiglength(channels, depth)


def test_lyndon_words():
    assert sig.lyndon_positions(2, 3) == [0, 1, 3, 7, 9]  # 0, 1, 01, 001, 011
    assert [len(sig.lyndon_positions(17, depth)) for depth in (1, 2, 3)] == [17, 153, 1785]


def test_invariances():
    path = make_path(2, 20, 4, 0, False)
    whole = sig.signature(path, 3)
    torch.testing.assert_close(sig.signature(path + 5.0, 3), whole)  # constant offset
    slow = torch.repeat_interleave(path, 3, dim=1)  # standing still
    torch.testing.assert_close(sig.signature(slow, 3), whole)
    middle = (path[:, :-1] + path[:, 1:]) / 2  # another speed along the same lines
    fast = torch.stack([path[:, :-1], middle], 2).flatten(1, 2)
    torch.testing.assert_close(sig.signature(torch.cat([fast, path[:, -1:]], 1), 3), whole)
    assert (sig.signature(path.flip(1), 3) - whole).abs().max() > 0.1  # order matters


def test_scripted_and_differentiable():
    scripted, prefixes = torch.jit.script(sig.update), torch.jit.script(sig.prefix_signature)
    path = make_path(2, 6, 3, 1, False)
    start = torch.zeros(2, sig.signature_dim(3, 4), dtype=torch.float64)
    assert torch.equal(scripted(start, path[:, 1] - path[:, 0], 4), sig.update(start, path[:, 1] - path[:, 0], 4))
    assert torch.equal(prefixes(path, 4), sig.prefix_signature(path, 4))
    for large in (2**17, 1):
        assert torch.equal(prefixes(path, 4, 3, large), sig.prefix_signature(path, 4, 3, large))
        few = path[:1].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, large=large: sig.prefix_signature(x, 3, 1, large), few)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu():
    path = make_path(2, 30, 17, 2, False)
    torch.testing.assert_close(sig.prefix_signature(path.cuda(), 3).cpu(), sig.prefix_signature(path, 3))


def test_bad_input():
    with pytest.raises(ValueError, match=r"1\.\.4, got 5"):
        sig.signature_dim(3, 5)
    with pytest.raises(ValueError, match="39 coordinates, got 7"):
        sig.update(torch.zeros(1, 7), torch.zeros(1, 3), 3)


def test_online_update_is_fast():
    """At most 60 us of one core for 17 channels at depth 3, scripted as in an exported policy.

    The best of several rounds in CPU time of this thread, as the machine is shared.
    """
    update = torch.jit.script(sig.update)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state, step = torch.zeros(1, sig.signature_dim(17, 3)), torch.randn(1, 17)
    rounds = []
    with torch.inference_mode():
        for _ in range(10):
            begin = time.thread_time()
            for _ in range(200):
                state = update(state, step, 3)
            rounds.append((time.thread_time() - begin) / 200)
            state = torch.zeros_like(state)
    torch.set_num_threads(threads)
    assert min(rounds) < 60e-6, f"{1e6 * min(rounds):.1f} us"
