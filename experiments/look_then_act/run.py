"""Look, then act: python experiments/look_then_act/run.py [looks] [sizes] [--tasks medicine_active] [--jobs 2]

    looks    policies with TRACE from 200 demonstrations, by how those find the cue: shortest ways of the view graph of
             random walks, the oracle's, hindsight's, random walks, a scripted sweep, not at all; and one without a
             memory from those of the graph
    sizes    10 and 50 demonstrations of the graph, with TRACE and without a memory

A policy begins with the weights of one that was trained on the passive task of the same name: it knows what to
remember, and learns where to look. From fresh weights TRACE had not found the card when trials were stopped.

On cupboards that no demonstration showed: branch accuracy, how long it takes until the cue is seen against the oracle,
and how often the action follows when the same scene shows the other cue. Every run is `python train.py ...`. Finished
runs are not repeated, interrupted ones continue. Writes results/<part>.json; `python experiments/report.py
look_then_act` makes the table and the plot.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import ROOT, Row, collect, in_parallel, score_rows, train  # noqa: E402
from common import Case as PassiveCase  # noqa: E402

from envs.delayed_evidence.viewpoints import LOOKS  # noqa: E402
from trace_il.config import EvaluationConfig  # noqa: E402
from trace_il.env_config import env_options  # noqa: E402
from trace_il.environment import make_env  # noqa: E402
from trace_il.files import atomic_write  # noqa: E402
from trace_il.options import read_run  # noqa: E402
from trace_il.rollout import load_controller, policy_spec, rollout  # noqa: E402
from trace_il.scores import write_results  # noqa: E402

EPISODES, MOST = 100, 200  # of an evaluation; demonstrations
EPOCHS = 80  # more than of a passive task, since episodes are longer; held-out cues are all decided from the 41st on
FIRST = EvaluationConfig().seed  # of an evaluation
SWAPPED = 20  # scenes that are shown with either cue


@dataclass(frozen=True)
class Case:
    task: str
    look: str
    memory: str
    demonstrations: int
    seed: int

    @property
    def name(self) -> str:
        return f"look-{self.task}-{self.look}-{self.memory}-{self.demonstrations}-{self.seed}"

    @property
    def passive(self) -> PassiveCase:
        """The run whose weights it begins with."""
        return PassiveCase(self.task.removesuffix("_active"), "act", self.memory, self.seed)

    @property
    def overrides(self) -> list[str]:
        words = ["env=delayed_evidence", f"env.task={self.task}", f"env.look={self.look}", f"memory={self.memory}"]
        words += [f"data.episodes={self.demonstrations}", f"seed={self.seed}", f"evaluation.episodes={EPISODES}"]
        words.append(f"trainer.init=runs/{self.passive.name}/checkpoints/last.ckpt")
        # A policy that is also trained without a past learns that an empty memory means nothing; here it means: look.
        return [
            *words,
            "trainer.clear_share=0",
            f"trainer.epochs={EPOCHS}",
            "evaluation.export=false",
            "evaluation.cleared=false",
        ]


def cases(part: str, tasks: list[str], seeds: list[int]) -> list[Case]:
    """The largest set of demonstrations first: it holds the smaller ones."""
    if part == "looks":
        arms = [("graph", "trace"), ("graph", "none"), *((look, "trace") for look in LOOKS if look != "graph")]
        return [Case(task, *arm, MOST, seed) for seed in seeds for arm in arms for task in tasks]
    sizes = [(memory, size) for size in (50, 10) for memory in ("trace", "none")]
    return [Case(task, "graph", *arm, seed) for seed in seeds for arm in sizes for task in tasks]


def first_sights(task: str) -> list[int]:
    """Control steps until the oracle sees the cue, in each scene of an evaluation."""
    env = make_env("DelayedEvidence-v0", {"task": task, "look": "oracle", "camera_period": 10_000}).unwrapped
    steps = []
    for seed in range(FIRST, FIRST + EPISODES):
        _, info = env.reset(seed=seed)
        expert, step = env.make_expert(), 0
        while not info["cue_seen"]:
            *_, info = env.step(expert.action().executed)
            step += 1
        steps.append(step)
    env.close()
    return steps


def swapped(case: Case) -> dict[str, Any]:
    """How often both cues of a scene are acted on rightly; kept in the run."""
    config, folder = read_run(str(ROOT / "runs" / case.name))
    path = folder / "swapped.json"
    if path.exists():
        return json.loads(path.read_text())
    controller = load_controller(str(folder / "checkpoints/last.ckpt"))
    env = make_env(config.env.id, env_options(config.env))
    env.unwrapped.camera_period = policy_spec(controller)["tick_every"]
    right = [
        all(rollout(controller, env, seed, cue=cue).branch_correct == 1 for cue in range(2))
        for seed in range(FIRST, FIRST + SWAPPED)
    ]
    env.close()
    found = {"swapped_scenes": SWAPPED, "both_cues_right": float(np.mean(right))}
    atomic_write(path, json.dumps(found).encode())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["looks", "sizes"])
    parser.add_argument("--tasks", nargs="+", default=["medicine_active", "tool_active"])
    parser.add_argument("--looks", nargs="+", choices=list(LOOKS), default=list(LOOKS))
    parser.add_argument("--memories", nargs="+", choices=["trace", "none"], default=["trace", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    options = parser.parse_args()
    if unknown := set(options.parts) - {"looks", "sizes"}:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose of looks and sizes")
    sights: dict[str, list[int]] = {}

    def do(case: Case) -> list[Row]:
        summary = train(case.name, case.overrides, options.jobs)
        if case.task not in sights:
            sights[case.task] = first_sights(case.task)
        labels = {"task": case.task, "policy": case.look, "seed": case.seed, "demonstrations": case.demonstrations}
        (row,) = score_rows(labels, case.memory, summary)
        return [row | swapped(case) | {"oracle_cue_steps": sights[case.task]}]

    for part in options.parts:

        def write(rows: dict[Case, list[Row]], part: str = part) -> None:
            lines = [row for own in rows.values() for row in own]
            key = ("task", "policy", "memory", "demonstrations", "seed")
            write_results(HERE / f"results/{part}.json", options.seeds, lines, key)

        own = [case for case in cases(part, options.tasks, options.seeds) if case.look in options.looks]
        own = [case for case in own if case.memory in options.memories]
        first = {(case.task, case.look): case for case in reversed(own)}
        for case in first.values():  # what the others use is collected by all cores
            collect(case.overrides)
        for passive in dict.fromkeys(case.passive for case in own):
            collect(passive.overrides)
            train(passive.name, passive.overrides, options.jobs)
        in_parallel(own, options.jobs, do, write)


if __name__ == "__main__":
    main()
