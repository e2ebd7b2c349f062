"""Base policies without a memory on MetaWorld, beside published scores: python experiments/reference/run.py

MetaWorld pins an older MuJoCo, so it has a virtual environment of its own, .venv-metaworld, which this command makes:
it sees the packages of the present one, with MetaWorld and its MuJoCo before them. Demonstrations are by MetaWorld's
scripted policies, ten a task as in the published experiment. Runs are train.py with memory=none; finished ones are not
repeated. Writes results/metaworld.json; `python experiments/report.py reference` makes the table and the plot.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import ROOT, Row, collect, in_parallel, score_rows, train  # noqa: E402

from trace_il.scores import write_results  # noqa: E402

# Success % of Diffusion Policy from pictures with 10 demonstrations, mean and spread over seeds: Ze et al. 2024,
# "3D Diffusion Policy", appendix, "Simulation results on each task". (Their environments are the version before.)
PUBLISHED = {
    "button-press-topdown-v3": "98 ± 1",
    "door-open-v3": "98 ± 3",
    "drawer-open-v3": "93 ± 3",
    "coffee-push-v3": "67 ± 4",
}
BIN = ROOT / ".venv-metaworld/bin/python"
Case = tuple[str, str, int]  # task, policy, seed


def install() -> None:
    """The virtual environment with MetaWorld, unless it is there."""
    done = BIN.parent.parent / "installed"
    if done.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", BIN.parent.parent], check=True)
    own = subprocess.run(
        [BIN, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    (Path(own.stdout.strip()) / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([BIN, "-m", "pip", "install", "-q", "metaworld==3.1.1"], check=True)
    done.touch()


def overrides(case: Case, demonstrations: int) -> list[str]:
    task, policy, seed = case
    words = ["env=gym", "env.id=metaworld_pixels:MetaWorldPixels-v0", f"+env.options.task={task}", "memory=none"]
    words += [f"policy={policy}", f"seed={seed}", f"data.episodes={demonstrations}", "trainer.teacher=none"]
    words += ["trainer.clear_share=0", "policy.chunk=20", "agent.tick_every=2", "trainer.epochs=30"]
    words += ["trainer.policy_shift=2"]
    words += ["policy.actions_per_query=5"] if policy == "act" else []
    return [*words, "evaluation.cleared=false", "evaluation.recording=false", "evaluation.export=false"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--policies", nargs="+", default=["act", "diffusion"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--demonstrations", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    install()
    sys.executable = str(BIN)  # the programs below run there
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT)])

    def do(case: Case) -> list[Row]:
        task, policy, seed = case
        summary = train(f"metaworld-{task}-{policy}-{seed}", overrides(case, options.demonstrations), options.jobs)
        labels = {"task": task, "policy": policy, "seed": seed, "demonstrations": options.demonstrations}
        return score_rows({**labels, "published": PUBLISHED[task]}, "none", summary)

    def write(rows: dict[Case, list[Row]]) -> None:
        lines = [row for own in rows.values() for row in own]
        write_results(HERE / "results/metaworld.json", options.seeds, lines, ("task", "policy", "seed"))

    for task in options.tasks:
        collect(overrides((task, "act", 0), options.demonstrations))
    cases = [(task, policy, seed) for seed in options.seeds for policy in options.policies for task in options.tasks]
    in_parallel(cases, options.jobs, do, write)


if __name__ == "__main__":
    main()
