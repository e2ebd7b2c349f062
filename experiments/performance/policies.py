"""What policies with TRACE cost: control steps, training steps, parameters; with fresh weights and random frames."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Row
from hydra import compose, initialize_config_dir
from torch import nn

from trace_il import signature as sig
from trace_il.agent import Agent, AgentSpec, Controller
from trace_il.build import build_agent
from trace_il.cli import checked
from trace_il.config import MEMORY_CONFIGS, TrainConfig, register
from trace_il.data.episodes import EpisodeBatch
from trace_il.learn import ImitationModule
from trace_il.memory.base import Evidence, Readout
from trace_il.memory.teacher import AttentionTeacher
from trace_il.parallel import core_count

CHANNELS, CAMERAS, STEPS = 17, ("overhead", "left_wrist", "right_wrist"), 285
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int, block: int = 1) -> dict[str, np.ndarray]:
    """Times of each call, made `block` times in turn; the first fifth of the rounds is left out. What takes less than
    the others leave of the caches is to be timed in blocks."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            begin = time.perf_counter()
            for _ in range(block):
                call()
            wait()
            times[name].append(1e3 * (time.perf_counter() - begin) / block)
    return {name: np.array(values[rounds // 5 :]) for name, values in times.items()}


def make_agent(memory: str, policy: str, size: int, reference: bool = False) -> tuple[TrainConfig, Agent]:
    """An agent with fresh weights: the default sizes at `size` px, or those of profile=reference."""
    torch.manual_seed(0)
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        words = [f"memory={memory}", f"policy={policy}", *(["profile=reference"] if reference else [])]
        config: TrainConfig = checked(compose("train", words))
    names, limit = tuple(map(str, range(CHANNELS))), (9.0,) * CHANNELS
    lower = tuple(-v for v in limit)
    sizes, every = (size, size), config.agent.tick_every
    spec = AgentSpec(CAMERAS, sizes, names, names, lower, limit, 20.0, every, config.agent.depth, (True,) * CHANNELS)
    return config, build_agent(config, spec).to(DEVICE)


def frames(*lead: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (*lead, len(CAMERAS), size, size, 3), dtype=torch.uint8, device=DEVICE)


def control(rounds: int) -> list[Row]:
    """Control steps of one robot, one thread: whole steps with and without TRACE, and TRACE's own parts."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for sizes, size in (("default", 64), ("default", 224), ("reference", 224)):
        for policy in ("act", "diffusion"):
            large = sizes == "reference"
            agents = {memory: make_agent(memory, policy, size, large)[1].eval() for memory in ("none", "trace")}
            images, states = frames(1, size=size), torch.randn(64, 1, CHANNELS, device=DEVICE)
            every = agents["trace"].tick_every
            controllers: dict[str, Any] = {}
            for memory, agent in agents.items():
                controllers[f"{memory}, eager"] = Controller(agent)
                with tempfile.NamedTemporaryFile(suffix=".ts") as file:
                    torch.jit.script(Controller(agent)).save(file.name)
                    controllers[f"{memory}, exported"] = torch.jit.load(file.name, map_location=DEVICE)
            cycles = 5 * max(8, rounds // 5 // (1 if policy == "act" else 8 if large else 2))
            calls = {name: (lambda c=c: c.step(images, states[0])) for name, c in controllers.items()}  # noqa: B023
            with torch.inference_mode():
                whole = milliseconds(calls, cycles * every)
                parts = own_parts(agents["trace"], states[0], every, rounds)
            for form in ("eager", "exported"):
                base, ours = (whole[f"{memory}, {form}"].reshape(-1, every) for memory in ("none", "trace"))
                label = {"policy": policy, "sizes": sizes, "pixels": size, "form": form, "device": DEVICE.type}
                label |= {"cycles": len(base)}
                for name, values in (("base", base), ("trace", ours)):
                    label |= {f"{name}_ms": float(values.mean()), f"{name}_p95": float(np.percentile(values, 95))}
                    label |= {f"{name}_tick_ms": float(np.median(values[:, 0]))}
                rows.append(label | overhead(base.sum(1), ours.sum(1)))
            rows += [
                {"policy": policy, "sizes": sizes, "pixels": size, "form": "eager", "device": DEVICE.type, "part": name,
                 "ms": float(values.mean()), "p95": float(np.percentile(values, 95))}
                for name, values in parts.items()
            ]  # fmt: skip
            print(*rows[-6:], sep="\n", flush=True)
    return rows


def overhead(base: np.ndarray, ours: np.ndarray) -> Row:
    """Median of what ours takes more, over the median of the base, with its 95 % bootstrap interval: (cycles,) of
    steps from tick to tick that were timed in turn."""
    draws = np.random.default_rng(0).integers(len(base), size=(2000, len(base)))
    ratios = np.median((ours - base)[draws], axis=1) / np.median(base[draws], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    middle = np.median(ours - base) / np.median(base)
    return {"overhead": float(middle), "overhead_low": float(low), "overhead_high": float(high)}


def own_parts(agent: Agent, state: torch.Tensor, every: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds a control step of TRACE's parts; all but the signature happen at ticks, one step in `every`."""
    memory: Any = agent.memory
    content = torch.randn(1, memory.content_dim, device=DEVICE)
    xi = torch.zeros(1, sig.signature_dim(CHANNELS, agent.depth), device=DEVICE)
    slots = memory.init_state(content)
    evidence = Evidence(content, agent.address(xi, xi))
    read_query = memory._prepare(evidence)[-1]
    readout = memory.step(slots, evidence)[1]

    def update() -> None:
        agent.address(xi, xi)
        prepared = memory._prepare(evidence)
        memory._update(slots, *prepared[:3])

    adapter: Any = agent.policy.adapter
    at_ticks = milliseconds(
        {
            "address and slot update": update,
            "read": lambda: memory._read(slots, read_query),
            "adapter": lambda: adapter(readout),
        },
        rounds,
    )
    every_step = milliseconds({"signature": lambda: sig.update(xi, state, agent.depth)}, rounds)
    return every_step | {name: values / every for name, values in at_ticks.items()}


def random_batch(config: TrainConfig, episodes: int, ticks: int, size: int) -> EpisodeBatch:
    chunk, steps = config.policy.chunk, ticks * config.agent.tick_every
    return EpisodeBatch(
        images=frames(episodes, ticks, size=size),
        states=torch.randn(episodes, steps, CHANNELS, device=DEVICE).cumsum(1) * 0.05,
        actions=torch.randn(episodes, ticks, chunk, CHANNELS, device=DEVICE),
        is_pad=torch.zeros(episodes, ticks, chunk, dtype=torch.bool, device=DEVICE),
        valid=torch.ones(episodes, ticks, dtype=torch.bool, device=DEVICE),
        cue=torch.zeros(episodes, dtype=torch.long, device=DEVICE),
        phase=torch.zeros(episodes, ticks, dtype=torch.long, device=DEVICE),
        scene=torch.arange(episodes, device=DEVICE),
    )


def training_step(memory: str, history: int = 0, moved: bool = False) -> tuple[Callable[[], None], int]:
    """One optimiser step of a batch at 64 px, and its samples.

    Args:
        history: if positive, so many frames before each target are encoded for it alone, as the reference does;
            else whole episodes are scanned, every tick is a target, and there is an attention teacher.
        moved: the memory sees other images than the policy, as in the second half of training.
    """
    config, agent = make_agent(memory, "act", 64)
    parts = agent.memory
    teacher = AttentionTeacher(parts.content_dim, parts.address_dim, parts.slots, parts.width).to(DEVICE)
    settings = dataclasses.replace(config.trainer, clear_share=0.0)
    module = ImitationModule(agent, None if history else teacher, None, None, settings, 0)  # type: ignore[arg-type]
    module.to(DEVICE).train()
    optimiser = module.configure_optimizers()["optimizer"]
    batch = random_batch(config, *((16, history + 1) if history else (4, STEPS // 5)), 64)

    def loss() -> torch.Tensor:
        if not history:
            return torch.stack(list(module.losses(batch, batch.images if moved else None)[0].values())).sum()
        features, _, readout = agent.scan(batch.images, batch.states)
        last = features.unflatten(0, batch.valid.shape)[:, -1]
        final = Readout(*(part[:, -1] for part in readout))
        target = agent.targets(batch.actions[:, -1:], batch.states[:, -1:])[:, 0]
        return agent.policy.loss(last, [final], target, batch.is_pad[:, -1]).errors[0].mean()

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

    return step, 16 if history else batch.valid.numel()


def peak_memory(memory: str) -> float:
    """GiB that a process needs at most for a few training steps: of the GPU, else resident."""
    step, _ = training_step(memory)
    for _ in range(3):
        step()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    # Of this process alone; getrusage would give the parent's, which is inherited.
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 2**20


def training(rounds: int) -> list[Row]:
    """Samples (targets) a second on all cores, images encoded a sample, peak memory."""
    torch.set_num_threads(core_count())
    history = 16
    arms = {"trace": ("trace", 0, False), "none": ("none", 0, False), "trace, second half": ("trace", 0, True)}
    arms |= {f"trace, {history} frames for each target": ("trace", history, False)}
    steps = {name: training_step(*arm) for name, arm in arms.items()}
    times = milliseconds({name: step for name, (step, _) in steps.items()}, max(6, rounds // 30))
    speed = {name: 1e3 * steps[name][1] / float(np.median(values)) for name, values in times.items()}
    rows: list[Row] = []
    for name, (memory, frames_before, moved) in arms.items():
        row = {"training": name, "device": DEVICE.type, "samples_per_second": speed[name]}
        row |= {"trace_over_this": speed["trace"] / speed[name], "step_ms": float(np.median(times[name]))}
        row |= {"images_encoded_per_sample": len(CAMERAS) * (frames_before + 1 + moved)}
        if not frames_before and not moved:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                row["peak_GiB"] = pool.submit(peak_memory, memory).result()
        rows.append(row)
    return rows


# Why a part has more or fewer than 5 % of the paper's parameters.
REASONS = {
    "regression adapter": "its summary token has the paper's number; a token for the slots and the scale and shift of "
    "the features by the summary come on top",
    "diffusion adapter": "the paper's belongs to a policy of 271 M and its form is not told; ours gives a transformer "
    "tokens to attend to",
}
PAPER = {"updater": 11.91e6, "regression adapter": 0.79e6, "diffusion adapter": 16.03e6}


def parameters(_rounds: int) -> list[Row]:
    """Parameters of the reference sizes, part by part; the paper's updater has address and memory."""
    rows: list[Row] = []
    for policy in ("act", "diffusion"):
        agent = make_agent("trace", policy, 224, reference=True)[1]
        adapter: Any = agent.policy.adapter
        family = "regression adapter" if policy == "act" else "diffusion adapter"
        parts = {family: adapter, f"{policy} without adapter": agent.policy}
        if policy == "act":
            parts |= {f"adapter, {name}": part for name, part in adapter.named_children()}
            parts |= {"updater": nn.ModuleList([agent.address, agent.memory]), "encoder": agent.encoder}
            parts |= {f"updater, address {name}": part for name, part in agent.address.named_children()}
            parts |= {f"updater, memory {name}": part for name, part in agent.memory.named_children()}
        for name, part in parts.items():
            count = sum(p.numel() for p in part.parameters())
            count -= sum(p.numel() for p in adapter.parameters()) if name.endswith("without adapter") else 0
            row = {"part": name, "parameters": count}
            rows.append(row | ({"paper": PAPER[name], "ratio": count / PAPER[name]} if name in PAPER else {}))
    for row in rows:
        if abs(row.get("ratio", 1.0) - 1) > 0.05:
            row["reason"] = REASONS[row["part"]]
    for memory in MEMORY_CONFIGS:  # default sizes
        agent = make_agent(memory, "act", 64)[1]
        for name, part in ((f"memory={memory}", agent.memory), (f"whole policy, memory={memory}", agent)):
            rows.append({"part": name, "parameters": sum(p.numel() for p in part.parameters())})
    return [row for row in rows if row["parameters"]]
