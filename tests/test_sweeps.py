"""Several runs of one command, or of one launcher."""

import os
import subprocess
import sys

from conftest import ROOT, SMALL, program


def test_sweep_compares_memories(workplace):
    arguments = [*SMALL, "trainer.epochs=1", "evaluation.recording=false", "evaluation.export=false"]
    arguments += ["evaluation.cleared=false", "trainer.closed_loop_every=1"]
    out = program("train.py", "-m", "memory=none,retrieval", *arguments, cwd=workplace, timeout=600)
    assert "comparison" in out.stdout and "corridor-none-0" in out.stdout and "corridor-retrieval-0" in out.stdout
    for memory in ("none", "retrieval"):  # each has a run of its own in wandb, too
        assert len(list((workplace / f"runs/corridor-{memory}-0/wandb").glob("offline-run-*"))) == 1
    header = (workplace / "runs/corridor-retrieval-0/metrics.csv").read_text().splitlines()[0]
    assert {"closed_loop/progress", "val/action_error", "val/imitation"} <= set(header.split(","))


def test_a_sweep_goes_on_where_one_of_its_runs_fails(workplace):
    tail = ["evaluation.recording=false", "evaluation.export=false", "wandb=off", "trainer.gradient_clip=0"]
    swept = ["trainer.learning_rate=1e9,1e-3", "name='wilder-${trainer.learning_rate}'"]
    out = program("train.py", "-m", *SMALL, *tail, *swept, cwd=workplace, check=False)
    assert out.returncode == 2 and "training has diverged" in out.stderr and "1 of the runs failed" in out.stderr
    assert (workplace / "runs/wilder-0.001/summary.json").exists()
    # The same name at another rate: nothing of what has diverged stays.
    program("train.py", *SMALL, *tail, "trainer.learning_rate=1e-3", "name=wilder-1000000000.0", cwd=workplace)
    ours, other = ((workplace / f"runs/wilder-{rate}/metrics.csv").read_text() for rate in ("1000000000.0", "0.001"))
    assert ours == other


def test_every_process_of_a_launcher_may_be_a_run_of_its_own(workplace):
    """srun -n 4 starts four programs, of which each is told that it is one of four."""
    env = {**os.environ, "SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2", "SLURM_JOB_NAME": "runs"}
    words = [*SMALL, "name=third", "evaluation.recording=false", "evaluation.export=false", "wandb=off"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    out = subprocess.run(command, cwd=workplace, env=env, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stdout + out.stderr
    assert (workplace / "runs/third/summary.json").exists() and (workplace / "runs/third/metrics.csv").exists()


def test_runs_of_a_sweep_have_names_of_their_own(tmp_path):
    swept = program("train.py", "-m", "trainer.learning_rate=1e-3,1e-4", *SMALL, cwd=tmp_path, check=False)
    assert swept.returncode == 2 and "name='NAME-${trainer.learning_rate}'" in swept.stderr
    assert not list(tmp_path.iterdir())  # nothing was begun
