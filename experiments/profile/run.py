"""Where the time of a training step goes, and what an image costs: python experiments/profile/run.py

Medicine's default configuration on random frames, so that it needs no dataset. Ratios within one run.
Writes results/profile.json.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from trace_il import signature  # noqa: E402
from trace_il.agent import AgentSpec, Controller  # noqa: E402
from trace_il.build import build_agent  # noqa: E402
from trace_il.config import ACTConfig, TraceConfig, TrainConfig  # noqa: E402
from trace_il.env_config import DelayedEvidenceConfig  # noqa: E402
from trace_il.learn import flatten_ticks  # noqa: E402
from trace_il.memory.base import Evidence  # noqa: E402
from trace_il.memory.teacher import AttentionTeacher  # noqa: E402
from trace_il.parallel import core_count  # noqa: E402
from trace_il.scores import write_results  # noqa: E402

EPISODES, STEPS, CHANNELS, SIZE, ROUNDS = 8, 285, 17, 64, 7
CAMERAS = ("overhead", "left_wrist", "right_wrist")


def median(values: list[float]) -> float:
    return float(torch.tensor(values).median())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(core_count())
    config = TrainConfig(env=DelayedEvidenceConfig(), memory=TraceConfig(), policy=ACTConfig(), name="profile")
    names, every = tuple(map(str, range(CHANNELS))), config.agent.tick_every
    limits = (-9.0,) * CHANNELS, (9.0,) * CHANNELS
    relative = (True,) * CHANNELS
    spec = AgentSpec(CAMERAS, (SIZE, SIZE), names, names, *limits, 20.0, every, config.agent.depth, relative)
    agent = build_agent(config, spec)
    memory = agent.memory
    teacher = AttentionTeacher(memory.content_dim, memory.address_dim, memory.slots, memory.width)
    optimiser = torch.optim.AdamW([*agent.parameters(), *teacher.parameters()])
    ticks = -(-STEPS // every)
    images = torch.randint(0, 256, (EPISODES, ticks, len(CAMERAS), SIZE, SIZE, 3), dtype=torch.uint8)
    states = torch.randn(EPISODES, STEPS, CHANNELS).cumsum(1) * 0.05
    target = torch.randn(EPISODES * ticks, config.policy.chunk, CHANNELS)
    is_pad = torch.zeros(target.shape[:2], dtype=torch.bool)
    parts: dict[str, list[float]] = {}
    for round_number in range(ROUNDS):
        begin = time.perf_counter()

        def lap(name: str, warm: bool = round_number > 1) -> None:
            nonlocal begin
            now = time.perf_counter()
            if warm:
                parts.setdefault(name, []).append(now - begin)
            begin = now

        with torch.no_grad():
            xi, previous = agent.signatures(states)
        lap("prefix signatures")
        features, content = agent.encoder(
            images.flatten(0, 1), agent.standardize_state(states[:, ::every]).flatten(0, 1)
        )
        lap("image encoder")
        evidence = Evidence(content.unflatten(0, (EPISODES, ticks)), agent.address(xi, previous))
        readout = memory.scan(evidence)
        lap("address and memory scan")
        readouts = [flatten_ticks(readout), flatten_ticks(teacher(evidence, readout.address))]
        lap("teacher")
        errors = agent.policy.loss(features, readouts, target, is_pad).errors
        lap("policy, both readouts")
        optimiser.zero_grad()
        torch.stack([e.mean() for e in errors]).sum().backward()
        lap("backward")
        optimiser.step()
        lap("optimiser")
    seconds = {name: median(values) for name, values in parts.items()}
    total, samples = sum(seconds.values()), EPISODES * ticks
    rows = [{"part": name, "ms": 1e3 * value, "share": value / total} for name, value in seconds.items()]
    rows.append({"part": "training step", "ms": 1e3 * total, "share": 1.0, "samples_per_second": samples / total})
    rows[-1]["images_encoded_per_sample"] = images.shape[:3].numel() / samples
    # Online, one robot, one thread: a tick encodes images and plans, the other control steps do not.
    torch.set_num_threads(1)
    controller = Controller(agent)
    times: list[float] = []
    with torch.inference_mode():
        for step in range(200):
            begin = time.perf_counter()
            controller.step(images[:1, step // every], states[:1, step])
            times.append(1e3 * (time.perf_counter() - begin))
        xi, increment = torch.zeros(1, signature.signature_dim(CHANNELS, spec.depth)), torch.randn(1, CHANNELS)
        updates = []
        for _ in range(2000):
            begin = time.perf_counter()
            signature.update(xi, increment, spec.depth)
            updates.append(1e6 * (time.perf_counter() - begin))
    rows.append({"part": "online step at a tick", "ms": median(times[20::every])})
    rows.append({"part": "online step between ticks", "ms": median(times[21::every])})
    rows.append({"part": "online signature update", "ms": 1e-3 * median(updates)})
    for row in rows:
        print(f"{row['part']:28s} {row['ms']:9.3f} ms" + (f"  {100 * row['share']:5.1f} %" if "share" in row else ""))
    write_results(HERE / "results/profile.json", [0], rows)


if __name__ == "__main__":
    main()
