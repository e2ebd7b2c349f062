"""Shared fixtures: one small corridor dataset and one briefly trained run for the whole session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("WANDB_MODE", "offline")
torch.set_num_threads(1)  # products are small here; two threads would wait for each other
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Cores of its own for each worker and the programs that it runs, which take a thread for each core they may use:
    # threads of two programs on the same cores spin against each other, and both become many times slower.
    cores, worker = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    count = min(len(cores), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.sched_setaffinity(0, cores[worker % count :: count])

SMALL = [
    "env=corridor",
    "env.delay=20",
    "data.episodes=8",
    "data.batch_size=4",
    "trainer.epochs=2",
    "trainer.steps_per_epoch=3",
    "evaluation.episodes=3",
    "evaluation.videos=1",
    "parallel.workers=1",
    "policy.width=32",
    "policy.feedforward=32",
]


def program(
    name: str, *arguments: str, cwd: Path, timeout: float = 300, check: bool = True
) -> subprocess.CompletedProcess:
    """Run one of the command-line programs as a user would, in folder `cwd`."""
    out = subprocess.run(
        [sys.executable, str(ROOT / name), *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    assert not check or out.returncode == 0, out.stdout + out.stderr
    return out


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and runs/small, made by `python train.py` in its smallest form."""
    folder = tmp_path_factory.mktemp("workplace")
    program("train.py", *SMALL, "name=small", cwd=folder)
    (folder / "demonstrations").symlink_to(next((folder / "data").glob("corridor-*")))
    (folder / "config.yaml").write_text("")  # where a folder might be expected
    return folder
