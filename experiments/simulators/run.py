"""Learned simulators against each other: python experiments/simulators/run.py [tune] [accuracy] [longer] [cost]

    tune        how each of them is trained best, by validation error alone; what is best stands in configs/sim
    accuracy    every simulator, trained for about as long on the same trajectories, on scenes it has not seen
    longer      all of them trained four times as long, one seed: whether more time changes the order
    cost        milliseconds a frame against bodies, points and batch, and against the ground truth in the same run

Runs are `python train.py sim=...` with the settings of its row; finished ones are not repeated, interrupted ones
continue. Writes results/<part>-<dim>d.json; `python experiments/report.py simulators` makes tables and plots.
"""

import argparse
import csv
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import torch  # noqa: E402
from common import ROOT, Row, in_parallel, train  # noqa: E402
from rich.console import Console  # noqa: E402
from simulators.cost import cost_rows  # noqa: E402

from sims.build import load  # noqa: E402
from sims.metrics import at_impact, equivariance_error  # noqa: E402
from sims.scenes import UNSEEN, SceneSettings  # noqa: E402
from trace_il.files import atomic_write  # noqa: E402
from trace_il.scores import write_results  # noqa: E402
from trace_il.sim_config import SimDataConfig  # noqa: E402
from trace_il.sim_pipeline import VALIDATION_SEED, dataset, judge  # noqa: E402

FRAMES = 49
EPOCHS = 12
TEST_SEED = 8_000_000
ARMS: dict[str, tuple[str, ...]] = {
    "EqCollide-style": ("sim=eqcollide",),
    "GNS": ("sim=gns",),
    "MeshGraphNets": ("sim=meshgraphnets",),
    "EGNN": ("sim=egnn",),
    "SEGNO": ("sim=segno",),
    "twin": ("sim=twin",),
    "twin, rotated scenes": ("sim=twin", "trainer.turn=true"),
    "no collision edges": ("sim=eqcollide", "sim.collide=false"),
    "first order": ("sim=first_order",),
    "constant velocity": ("sim=constant_velocity",),
    "rigid flight": ("sim=ballistic",),
}
UNTRAINED = ("constant velocity", "rigid flight")
# Optimiser steps an epoch that take about four minutes in all, without validation, on one core of the machine in the
# results files; steps of more frames than one take twice as long for the graph networks.
STEPS = {
    2: {"sim=eqcollide": 105, "sim=twin": 110, "sim=first_order": 105, "sim=gns": 280, "sim=meshgraphnets": 270,
        "sim=egnn": 330, "sim=segno": 345},
    3: {"sim=eqcollide": 72, "sim=twin": 66, "sim=first_order": 58, "sim=gns": 236, "sim=meshgraphnets": 205,
        "sim=egnn": 250, "sim=segno": 266},
}  # fmt: skip
GRAPHS = {
    f"rate {rate}, {how}": (f"trainer.learning_rate={rate}", *words)
    for rate in (5e-4, 2e-3)
    for how, words in {
        "one step, noise 0.01": ("trainer.unroll=[1]", "trainer.noise=0.01"),
        "one step, noise 0.003": ("trainer.unroll=[1]", "trainer.noise=0.003"),
        "1, 2, 4 steps": ("trainer.unroll=[1,2,4]", "trainer.noise=0"),
    }.items()
}
POINTS = {f"rate {rate}": (f"trainer.learning_rate={rate}",) for rate in (1e-3, 3e-3)}
TUNED = {"EqCollide-style": POINTS, "twin": POINTS, "first order": POINTS}
TUNED |= {arm: GRAPHS for arm in ("GNS", "MeshGraphNets", "EGNN", "SEGNO")}
TUNING_SEED = 100


@dataclass(frozen=True)
class Test:
    """Scenes that simulators are judged on."""

    settings: dict[str, Any]
    frames: int = FRAMES
    scenes: int = 16


def tests(dim: int) -> dict[str, Test]:
    usual = SceneSettings(dim).usual_spacing
    density = 2 ** (1 / dim)
    return {
        "as trained": Test({}, scenes=32),
        "2x horizon": Test({}, 2 * FRAMES + 1),
        "4x horizon": Test({}, 4 * FRAMES),
        "2x bodies": Test({"bodies": (4, 6)}),
        "4x bodies": Test({"bodies": (8, 12)}),
        "unseen shapes": Test({"kinds": UNSEEN[dim]}),
        "half density": Test({"spacing": usual * density}),
        "double density": Test({"spacing": usual / density}),
    }


@dataclass(frozen=True)
class Case:
    arm: str
    dim: int
    seed: int
    longer: int = 1  # times as many steps
    tuned: str = ""  # one of the ways to train of TUNED

    @property
    def name(self) -> str:
        words = f"sim-{self.arm}-{self.dim}d-{self.seed}" + (f"-x{self.longer}" if self.longer > 1 else "")
        words += f"-{self.tuned}" if self.tuned else ""
        return "".join(c if c.isalnum() or c == "-" else "_" for c in words)

    @property
    def folder(self) -> Path:
        return ROOT / "runs" / self.name

    @property
    def overrides(self) -> list[str]:
        sim = ARMS[self.arm][0]
        steps = STEPS[self.dim].get(sim, 1) * self.longer
        more = [f"env=soft_bodies_{self.dim}d", f"seed={self.seed}", f"trainer.epochs={EPOCHS}"]
        more += [f"trainer.steps_per_epoch={steps}", "evaluation.recording=false"]
        if not self.tuned:
            return [*ARMS[self.arm], *more]
        if "trainer.unroll=[1,2,4]" in TUNED[self.arm][self.tuned]:
            more.append(f"trainer.steps_per_epoch={steps // 2}")
        more += [f"trainer.epochs={EPOCHS // 2}", "evaluation.scenes=1", "evaluation.seed=2600000"]  # half the budget
        return [*ARMS[self.arm], *more, *TUNED[self.arm][self.tuned]]


def test_scenes(dim: int, console: Console) -> dict[str, list[Any]]:
    """The scenes of every test, simulated when they are missing."""
    return {
        name: dataset(replace(SceneSettings(dim), **own.settings), own.scenes, own.frames, TEST_SEED, 0, console)
        for name, own in tests(dim).items()
    }


def collect_training(dim: int, console: Console) -> None:
    """The trajectories of all runs, once, by all cores."""
    data = SimDataConfig()
    for count, seed in ((data.trajectories, data.seed), (data.validation, VALIDATION_SEED + data.seed)):
        dataset(SceneSettings(dim), count, data.frames, seed, 0, console)


def evaluate(case: Case, scenes: dict[str, list[Any]], jobs: int, console: Console) -> list[Row]:
    """Train the run of a case unless it is finished, and judge it unless that is done; a row for every test."""
    summary = train(case.name, case.overrides, jobs)
    done = case.folder / "judged.json"
    if done.exists():
        return json.loads(done.read_text())
    torch.set_num_threads(1)
    model = load(case.folder / "simulator.pt")
    training = summary["training"]
    labels = {"sim": case.arm, "dim": case.dim, "seed": case.seed, "times": case.longer}
    labels |= {"parameters": training["parameters"], "fit_seconds": training.get("fit_seconds", 0.0)}
    labels |= {"steps": training.get("optimiser_steps", 0), "trained_at": summary["commit"]}
    rows = [{**labels, "test": name, **judge(model, own, console)} for name, own in scenes.items()]
    touching = [at_impact(trajectory) for trajectory in scenes["as trained"][:4]]
    rows[0]["equivariance_float32"] = equivariance_error(model, touching, 1)
    rows[0]["equivariance_float64"] = equivariance_error(model.double(), touching, 1)
    atomic_write(done, json.dumps(rows).encode())
    return rows


def curve(case: Case) -> list[Row]:
    """Validation errors of a run over time, if it was trained."""
    path = case.folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        points = [row for row in csv.DictReader(file) if row.get("val/rollout_mse")]
    sim = f"{case.arm}: {case.tuned}" if case.tuned else case.arm
    labels = {"sim": sim, "dim": case.dim, "seed": case.seed, "times": case.longer}
    return [{**labels, "step": int(row["step"]) + 1, "mse": float(row["val/rollout_mse"])} for row in points]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["accuracy", "longer", "cost"])
    parser.add_argument("--dims", nargs="+", type=int, choices=[2, 3], default=[2, 3])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    options = parser.parse_args()
    if unknown := set(options.parts) - {"tune", "accuracy", "longer", "cost"}:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose of tune, accuracy, longer and cost")
    console = Console()
    for dim in options.dims:
        for part in options.parts:
            if part == "cost":
                models = {arm: Case(arm, dim, 0).folder / "simulator.pt" for arm in options.arms}
                write_results(HERE / f"results/cost-{dim}d.json", [0], cost_rows(dim, models))
                continue
            scenes = {} if part == "tune" else test_scenes(dim, console)
            collect_training(dim, console)
            trained = [arm for arm in options.arms if arm not in UNTRAINED]
            if part == "tune":
                cases = [Case(arm, dim, TUNING_SEED, tuned=way) for arm in options.arms for way in TUNED.get(arm, ())]
            elif part == "accuracy":
                cases = [Case(arm, dim, seed) for seed in options.seeds for arm in trained]
                cases += [Case(arm, dim, 0) for arm in options.arms if arm in UNTRAINED]
            else:
                cases = [Case(arm, dim, 0, 4) for arm in trained]

            def write(rows: dict[Case, list[Row]], part: str = part, dim: int = dim) -> None:
                seeds = [TUNING_SEED] if part == "tune" else options.seeds
                curves = [row for case in rows for row in curve(case)]
                write_results(HERE / f"results/curves_{part}-{dim}d.json", seeds, curves, ("sim", "seed"))
                judged = [row for own in rows.values() for row in own]
                if judged:
                    write_results(HERE / f"results/{part}-{dim}d.json", seeds, judged, ("sim", "seed"))

            def do(case: Case, scenes: dict[str, list[Any]] = scenes) -> list[Row]:
                if case.tuned:
                    train(case.name, case.overrides, options.jobs)
                    return []
                return evaluate(case, scenes, options.jobs, Console(quiet=True))

            in_parallel(cases, options.jobs, do, write)


if __name__ == "__main__":
    main()
