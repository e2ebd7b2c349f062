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
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import Row  # noqa: E402
from performance.policies import CHANNELS, DEVICE, control, milliseconds, parameters, training  # noqa: E402

from trace_il import signature as sig  # noqa: E402
from trace_il.parallel import core_count  # noqa: E402
from trace_il.scores import write_results  # noqa: E402


def signatures(rounds: int) -> list[Row]:
    """Depth 3, 17 channels: 64 paths of 400 points at once; one more point of one."""
    import iisignature
    import pysiglib

    cores = core_count()
    torch.set_num_threads(cores)
    rng = np.random.default_rng(0)
    path = torch.from_numpy(rng.standard_normal((64, 400, CHANNELS)).cumsum(1).astype(np.float32) * 0.05)
    wide, double, here = path.double().numpy(), path.double(), path.to(DEVICE)

    def alone() -> None:
        torch.set_num_threads(1)
        sig.prefix_signature(double, 3)
        torch.set_num_threads(cores)

    def streamed_by_pysiglib() -> None:
        stream = pysiglib.SigStream(CHANNELS, 3, n_jobs=cores)
        for point in path.unbind(1):
            stream.push(point)
        stream.sig_all()

    calls: dict[str, Callable[[], Any]] = {
        f"ours, {cores} threads, float32": lambda: sig.prefix_signature(path, 3),
        f"ours, {cores} threads, float32, every 5th prefix": lambda: sig.prefix_signature(path, 3, 5),
        "ours, one thread, float64": alone,
        "iisignature, one thread (it has no more), float64": lambda: [iisignature.sig(one, 3, 2) for one in wide],
        f"pysiglib SigStream, {cores} jobs, float32": streamed_by_pysiglib,
    }
    if DEVICE.type == "cuda":
        calls["ours, cuda, float32"] = lambda: sig.prefix_signature(here, 3)
        calls["pysiglib, cuda, float32, last prefix alone"] = lambda: pysiglib.signature(here, 3)
    times = {name: float(np.median(v)) for name, v in milliseconds(calls, max(5, rounds // 60)).items()}
    ours = next(iter(times.values()))
    rows = [{"prefixes of 64 x 400": name, "ms": ms, "over_ours": ms / ours} for name, ms in times.items()]
    one, points = path[:1], path.shape[1]
    xi, step = sig.signature(one, 3), torch.randn(1, CHANNELS)
    stream = pysiglib.SigStream(CHANNELS, 3)
    for point in wide[0]:
        stream.push(point)

    def push() -> None:
        stream.push(wide[0, -1])
        stream.sig(0, stream.end_index)

    torch.set_num_threads(1)
    online = {
        "ours": lambda: sig.update(xi, step, 3),
        "pysiglib SigStream": push,
        f"pysiglib, {points} points from the start": lambda: pysiglib.signature(one, 3),
        f"iisignature, {points} points from the start": lambda: iisignature.sig(wide[0], 3),
    }
    times = {name: float(np.median(v)) for name, v in milliseconds(online, rounds // 20, 50).items()}
    return rows + [{"one more point": name, "ms": ms, "over_ours": ms / times["ours"]} for name, ms in times.items()]


def environment(rounds: int) -> list[Row]:
    """Steps a second of Medicine while it holds its first pose: physics alone, cameras each step, cameras at ticks; and
    views a second of planning by views."""
    rows: list[Row] = []
    for processes in (1, 2):
        for name, period in (("physics alone", 10**9), ("three 64 px cameras", 1), ("cameras every 5th step", 5)):
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                speeds = list(pool.map(steps_per_second, [period] * processes, [max(100, rounds)] * processes))
            rows.append({"environment": name, "processes": processes, "steps_per_second": float(sum(speeds))})
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        speed = pool.submit(views_per_second, max(500, rounds)).result()
    return [*rows, {"environment": "64 px views of a room, uncached", "processes": 1, "steps_per_second": speed}]


def views_per_second(count: int) -> float:
    from envs.view_planning.tasks import Place

    place = Place("dev", 0)
    nodes = np.random.default_rng(0).permutation(np.flatnonzero(place.from_starts[place.room.starts[0]] >= 0))
    place.views(nodes[:20])
    begin = time.perf_counter()
    place.views(nodes[20 : 20 + count])
    return count / (time.perf_counter() - begin)


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


PARTS = {  # and what tells one row from another: what was measured on another device stays
    "control": (control, ("policy", "sizes", "pixels", "form", "device", "part")),
    "training": (training, ("training", "device")),
    "signatures": (signatures, ("prefixes of 64 x 400", "one more point")),
    "environment": (environment, ("environment", "processes")),
    "parameters": (parameters, ("part",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=300, help="repetitions of the shortest calls")
    options = parser.parse_args()
    for part in options.parts:
        measure, key = PARTS[part]
        rows = measure(options.rounds)
        print(*rows, sep="\n", flush=True)
        write_results(HERE / f"results/{part}.json", [0], rows, key)


if __name__ == "__main__":
    main()
