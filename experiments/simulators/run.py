"""Learned simulators against each other: python experiments/simulators/run.py [speed] [tune] [accuracy] [longer] [cost]

    speed       seconds of one core that an optimiser step takes, of all ways to train that the other parts use; asked
                for by them, to be measured while nothing else runs
    tune        how each of them is trained best, by validation error alone; what is best stands in configs/sim
    accuracy    every simulator, trained for BUDGET seconds on the same trajectories, on scenes it has not seen
    longer      all of them trained four times as long, one seed: whether more time changes the order
    cost        milliseconds a frame against bodies, points and batch, and against the ground truth in the same run

Runs are `python train.py sim=...` with the settings of its row; finished ones are not repeated, interrupted ones
continue. Writes results/<part>-<dim>d.json; `python experiments/report.py simulators` makes tables and plots.
"""

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

import torch  # noqa: E402
from common import ROOT, Row, in_parallel, train  # noqa: E402
from rich.console import Console  # noqa: E402
from simulators.cost import cost_rows, speed_rows  # noqa: E402

from sims.build import load  # noqa: E402
from sims.metrics import at_impact, equivariance_error  # noqa: E402
from sims.scenes import UNSEEN, SceneSettings  # noqa: E402
from trace_il.files import atomic_write  # noqa: E402
from trace_il.scores import write_results  # noqa: E402
from trace_il.sim_config import VALIDATION_SEED, SimDataConfig  # noqa: E402
from trace_il.sim_pipeline import dataset, dataset_root, judge  # noqa: E402

FRAMES = 49
EPOCHS, VALIDATION = 12, 12  # of a training; trajectories that are predicted after each epoch
TEST_SEED = 9_000_000
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
BUDGET = 240.0  # s of one core that a training takes, without validation
SIZES = {"64 wide, 6 layers": ("sim.width=64", "sim.layers=6"), "32 wide, 4 layers": ("sim.width=32", "sim.layers=4")}
GRAPHS = {
    f"{size}, rate {rate}, {how}": (f"trainer.learning_rate={rate}", *own, *words)
    for size, own in SIZES.items()
    for rate in (5e-4, 2e-3)
    for how, words in {
        "one step, noise 0.01": ("trainer.unroll=[1]", "trainer.noise=0.01"),
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
    def words(self) -> list[str]:
        """What it is trained with, but for the number of steps."""
        way = TUNED[self.arm][self.tuned] if self.tuned else ()
        return [*ARMS[self.arm], f"env=soft_bodies_{self.dim}d", *way]

    @property
    def pace(self) -> str:
        """Which row of the measured speeds is its own."""
        return " ".join(word for word in self.words if not word.startswith("trainer.learning_rate"))

    @property
    def overrides(self) -> list[str]:
        more = [f"seed={self.seed}", "evaluation.recording=false", "trainer.threads=1"]
        more.append(f"data.validation={VALIDATION}")
        if self.tuned:
            more += ["evaluation.scenes=1", "evaluation.seed=2600000"]
        if self.arm in UNTRAINED:
            return [*self.words, *more]
        budget = BUDGET * self.longer / (2 if self.tuned else 1)
        epochs = EPOCHS // 2 if self.tuned else EPOCHS
        if self.pace not in (known := measured(self.dim)):
            raise SystemExit(
                f"error: how long a step of `{self.pace}` takes is not known; run "
                f"`python experiments/simulators/run.py speed --dims {self.dim} --arms '{self.arm}'`"
            )
        steps = max(1, round(budget / epochs / known[self.pace]))
        return [*self.words, *more, f"trainer.epochs={epochs}", f"trainer.steps_per_epoch={steps}"]


def measured(dim: int) -> dict[str, float]:
    """Seconds of one core that an optimiser step takes, by `Case.pace`."""
    path = HERE / f"results/speed-{dim}d.json"
    if not path.exists():
        raise SystemExit(f"error: {path} is missing; run `python experiments/simulators/run.py speed --dims {dim}`")
    records = json.loads(path.read_text())
    return {row["pace"]: row["cpu_seconds_per_step"] for record in records for row in record["rows"]}


def test_data(dim: int, name: str) -> tuple[SceneSettings, int, int, int]:
    """What the trajectories of a test are drawn from: settings, number, frames, first seed."""
    own = tests(dim)[name]
    return replace(SceneSettings(dim), **own.settings), own.scenes, own.frames, TEST_SEED


def test_scenes(dim: int, console: Console) -> dict[str, list[Any]]:
    """The scenes of every test, simulated when they are missing."""
    return {name: dataset(*test_data(dim, name), 0, console) for name in tests(dim)}


def collect_training(dim: int, console: Console) -> list[Any]:
    """The trajectories that all runs train on, simulated once, by all cores; and those of validation."""
    data, settings = SimDataConfig(), SceneSettings(dim)
    dataset(settings, VALIDATION, data.frames, VALIDATION_SEED + data.seed, 0, console)
    return dataset(settings, data.trajectories, data.frames, data.seed, 0, console)


def evaluate(case: Case, scenes: dict[str, list[Any]], jobs: int, console: Console) -> list[Row]:
    """Train the run of a case unless it is finished, and judge it unless that is done; a row for every test."""
    summary = train(case.name, case.overrides, jobs)
    done = case.folder / "judged.json"
    judged_by = last_change("sims/*.py", "trace_il/sim_pipeline.py", "experiments/simulators/*.py")
    if done.exists() and (found := json.loads(done.read_text()))["judged_by"] == judged_by:
        return found["rows"]
    torch.set_num_threads(1)
    model = load(case.folder / "simulator.pt")
    training = summary["training"]
    labels = {"sim": case.arm, "dim": case.dim, "seed": case.seed, "times": case.longer}
    labels |= {"parameters": training["parameters"], "fit_seconds": training.get("fit_seconds", 0.0)}
    labels |= {"cpu_seconds": training.get("cpu_seconds", 0.0), "steps": training.get("optimiser_steps", 0)}
    labels |= {"trained_at": ", ".join(summary["commits"]), "judged_by": judged_by}
    rows = []
    for name, own in scenes.items():
        about = json.loads((dataset_root(*test_data(case.dim, name)) / "complete.json").read_text())
        rows.append({**labels, "test": name, "rejected": about["rejected"], **judge(model, own, console)})
        rows[-1]["equivariance_floor"] = about["equivariance_floor_m"].get("rotation")
    touching = [at_impact(trajectory) for trajectory in scenes["as trained"][:4]]
    rows[0]["equivariance_float32"] = equivariance_error(model, touching, 1)
    rows[0]["equivariance_float64"] = equivariance_error(model.double(), touching, 1)
    atomic_write(done, json.dumps({"judged_by": judged_by, "rows": rows}).encode())
    return rows


def last_change(*paths: str) -> str:
    """The commit that last changed any of these paths. Exits where they have changes that no commit holds."""

    def git(*words: str) -> str:
        said = subprocess.run(["git", *words, "--", *paths], cwd=ROOT, check=True, capture_output=True, text=True)
        return said.stdout.strip()

    if changed := git("status", "--porcelain"):
        raise SystemExit(f"error: commit first, so that results can tell by which code they are judged: {changed}")
    return git("log", "-1", "--format=%h")


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
    if unknown := set(options.parts) - {"speed", "tune", "accuracy", "longer", "cost"}:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose of speed, tune, accuracy, longer and cost")
    console = Console()
    for dim in options.dims:
        for part in options.parts:
            if part == "speed":
                trajectories = collect_training(dim, console)
                ways = [Case(arm, dim, TUNING_SEED, tuned=way) for arm in options.arms for way in TUNED.get(arm, ())]
                ways += [Case(arm, dim, 0) for arm in options.arms if arm not in UNTRAINED]
                rows = speed_rows({case.pace: case.words for case in ways}, trajectories)
                write_results(HERE / f"results/speed-{dim}d.json", [TUNING_SEED], rows, ("pace",))
                continue
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
                seeds = sorted({case.seed for case in rows})
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
