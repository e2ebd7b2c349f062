"""The loop of planning by views as a user runs it: killed and gone on with, every arm, bad input."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, SMALL, program

QUICK = [
    "env=view_planning", "view=graph_distillation", "view.iterations=2", "env.rooms=2", "env.dev_rooms=1",
    "env.test_rooms=1", "env.image_size=32", "view.rollouts=16", "view.rounds=2", "view.last_rounds=1", "view.group=4",
    "view.records=100", "trainer.epochs=1", "trainer.steps_per_epoch=4", "trainer.base_epochs=1",
    "trainer.batch_size=4", "evaluation.episodes=8", "evaluation.items=8", "trainer.threads=1",
]  # fmt: skip


def test_a_killed_loop_goes_on_as_if_nothing_had_been(tmp_path):
    program("train.py", *QUICK, "name=whole", cwd=tmp_path)
    whole = tmp_path / "runs/whole"
    summary = json.loads((whole / "summary.json").read_text())
    assert set(summary["scores"]) == {"trained", "iteration 1", "iteration 2"}
    assert summary["scores"]["trained"]["episodes"] == 8
    assert (whole / "iteration_2/graphs/room_0.npz").exists()
    assert list(whole.glob("iteration_2/distilled/wandb/*/*.wandb"))
    command = [sys.executable, str(ROOT / "train.py"), *QUICK, "name=killed", "wandb=off"]
    killed = tmp_path / "runs/killed"
    for phase in ("iteration_1/explore/epoch_0.npz", "iteration_1/records.json"):  # in reinforcement, and after it
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
            while not (killed / phase).exists():
                assert process.poll() is None and time.sleep(0.02) is None, (tmp_path / "log").read_text()
            process.send_signal(signal.SIGKILL)
            process.wait()
    before = (killed / "iteration_1/explore/epoch_0.npz").stat().st_mtime_ns
    program("train.py", *QUICK, "name=killed", "wandb=off", cwd=tmp_path)
    assert (killed / "iteration_1/explore/epoch_0.npz").stat().st_mtime_ns == before  # not repeated
    one, two = (torch.load(folder / "agent.pt", weights_only=True)["weights"] for folder in (whole, killed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (killed / "recording.rrd").stat().st_size > 10_000 and (killed / "episode_test.png").exists()
    program("view.py", "run=runs/killed", "split=test", "--save", "seen.rrd", cwd=tmp_path)
    assert (tmp_path / "seen.rrd").exists()
    out = program("export.py", "run=runs/killed", "out=vlm", "iteration=1", cwd=tmp_path)
    assert "examples" in out.stdout and (tmp_path / "vlm/sharegpt.json").exists()
    out = program("evaluate.py", "run=runs/killed", cwd=tmp_path, check=False)
    assert out.returncode == 2 and "is the run of a view planner" in out.stderr
    more = ["evaluation.recording=false", "evaluation.export=false", "evaluation.episodes=0", "wandb=off"]
    policy = [*SMALL, *more, "trainer.views=runs/killed", "trainer.view_epochs=1", "name=taught"]
    out = program("train.py", *policy, cwd=tmp_path)  # its records teach the encoder of a policy
    assert "pretraining" in out.stdout and (tmp_path / "runs/taught/pretrained.pt").exists()
    out = program("train.py", *policy, "trainer.views=runs/taught", "name=n", cwd=tmp_path, check=False)
    assert out.returncode == 2 and "trainer.views=runs/taught is not a run of planning by views" in out.stderr


def test_every_arm_runs_and_they_are_compared(tmp_path):
    arms = "ppo,bootstrapping,hindsight,random_graph"
    words = [word for word in QUICK if not word.startswith(("view=", "view.iterations"))]
    out = program("train.py", "-m", f"view={arms}", *words, "view.iterations=1", "wandb=off", cwd=tmp_path)
    assert "comparison" in out.stdout
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=view_planning"], "add view=graph_distillation"),
        (["env=view_planning_large"], "add view=graph_distillation"),
        (["view=ppo", "env=corridor"], "corridor"),
        (["view=ppo", "view.rollouts=7"], "view.rollouts=7 must be a multiple of 4"),
        (["view=ppo", "env.moves=[5,2]"], "env.moves=[5, 2]"),
        (["view=ppo", "env.pieces=[0,0]"], "a scene needs furniture"),
        (["view=ppo", "trainer.devices=2", "trainer.accelerator=cpu"], "one process"),
        (["view=ppo", "view.init=nowhere.pt"], "no agent at nowhere.pt"),
        (["view=ppo", "trainer.batch_size=3"], "trainer.batch_size=3 must be at least 4"),
        (["view=ppo", "trainer.rl_learning_rate=-1"], "trainer.rl_learning_rate=-1.0 must be > 0"),
    ],
)
def test_bad_input_is_named_before_long_work(tmp_path, words, message):
    out = program("train.py", *words, cwd=tmp_path, check=False)
    assert out.returncode == 2 and message in out.stderr and len(out.stderr.strip().splitlines()) == 1, out.stderr
