"""What TRACE costs: python experiments/performance/run.py [--parts control training ...]

    control      a control step: TRACE on top of each base policy, at 64 and 224 px, eager and exported
    training     samples a second: TRACE against no memory and against a scan that encodes a history for each target
    signatures   prefix signatures and streaming updates against iisignature and pysiglib
    environment  steps a second with and without cameras, one and two processes
    parameters   of profile=reference against those of the paper

Random frames and paths, fresh weights: no dataset is needed. Every comparison is made in one run, turn by turn, and
given as a ratio. Writes results/<part>.json; `python experiments/report.py performance` makes the table.
"""

import argparse
import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from runs import ROOT, Row  # noqa: E402
from trace_il import signature as sig  # noqa: E402
from trace_il.agent import Agent, AgentSpec, Controller  # noqa: E402
from trace_il.build import build_agent  # noqa: E402
from trace_il.cli import checked  # noqa: E402
from trace_il.config import (  # noqa: E402
    MEMORY_CONFIGS,
    POLICY_CONFIGS,
    DelayedEvidenceConfig,
    TrainConfig,
    register,
)
from trace_il.data.episodes import EpisodeBatch  # noqa: E402
from trace_il.learn import ImitationModule  # noqa: E402
from trace_il.memory.base import Evidence  # noqa: E402
from trace_il.memory.teacher import AttentionTeacher  # noqa: E402
from trace_il.parallel import core_count  # noqa: E402
from trace_il.scores import write_results  # noqa: E402

CHANNELS, CAMERAS, STEPS = 17, ("overhead", "left_wrist", "right_wrist"), 285
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Times of each call, made turn by turn; the first fifth of the rounds is left out."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            begin = time.perf_counter()
            call()
            wait()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: np.array(values[rounds // 5 :]) for name, values in times.items()}


def make_agent(memory: str, policy: str, size: int) -> tuple[TrainConfig, Agent]:
    torch.manual_seed(0)
    parts = {"memory": MEMORY_CONFIGS[memory](), "policy": POLICY_CONFIGS[policy]()}
    config = TrainConfig(env=DelayedEvidenceConfig(), name="performance", **parts)
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
    for size in (64, 224):
        for policy in ("act", "diffusion"):
            agents = {memory: make_agent(memory, policy, size)[1].eval() for memory in ("none", "trace")}
            images, states = frames(1, size=size), torch.randn(64, 1, CHANNELS, device=DEVICE)
            every = agents["trace"].tick_every
            controllers: dict[str, Any] = {}
            for memory, agent in agents.items():
                controllers[f"{memory}, eager"] = Controller(agent)
                with tempfile.NamedTemporaryFile(suffix=".ts") as file:
                    torch.jit.script(Controller(agent)).save(file.name)
                    controllers[f"{memory}, exported"] = torch.jit.load(file.name, map_location=DEVICE)
            cycles = max(20, rounds // (4 if policy == "diffusion" else 1) // (4 if size == 224 else 1))

            def cycle(controller: Any, images: torch.Tensor, states: torch.Tensor, every: int) -> None:
                for step in range(every):
                    controller.step(images, states[step])

            with torch.inference_mode():
                calls = {
                    name: (lambda c=c: cycle(c, images, states, every))  # noqa: B023
                    for name, c in controllers.items()
                }
                whole = {name: values / every for name, values in milliseconds(calls, cycles).items()}
                parts = own_parts(agents["trace"], policy, states[0], every, rounds)
            for form in ("eager", "exported"):
                base, ours = whole[f"none, {form}"], whole[f"trace, {form}"]
                label = {"policy": policy, "pixels": size, "form": form, "device": DEVICE.type}
                row = {**label, "base_ms": base.mean(), "base_p95": np.percentile(base, 95), "trace_ms": ours.mean()}
                row |= {"trace_p95": np.percentile(ours, 95), "overhead": np.median(ours) / np.median(base) - 1}
                rows.append({key: float(v) if isinstance(v, np.floating) else v for key, v in row.items()})
            rows += [
                {"policy": policy, "pixels": size, "form": "eager", "device": DEVICE.type, "part": name,
                 "ms": float(values.mean()), "p95": float(np.percentile(values, 95))}
                for name, values in parts.items()
            ]  # fmt: skip
            print(*rows[-6:], sep="\n", flush=True)
    return rows


def own_parts(agent: Agent, policy: str, state: torch.Tensor, every: int, rounds: int) -> dict[str, np.ndarray]:
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
        number=torch.arange(episodes, device=DEVICE),
    )


def training(rounds: int) -> list[Row]:
    """Optimiser steps on both cores: samples (targets) a second and images encoded a sample."""
    torch.set_num_threads(core_count())
    size, history = 64, 16
    ticks = STEPS // 5

    def stepper(memory: str, batch: EpisodeBatch, config: TrainConfig, agent: Agent, last_only: bool) -> Any:
        m = agent.memory
        teacher = None if last_only else AttentionTeacher(m.content_dim, m.address_dim, m.slots, m.width).to(DEVICE)
        settings = dataclasses.replace(config.trainer, clear_share=0.0)
        module = ImitationModule(agent, teacher, None, None, settings, 0).to(DEVICE).train()  # type: ignore[arg-type]
        optimiser = module.configure_optimizers()["optimizer"]

        def step() -> None:
            if last_only:  # the history is encoded for this one target, as the reference does
                features, _, readout = agent.scan(batch.images, batch.states)
                rows = features.unflatten(0, batch.valid.shape)[:, -1]
                final = type(readout)(*(part[:, -1] for part in readout))
                target = agent.targets(batch.actions[:, -1:], batch.states[:, -1:])[:, 0]
                loss = agent.policy.loss(rows, [final], target, batch.is_pad[:, -1]).errors[0].mean()
            else:
                loss = torch.stack(list(module.losses(batch)[0].values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return step

    calls, samples, images = {}, {}, {}
    for memory in ("trace", "none"):
        config, agent = make_agent(memory, "act", size)
        batch = random_batch(config, 4, ticks, size)
        calls[memory] = stepper(memory, batch, config, agent, False)
        samples[memory], images[memory] = 4 * ticks, len(CAMERAS)
    config, agent = make_agent("trace", "act", size)
    name = f"trace, {history} frames encoded for each target"
    calls[name] = stepper("trace", random_batch(config, 16, history + 1, size), config, agent, True)
    samples[name], images[name] = 16, len(CAMERAS) * (history + 1)
    times = milliseconds(calls, max(6, rounds // 30))
    speed = {name: 1e3 * samples[name] / float(np.median(values)) for name, values in times.items()}
    rows: list[Row] = []
    for name, value in speed.items():
        row = {"training": name, "device": DEVICE.type, "samples_per_second": value, "ratio": speed["trace"] / value}
        rows.append(row | {"images_encoded_per_sample": images[name], "step_ms": float(np.median(times[name]))})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if DEVICE.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    rows.append({"training": "peak memory", "device": DEVICE.type, "GiB": peak})
    return rows


def signatures(rounds: int) -> list[Row]:
    """Depth 3, 17 channels: 64 episodes of 400 steps at once, and one more step of one path."""
    import iisignature
    import pysiglib

    torch.set_num_threads(core_count())
    rng = np.random.default_rng(0)
    path = torch.from_numpy(rng.standard_normal((64, 400, CHANNELS)).cumsum(1).astype(np.float32) * 0.05)
    wide, here = path.double().numpy(), path.to(DEVICE)

    def streamed_by_pysiglib(paths: torch.Tensor) -> None:
        stream = pysiglib.SigStream(CHANNELS, 3)
        for point in range(paths.shape[1]):
            stream.push(paths[:, point])
        stream.sig_all()

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: sig.prefix_signature(here, 3),
        "iisignature": lambda: [iisignature.sig(one, 3, 2) for one in wide],
        "pysiglib, one path after another from the start": lambda: [
            pysiglib.signature(path[:, :n].contiguous(), 3, n_jobs=core_count()) for n in range(20, 401, 20)
        ],
    }
    times = {name: float(np.median(v)) for name, v in milliseconds(calls, max(5, rounds // 60)).items()}
    rows = [{"prefixes of 64 x 400": name, "ms": ms, "over_ours": ms / times["ours"]} for name, ms in times.items()]
    # pysiglib has no prefixes: it was given every 20th alone.
    one, points = path[:1], path.shape[1]
    xi, step = sig.signature(one, 3), torch.randn(1, CHANNELS)
    stream = pysiglib.SigStream(CHANNELS, 3)
    for point in one[0]:
        stream.push(point.double().numpy())

    def push() -> None:
        stream.push(one[0, -1].double().numpy())
        stream.sig(0, stream.end_index())

    torch.set_num_threads(1)
    online = {
        "ours": lambda: sig.update(xi, step, 3),
        "pysiglib SigStream": push,
        f"pysiglib, {points} points from the start": lambda: pysiglib.signature(one, 3),
        f"iisignature, {points} points from the start": lambda: iisignature.sig(wide[0], 3),
    }
    times = {name: float(np.median(v)) for name, v in milliseconds(online, rounds).items()}
    return rows + [{"one more step": name, "ms": ms, "over_ours": ms / times["ours"]} for name, ms in times.items()]


def environment(rounds: int) -> list[Row]:
    """Steps a second of Medicine under random small commands: physics alone, cameras each step, cameras at ticks."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    rows: list[Row] = []
    for processes in (1, 2):
        for name, period in (("physics alone", 10**9), ("three 64 px cameras", 1), ("cameras every 5th step", 5)):
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                speeds = list(pool.map(steps_per_second, [period] * processes, [max(100, rounds)] * processes))
            rows.append({"environment": name, "processes": processes, "steps_per_second": float(sum(speeds))})
    return rows


def steps_per_second(period: int, steps: int) -> float:
    from trace_il.environment import make_env

    env = make_env("DelayedEvidence-v0", {"task": "medicine"})
    env.unwrapped.camera_period = period
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        env.step(observation["agent_pos"])
    begin = time.perf_counter()
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(observation["agent_pos"])
        if terminated or truncated:
            env.reset(seed=0)
    return steps / (time.perf_counter() - begin)


PAPER = {"updater": 11.91e6, "regression adapter": 0.79e6, "diffusion adapter": 16.03e6}


def parameters(_rounds: int) -> list[Row]:
    """Parameters of the reference sizes, part by part; the paper's updater has address and memory."""
    register()
    rows: list[Row] = []
    names = tuple(map(str, range(CHANNELS)))
    for policy in ("act", "diffusion"):
        with initialize_config_dir(str(ROOT / "configs"), version_base=None):
            config = checked(compose("train", ["profile=reference", f"policy={policy}"]))
        limits = (9.0,) * CHANNELS
        spec = AgentSpec(CAMERAS, (224, 224), names, names, limits, limits, 20.0, 5, 3, (True,) * CHANNELS)
        agent = build_agent(config, spec)
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
    return [row for row in rows if row["parameters"]]


PARTS = {
    "control": control,
    "training": training,
    "signatures": signatures,
    "environment": environment,
    "parameters": parameters,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=300, help="repetitions of the shortest calls")
    options = parser.parse_args()
    for part in options.parts:
        rows = PARTS[part](options.rounds)
        print(*rows, sep="\n", flush=True)
        write_results(HERE / f"results/{part}.json", [0], rows)


if __name__ == "__main__":
    main()
