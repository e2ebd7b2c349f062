"""Policies from the learned simulator, judged in the ground truth: python experiments/transfer/run.py [--jobs 2]

One simulator is trained (train.py sim=eqcollide, all worlds). Then
    push    policies without a memory on PushSoft, from 10 to 160 demonstrations of either backend
    sort    TRACE and no memory on SortSoft, from demonstrations of the learned simulator
all judged in the ground truth, and those of PushSoft in the learned simulator too: does it tell which is better?
Finished runs are not repeated, interrupted ones continue. Writes results/<part>.json; `python experiments/report.py
transfer` makes the table and the plot from them.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import ROOT, Row, in_parallel, score_rows, train  # noqa: E402
from rich.console import Console  # noqa: E402

from trace_il.files import atomic_write  # noqa: E402
from trace_il.options import read_run  # noqa: E402
from trace_il.pipeline import evaluate_run  # noqa: E402
from trace_il.scores import write_results  # noqa: E402

SIMULATOR = "simulator-mixed"
FILE = f"runs/{SIMULATOR}/simulator.pt"
DEMONSTRATIONS = (10, 20, 40, 80, 160)
BACKENDS = ("mujoco", "learned")
EPISODES = 100


@dataclass(frozen=True)
class Case:
    part: str
    backend: str  # of the demonstrations
    memory: str
    demonstrations: int
    seed: int

    @property
    def name(self) -> str:
        return f"transfer-{self.part}-{self.backend}-{self.memory}-{self.demonstrations}-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        words = [f"env={self.part}_soft", f"env.backend={self.backend}", f"env.simulator={FILE}"]
        words += [f"memory={self.memory}", f"data.episodes={self.demonstrations}", f"seed={self.seed}"]
        words += [f"evaluation.episodes={EPISODES}", "evaluation.recording=false", "evaluation.export=false"]
        return [*words, "evaluation.cleared=false"]


def cases(part: str, seeds: list[int]) -> list[Case]:
    """Data of the largest set first: its demonstrations hold those of the smaller ones."""
    if part == "sort":
        return [Case("sort", "learned", memory, 200, seed) for seed in seeds for memory in ("trace", "none")]
    sizes = sorted(DEMONSTRATIONS, reverse=True)
    return [Case("push", backend, "none", size, seed) for size in sizes for backend in BACKENDS for seed in seeds]


def judged_in_the_learned(case: Case) -> dict[str, Row]:
    """Scores of a trained policy in the learned simulator, on the same seeds; kept in its run, for this simulator."""
    config, folder = read_run(str(ROOT / "runs" / case.name))
    digest = hashlib.sha256((ROOT / FILE).read_bytes()).hexdigest()[:8]
    path = folder / f"judged_in_{digest}.json"
    if not path.exists():
        env = replace(config.env, judged_in="learned")  # type: ignore[call-arg]
        atomic_write(path, json.dumps(evaluate_run(replace(config, env=env), folder, Console())).encode())
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["push", "sort"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    options = parser.parse_args()
    if unknown := set(options.parts) - {"push", "sort"}:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose of push and sort")
    words = ["sim=eqcollide", "env=soft_bodies_2d", "env.world=mixed", "env.bodies=[1,3]"]
    train(SIMULATOR, [*words, "evaluation.recording=false"], 1)

    def do(case: Case) -> list[Row]:
        summary = train(case.name, case.overrides, options.jobs)
        labels = {"task": case.part, "policy": f"from {case.backend}", "seed": case.seed}
        labels |= {"demonstrations": case.demonstrations}
        rows = score_rows({**labels, "judged_in": "mujoco"}, case.memory, summary)
        if case.part == "push":
            elsewhere = {**summary, "scores": judged_in_the_learned(case)}
            rows += score_rows({**labels, "judged_in": "learned"}, case.memory, elsewhere)
        return rows

    for part in options.parts:

        def write(rows: dict[Case, list[Row]], part: str = part) -> None:
            lines = [row for own in rows.values() for row in own]
            key = ("policy", "memory", "demonstrations", "judged_in", "seed")
            write_results(HERE / f"results/{part}.json", options.seeds, lines, key)

        own = cases(part, options.seeds)
        first = {case.backend: case for case in reversed(own) if case.demonstrations == own[0].demonstrations}
        for case in first.values():  # alone, since it collects what the others use
            do(case)
        in_parallel(own, options.jobs, do, write)


if __name__ == "__main__":
    main()
