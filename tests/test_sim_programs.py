"""train.py sim=...: a run is whole, goes on after a kill, and is compared with others; bad input is named."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, program

from trace_il.checkpoint import read_checkpoint

QUICK = [
    "sim=eqcollide", "data.trajectories=6", "data.validation=2", "data.frames=20", "data.batch_size=2",
    "trainer.epochs=4", "trainer.steps_per_epoch=3", "trainer.unroll=[2,4]", "evaluation.scenes=2",
    "parallel.workers=2", "trainer.threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulators")
    program("train.py", *QUICK, "name=whole", cwd=folder)
    return folder


def test_a_run_is_whole_and_shown(place):
    run = place / "runs/whole"
    for name in ("simulator.pt", "summary.json", "recording.rrd", "rollout.mp4", "strip.png", "metrics.csv"):
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    assert summary["training"]["optimiser_steps"] == 12 and summary["scores"]["trained"]["scenes"] == 2
    assert "is finished" in program("train.py", *QUICK, "name=whole", cwd=place).stdout
    program("view.py", "run=runs/whole", "seed=2000003", "--save", "other.rrd", cwd=place)
    assert (place / "other.rrd").stat().st_size > 10_000


def test_a_killed_run_goes_on_as_if_nothing_had_been(place):
    command = [sys.executable, str(ROOT / "train.py"), *QUICK, "name=killed", "evaluation.recording=false", "wandb=off"]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = place / "runs/killed/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    out = program("train.py", *command[2:], cwd=place)
    assert "continuing" in out.stdout
    states = [
        read_checkpoint(place / f"runs/{name}/checkpoints/last.ckpt")["state_dict"] for name in ("whole", "killed")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_simulators_are_compared(place):
    words = [word for word in QUICK if not word.startswith("sim=")]
    out = program("train.py", "-m", "sim=ballistic,constant_velocity", *words, "evaluation.recording=false", cwd=place)
    assert "comparison" in out.stdout and "soft_bodies_2d-ballistic-0" in out.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=soft_bodies_2d"], "add sim=eqcollide"),
        (["sim=magic"], "magic"),
        (["sim=eqcollide", "memory=gru"], "memory"),
        (["sim=eqcollide", "env=corridor"], "corridor"),
        (["sim=eqcollide", "env.world=moon"], "moon"),
        (["sim=eqcollide", "env.bodies=[60,60]"], "at most 5000 fit"),
        (["sim=eqcollide", "env.bodies=[0,2]"], "at least 1"),
        (["sim=eqcollide", "sim.control_points=3"], "control_points must be at least 4"),
        (["sim=eqcollide", "trainer.unroll=[99]"], "trainer.unroll=[99]"),
        (["sim=eqcollide", "trainer.noise=-1"], "trainer.noise=-1"),
        (["sim=eqcollide", "sim.control_points=200"], "200 control points are asked for"),
        (["sim=eqcollide", "sim.integrator=verlet"], "integrator must be one of"),
        (["sim=first_order", "sim.integrator=rk4"], "integrated with euler, got 'rk4'"),
        (["sim=first_order", "env.world=box"], "know no gravity, drag or walls"),
        (["sim=eqcollide", "evaluation.seed=2500"], "training and evaluation would draw the same scenes"),
        (["sim=eqcollide", "parallel.ray_address=auto"], "trajectories are made on this machine"),
        (["sim=egnn", "sim.layers=0"], "sim.layers=0 must be at least 1"),
        (["sim=eqcollide", "seed=-1"], "seed=-1 must lie in [0, 2^32)"),
        (["sim=eqcollide", "trainer.precision=bf16-mixed"], "half precision"),
    ],
)
def test_bad_input_is_named_before_long_work(tmp_path, words, message):
    out = program("train.py", *words, cwd=tmp_path, check=False)
    assert out.returncode == 2 and message in out.stderr and len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert not (tmp_path / "data").exists()
