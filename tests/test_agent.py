import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir

from trace_il.agent import Agent, AgentSpec, Controller
from trace_il.build import build_agent, fit_content_norm
from trace_il.checkpoint import load_agent
from trace_il.cli import checked
from trace_il.config import (
    MEMORY_CONFIGS,
    ACTConfig,
    AgentConfig,
    DiffusionConfig,
    TrainConfig,
    TrainerConfig,
    register,
)
from trace_il.data.datamodule import EpisodeDataModule
from trace_il.data.episodes import EpisodeBatch
from trace_il.encoders import Encoder
from trace_il.env_config import CorridorConfig
from trace_il.export import script_controller
from trace_il.learn import ImitationModule
from trace_il.memory.base import Readout
from trace_il.memory.teacher import AttentionTeacher
from trace_il.policies.base import PolicyLoss
from trace_il.trainer import ExponentialAverage

D, C, SIZE, EVERY, STEPS = 4, 2, 32, 3, 17
RELATIVE = (True, False, True, False)  # actions relative to the state


POLICY = {
    "act": ACTConfig(chunk=6, actions_per_query=3, width=32, feedforward=32),
    "diffusion": DiffusionConfig(chunk=6, actions_per_token=3, width=32, feedforward=32, sampling_steps=4),
}


def make_agent(memory: str = "trace", policy_name: str = "act", agent_options: dict | None = None, **options) -> Agent:
    torch.manual_seed(0)
    policy = replace(POLICY[policy_name], **options)
    config = TrainConfig(env=CorridorConfig(), memory=MEMORY_CONFIGS[memory](width=16), policy=policy, name="test")
    config.agent = AgentConfig(tick_every=EVERY, **(agent_options or {}))
    names = tuple(f"x{i}" for i in range(D))
    spec = AgentSpec(("a", "b"), (SIZE, SIZE), names, names, (-2.0,) * D, (2.0,) * D, 10.0, EVERY, 3, RELATIVE)
    agent = build_agent(config, spec)
    agent.standardize_state.fit(torch.randn(D), torch.rand(D) + 0.5)
    spread = torch.tensor([0.3, 0.4, 0.5, 0.0]) * torch.linspace(1, 2, 6)[:, None]  # the last channel is constant
    agent.standardize_action.fit(torch.randn(6, D), spread)
    dim = agent.address.dim
    agent.address.standardize_signature.fit(torch.randn(dim), torch.rand(dim) + 0.5)
    # Running statistics as after training.
    agent.encoder.content_norm.running_mean.normal_()
    return agent.eval()


def episode(batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, STEPS, C, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randn(batch, STEPS, D, generator=generator).cumsum(1) * 0.3


ADDRESSES = {"signature": {}, "log-signature": {"log_signature": True}, "no delta": {"delta": False}}
KINDS = [*((memory, "act", "signature") for memory in MEMORY_CONFIGS), ("trace", "diffusion", "signature")]
KINDS += [("trace", "act", address) for address in ADDRESSES if address != "signature"]


@torch.no_grad()
def test_the_memory_may_see_other_images_than_the_policy():
    agent = make_agent()
    (images, states), (seen, _) = (episode(seed=seed) for seed in range(2))
    images, seen = images[:, ::EVERY], seen[:, ::EVERY]
    features, evidence = agent.gather(images, states, seen)
    assert torch.equal(features, agent.gather(images, states)[0])
    assert torch.equal(evidence.content, agent.gather(seen, states)[1].content)


@pytest.mark.parametrize(("memory", "policy", "address"), KINDS)
@torch.no_grad()
def test_online_equals_scan_through_the_whole_policy(memory, policy, address):
    """The memory of deployment is the memory of training, for two robots at once and across a reset."""
    agent = make_agent(memory, policy, ADDRESSES[address])
    controller = Controller(agent)
    for seed in (0, 1):
        images, states = episode(seed=seed)
        features, _, readout = agent.scan(images[:, ::EVERY], states)
        flat, now = Readout(*(part.flatten(0, 1) for part in readout)), states[:, ::EVERY].flatten(0, 1)
        chunks = agent.plan(features, flat, now).unflatten(0, (2, -1))
        controller.reset(2)
        for t in range(STEPS):
            action = controller.step(images[:, t], states[:, t])
            torch.testing.assert_close(action, chunks[:, t // EVERY, t % EVERY], atol=1e-5, rtol=1e-5)
            if t % EVERY == 0:
                torch.testing.assert_close(controller.readout.slots, readout.slots[:, t // EVERY], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("memory", "policy", "address"), KINDS)
@torch.inference_mode()
def test_exported_equals_eager_also_after_observe(memory, policy, address):
    agent = make_agent(memory, policy, ADDRESSES[address])
    eager, exported, always = Controller(agent), script_controller(agent), Controller(agent)
    for seed in (0, 1):
        images, states = episode(1, seed)
        for controller in (eager, exported, always):
            controller.reset(1)
        for t in range(STEPS):
            for controller in (eager, exported):
                controller.observe(images[:, t], states[:, t])
            expected = always.step(images[:, t], states[:, t])
            if t in (0, 4, 5, 9):  # only watched, not acted, of which 0 and 9 are ticks
                continue
            torch.testing.assert_close(exported.act(), eager.act(), atol=1e-5, rtol=0)
            torch.testing.assert_close(eager.act(), expected)


@torch.inference_mode()
def test_cleared_memory_knows_no_past():
    agent = make_agent()
    images, states = episode(1)
    other_images, other_states = episode(1, 7)
    results = []
    for past_images, past_states in ((images, states), (other_images, other_states)):
        controller = Controller(agent, clear_memory=True)
        for t in range(2 * EVERY):
            controller.step(past_images[:, t], past_states[:, t])
        results.append(controller.step(images[:, 2 * EVERY], states[:, 2 * EVERY]))
    assert torch.equal(*results)


@torch.inference_mode()
def test_actions_respect_limits_and_constant_channels():
    agent = make_agent()
    agent.policy.head.weight.mul_(100)
    controller = Controller(agent)
    images, states = episode(1)
    action = controller.step(images[:, 0], states[:, 0])
    assert action.abs().max() <= 2.0
    limited = agent.standardize_action.mean[0, 3].clamp(-2, 2)
    torch.testing.assert_close(action[0, 3], limited)


@torch.no_grad()
def test_relative_targets_are_undone():
    """A policy that predicts its target exactly plans the demonstrated actions."""
    agent = make_agent()
    actions, states = 2 * torch.rand(3, 6, D) - 1, torch.randn(3, D)
    actions[..., 3] = agent.standardize_action.mean[:, 3].clamp(-2, 2)
    agent.policy.act = lambda features, readout: agent.targets(actions, states)
    torch.testing.assert_close(agent.plan(None, None, states), actions)
    shifted = agent.targets(actions + torch.tensor([1.0, 0, 1, 0]), states + torch.tensor([1.0, 5, 1, 5]))
    torch.testing.assert_close(shifted, agent.targets(actions, states))
    with torch.autocast("cpu", torch.bfloat16):  # mixed precision does not round the angles
        torch.testing.assert_close(agent.targets(actions, states), shifted)


def test_bad_input_is_named():
    controller = Controller(make_agent())
    images, states = episode(1)
    with pytest.raises(ValueError, match="act\\(\\) needs an observation"):
        controller.act()
    with pytest.raises(ValueError, match=r"state must have shape \(B, 4\)"):
        controller.step(images[:, 0], states[:, 0, :2])
    with pytest.raises(ValueError, match=r"images must have shape .*1, 2, 32, 32, 3"):
        controller.step(images[:, 0, :, :16], states[:, 0])
    with pytest.raises(ValueError, match="state must be float32"):
        controller.step(images[:, 0], states[:, 0].double())
    with pytest.raises(ValueError, match="not finite"):
        controller.step(images[:, 0], states[:, 0] * float("nan"))


@pytest.mark.parametrize("as_controller", [Controller, script_controller])
def test_no_robot_is_given_what_is_no_number(as_controller):
    agent = make_agent()
    for weights in agent.policy.parameters():
        weights.data.fill_(float("nan"))
    images, states = episode(1)
    with pytest.raises((ValueError, torch.jit.Error), match="the policy's actions are not finite"):
        as_controller(agent).step(images[:, 0], states[:, 0])


def test_a_refused_observation_has_not_been_taken_in():
    one, two = Controller(make_agent()), Controller(make_agent())
    images, states = episode(1)
    for step in range(STEPS):
        if step % EVERY == 0:
            with pytest.raises(ValueError, match="images must be uint8"):
                two.step(images[:, step].float(), states[:, step])
        assert torch.equal(one.step(images[:, step], states[:, step]), two.step(images[:, step], states[:, step]))


def test_cvae_learns_through_its_latent():
    agent = make_agent(latent_dim=4).train()
    images, states = episode()
    features, _, readout = agent.scan(images[:, ::EVERY], states)
    flat = Readout(*(part.flatten(0, 1) for part in readout))
    target, pad = torch.randn(len(features), 6, D), torch.zeros(len(features), 6, dtype=torch.bool)
    loss = agent.policy.loss(features, [flat], target, pad)
    (loss.errors[0].mean() + loss.extra["kl"]).backward()
    assert agent.policy.posterior[0].weight.grad.abs().max() > 0


def test_scan_budget_as_long_as_the_episode_changes_nothing():
    images, states = episode()
    scans = []
    for budget in (0, STEPS, 2):
        agent = make_agent(agent_options={"scan_budget": budget, "path_noise": 0.0, "address_dropout": 0.0}).train()
        agent.encoder.content_norm.eval()
        scans.append(agent.scan(images[:, ::EVERY], states)[2].slots)
    torch.testing.assert_close(scans[0], scans[1])
    torch.testing.assert_close(scans[0][:, :2], scans[2][:, :2])
    assert not torch.allclose(scans[0][:, -1], scans[2][:, -1])


def test_resnet_18_has_its_number_of_parameters():
    """11,176,512 in He et al. (2016) without the last layer; a shortcut here has a bias and no normalisation."""
    trunk = Encoder(1, (224, 224), 2, channels=(64, 128, 256, 512), blocks=2, stem="resnet").trunk
    assert sum(p.numel() for p in trunk.parameters()) == 11_176_512 - (128 + 256 + 512)
    assert trunk(torch.zeros(1, 3, 224, 224)).shape == (1, 512, 7, 7)


@pytest.mark.parametrize("stem", ["patch", "resnet"])
@pytest.mark.parametrize("size", [(16, 16), (50, 66), (224, 224)])
def test_encoder_takes_any_size(stem, size):
    encoder = Encoder(2, size, D, width=32, stem=stem)
    features, content = encoder(torch.zeros(2, 2, *size, 3, dtype=torch.uint8), torch.zeros(2, D))
    assert features.shape == (2, 3, 32) and content.shape == (2, 128)


def test_contents_end_up_standardised_as_at_deployment(workplace, monkeypatch):
    """In the second half of training by statistics that no longer move, and that are kept with the averaged weights."""
    checkpoint = torch.load(workplace / "runs/small/checkpoints/last.ckpt", weights_only=True)
    names = [f"agent.encoder.content_norm.running_{name}" for name in ("mean", "var")]
    kept, trained = ([checkpoint[key][name] for name in names] for key in ("state_dict", "current_model_state"))
    torch.testing.assert_close(kept, trained, rtol=0, atol=0)
    module, batch = learner(epochs=4, sharpen_after=0.5)
    norm, fits = module.agent.encoder.content_norm, []
    monkeypatch.setattr("trace_il.learn.fit_content_norm", lambda agent, data: fits.append(data))
    for epoch, moves in enumerate([True, True, False, False]):
        trainer = SimpleNamespace(current_epoch=epoch, global_step=epoch, global_rank=0, datamodule=f"before {epoch}")
        module.trainer = trainer  # type: ignore[assignment]
        module.on_train_epoch_start()
        before = norm.running_mean.clone()
        module.on_train_batch_start(batch, 0)
        losses, _ = module.losses(batch)
        assert moves != torch.equal(norm.running_mean, before)
        assert "balance" in losses and ("entropy" in losses) != moves
        trainer.datamodule = f"after {epoch}"
        module.on_validation_epoch_start()
    assert fits == ["after 0", "after 1", "before 2"]


def test_statistics_of_contents_are_those_of_the_batches(workplace):
    agent = load_agent(workplace / "runs/small/checkpoints/last.ckpt")
    sizes = {"batch_size": 4, "steps_per_epoch": 3, "together": 2}
    data = EpisodeDataModule(workplace / "demonstrations", 2, agent.policy.chunk, **sizes)
    norm = agent.encoder.content_norm
    contents: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda module, given, out: contents.append(given[0]))
    fit_content_norm(agent, data)
    handle.remove()
    assert norm.momentum == 0.1 and not norm.training
    torch.testing.assert_close(norm.running_mean, torch.stack([part.mean(0) for part in contents]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([part.var(0) for part in contents]).mean(0))


def learner(**settings) -> tuple[ImitationModule, EpisodeBatch]:
    """A learner with an attention teacher, in training, and a batch without padding."""
    agent, config = make_agent(), TrainerConfig(**settings)
    memory = agent.memory
    teacher = AttentionTeacher(memory.content_dim, memory.address_dim, memory.slots, memory.width)
    images, states = episode()
    ticks = len(states[0, ::EVERY])
    actions = torch.randn(2, ticks, 6, D, generator=torch.Generator().manual_seed(1))
    nothing = torch.full((2, ticks), -1)
    batch = EpisodeBatch(
        images[:, ::EVERY], states, actions, torch.zeros(2, ticks, 6, dtype=torch.bool),
        torch.ones(2, ticks, dtype=torch.bool), torch.tensor([0, 1]), nothing, torch.zeros(2, dtype=torch.long),
    )  # fmt: skip
    return ImitationModule(agent, teacher, None, None, config, 0).train(), batch  # type: ignore[arg-type]


def test_averaged_weights_are_where_the_model_is_trained():
    """Not where it is when training is set up, which is the CPU."""
    average, (module, _) = ExponentialAverage(0.9), learner()
    there = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    average.setup(there, module, "fit")  # type: ignore[arg-type]
    assert {p.device.type for p in average._average_model.parameters()} == {"meta"}  # type: ignore[union-attr]
    assert average._average_model.n_averaged.device.type == "cpu"  # type: ignore[union-attr]  # it is asked for its value


def test_the_memory_learns_slowly_in_the_second_half():
    module, _ = learner(epochs=5, steps_per_epoch=10, warmup_steps=0)
    made = module.configure_optimizers()
    others, memory = [], []
    for _ in range(50):
        rates = made["lr_scheduler"]["scheduler"].get_last_lr()
        others.append(rates[0])
        memory.append(rates[1] / rates[0])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert memory[:30] == [1.0] * 30 and memory[30:] == pytest.approx([0.2] * 20)  # epochs 3 and 4 are settled
    assert others[30] == others[0] and others[-1] < 0.1 * others[0]


def test_residual_weights_are_larger_where_a_policy_without_a_past_errs_more():
    module, batch = learner(residual=0.5)
    errors = module.agent.targets(batch.actions, batch.states[:, ::EVERY]).flatten(0, 1).square().mean(-1)

    def loss(features, readouts, target, is_pad):  # errors that depend on the target alone
        return PolicyLoss([target.square().mean(-1) for _ in readouts], {}, target)

    module.agent.policy.loss = loss
    weighted = (errors * (1 + 0.5 * (errors / errors.mean() - 1))).mean()
    assert weighted > 1.1 * errors.mean()
    torch.testing.assert_close(module.losses(batch)[0]["imitation"], weighted)
    module.settings.residual = 0.0
    torch.testing.assert_close(module.losses(batch)[0]["imitation"], errors.mean())


def test_distillation_moves_the_memory_to_the_teacher_and_not_the_teacher():
    module, batch = learner(distillation=0.3)
    module.losses(batch)[0]["distillation"].backward()
    assert all(p.grad is None or not p.grad.any() for p in module.teacher.parameters())
    assert any(p.grad is not None and p.grad.any() for p in module.agent.memory.parameters())


@pytest.mark.parametrize("memory", MEMORY_CONFIGS)
def test_reference_sizes_fit_every_memory(memory):
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        config = checked(compose("train", ["profile=reference", f"memory={memory}"]))
    assert config.encoder.content_dim == config.policy.width == 512
    assert memory == "none" or config.memory.width == 512


RESIDENT = """
import resource, sys, torch
sys.path.insert(0, {root!r}); sys.path.insert(0, {tests!r})
from test_agent import make_agent, episode
from trace_il.agent import Controller
torch.set_num_threads(1)
controller = Controller(make_agent())
images, states = episode(1)
def rss():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
with torch.inference_mode():
    for step in range(100_000):
        if step == 5_000:
            before = rss()
        controller.step(images[:, step % 17], states[:, step % 17] * (1 + step % 3))
print(rss() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_resident_memory_does_not_grow_over_100_000_steps():
    gc.collect()
    tests = Path(__file__).resolve().parent
    code = RESIDENT.format(root=str(tests.parent), tests=str(tests))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 4 * 2**20, f"grew by {int(out.stdout)} bytes"
