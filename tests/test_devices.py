"""Training on another device than the CPU, without one: on tensors that have a shape and no values."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_agent import learner, make_agent
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trace_il.config import MEMORY_CONFIGS
from trace_il.learn import ImitationModule, shifted
from trace_il.memory.recall import RecallHead
from trace_il.memory.teacher import AttentionTeacher

COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class OneDevice(TorchDispatchMode):
    """Refuses what a GPU would: an operation on tensors of two devices. (Single numbers may stay on the CPU.)"""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        devices = {tensor.device.type for tensor in tensors}
        assert len(devices) <= 1 or func in COPIES, f"{func} on {devices}"
        return func(*args, **kwargs)


def test_two_devices_and_waiting_are_noticed():
    with OneDevice():
        with pytest.raises(AssertionError, match="cpu"):
            torch.ones(3, device="meta") + torch.ones(3)
        with pytest.raises(RuntimeError, match="item"):
            torch.ones(3)[torch.ones((), dtype=torch.long, device="meta")]


SETTINGS: list[tuple[str, str, dict, dict]] = [(memory, "act", {}, {}) for memory in MEMORY_CONFIGS]
SETTINGS += [("trace", "diffusion", {}, {}), ("trace", "act", {}, {"residual": 0.5, "distillation": 0.3})]
SETTINGS += [("trace", "act", {}, {"recall": 1.0}), ("trace", "act", {"log_signature": True}, {})]
SETTINGS += [(memory, "act", {"scan_budget": 3}, {}) for memory in ("trace", "retrieval")]


@pytest.mark.parametrize(("memory", "policy", "options", "settings"), SETTINGS)
def test_training_stays_on_its_device_and_never_waits_for_it(memory, policy, options, settings, monkeypatch):
    """To ask for a value, as by `item` or by a mask as an index, is an error on tensors without values."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # there is none for these
    agent = make_agent(memory, policy, options)
    own = agent.memory
    teacher = AttentionTeacher(own.content_dim, own.address_dim, own.slots, own.width)
    recall = RecallHead(own.slots, own.width, own.address_dim, cameras=2) if "recall" in settings else None
    other, batch = learner(**settings)
    module = ImitationModule(agent, teacher, recall, other.templates, other.settings, 0).train().to("meta")
    module.trainer = SimpleNamespace(current_epoch=0, global_step=0)  # type: ignore[assignment]
    optimizer = module.configure_optimizers()["optimizer"]
    with OneDevice():
        batch = batch.to(torch.device("meta"))
        for seen in (None, shifted(batch.images, 2)):
            losses, _ = module.losses(batch, seen)
            torch.stack(list(losses.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
        with torch.no_grad():
            module.eval().losses(batch)
