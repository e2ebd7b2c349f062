"""The programs as a user runs them: subprocesses, on the run that `workplace` trained."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import ROOT, SMALL, program

from trace_il.config import (
    ACTConfig,
    GRUConfig,
    TraceConfig,
    TrainConfig,
    from_plain,
    to_plain,
)
from trace_il.env_config import CorridorConfig, DelayedEvidenceConfig
from trace_il.options import read_run
from trace_il.run_folder import open_run, phase, read_about
from trace_il.scores import commit


def test_run_folder_is_complete(workplace):
    run = workplace / "runs/small"
    for name in (
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "policy.ts",
        "policy.json",
        "recording.rrd",
        "strip.png",
    ):
        assert (run / name).stat().st_size > 0, name
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert list((run / "videos").glob("*.mp4")) and list((run / "wandb").glob("offline-run-*"))
    summary = json.loads((run / "summary.json").read_text())
    # One camera: each image is encoded once, once more for the memory in the second half of training, and only the
    # padding of shorter episodes is encoded in vain.
    assert 1.5 <= summary["training"]["images_encoded_per_sample"] < 1.8
    assert summary["training"]["optimiser_steps"] == 6
    assert set(summary["scores"]) == {"trained", "memory cleared"}
    for score in summary["scores"].values():
        assert score["episodes"] == 3 and 0 <= score["branch_interval"][0] <= score["branch_interval"][1] <= 1
    assert set(summary["seconds"]) == {"demonstrations", "training", "evaluation", "recording", "export"}
    assert max(summary["export"]["max_error"].values()) <= 1e-5


def test_finished_run_is_reported_not_repeated(workplace):
    before = (workplace / "runs/small/checkpoints/last.ckpt").stat().st_mtime_ns
    out = program("train.py", *SMALL, "name=small", cwd=workplace)
    assert "is finished" in out.stdout
    assert (workplace / "runs/small/checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_exported_policy_scores_like_the_checkpoint(workplace):
    seeds = ["episodes=2", "workers=1", "seed=77"]
    program("evaluate.py", "run=runs/small", *seeds, "videos=1", "out=by_checkpoint", cwd=workplace)
    program("export.py", "run=runs/small", cwd=workplace)
    program("evaluate.py", "policy=runs/small/policy.ts", *seeds, "out=by_export", cwd=workplace)
    rows = [
        json.loads((workplace / out).read_text())["rows"]
        for out in (
            "by_checkpoint/evaluation_seed_77_episodes_2.json",
            "by_export/evaluation_exported_seed_77_episodes_2.json",
        )
    ]
    assert rows[0] == rows[1]
    assert (workplace / "by_checkpoint/videos_seed_77_episodes_2/seed_77.mp4").stat().st_size > 0


ALONE = """
import sys, json, torch
for name in ("trace_il", "envs", "lightning", "gymnasium", "mujoco"):
    sys.modules[name] = None        # importing any of them now fails
policy = torch.jit.load(sys.argv[1])
about = json.loads(policy.metadata_json())
policy.reset()
height, width = about["image_size"]
for step in range(2 * about["tick_every"] + 1):  # as a robot's loop, without torch.no_grad()
    images = torch.randint(0, 256, (1, len(about["cameras"]), height, width, 3), dtype=torch.uint8)
    action = policy.step(images, torch.full((1, len(about["state_names"])), 0.01 * step))
assert action.numpy().shape == (1, len(about["action_names"])) and torch.isfinite(action).all()
assert not policy.slots.requires_grad and (about["run"], about["checkpoint"]) == ("small", "last")
policy.observe(images, torch.zeros(1, len(about["state_names"])))
print(json.dumps(sorted(about)))
"""


def test_exported_policy_needs_torch_alone(workplace, tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", ALONE, str(workplace / "runs/small/policy.ts")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    fields = {
        "action_high",
        "action_low",
        "cameras",
        "control_hz",
        "depth",
        "dtype",
        "explicit_state",
        "image",
        "image_size",
    }
    fields |= {
        "memory_tick",
        "parity_and_latency",
        "signature",
        "state_names",
        "statistics",
        "tick_every",
        "units",
        "warm_up_steps",
    }
    assert fields <= set(json.loads(out.stdout))


def test_killed_training_continues_to_the_same_weights(workplace):
    """SIGKILL after an epoch, the same command again: equal to a run that was never interrupted."""
    arguments = [
        *SMALL,
        "trainer.epochs=12",
        "trainer.threads=1",
        "evaluation.episodes=0",
        "evaluation.recording=false",
    ]
    arguments += ["evaluation.export=false", "wandb=off", "agent.address_dropout=0.3"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments, "name=killed"], cwd=workplace, stdout=subprocess.DEVNULL
    )
    last = workplace / "runs/killed/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["global_step"] < 36
    assert "continuing" in program("train.py", *arguments, "name=killed", cwd=workplace).stdout
    assert "continuing" not in program("train.py", *arguments, "name=whole", cwd=workplace).stdout
    folders = [workplace / "runs" / name for name in ("whole", "killed")]
    one, two = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in folders)
    assert one["global_step"] == two["global_step"] == 36 and "episodes" in one["EpisodeDataModule"]
    for key in ("state_dict", "current_model_state"):  # averaged and raw weights
        for name, value in one[key].items():
            assert torch.equal(value, two[key][name]), name
    whole, killed = ((folder / "metrics.csv").read_text().splitlines() for folder in folders)
    assert whole == killed


def test_seconds_of_a_phase_add_up_over_processes_and_failures(tmp_path):
    config = TrainConfig(env=CorridorConfig(), memory=GRUConfig(), policy=ACTConfig(), name="one", runs=str(tmp_path))
    for _ in range(2):
        folder, _ = open_run(config)
        with pytest.raises(KeyboardInterrupt), phase(folder, "training"):
            time.sleep(0.2)
            raise KeyboardInterrupt
    about = read_about(folder)
    assert 0.4 <= about["seconds"]["training"] < 5 and about["commits"] == [commit()]


def test_every_process_knows_that_a_run_is_finished(workplace, monkeypatch):
    config, folder = read_run(str(workplace / "runs/small"))
    config.runs = str(folder.parent)
    monkeypatch.setenv("RANK", "1")
    assert open_run(config) == (folder, json.loads((folder / "summary.json").read_text()))
    config.name = "another"
    assert open_run(config) == (folder.parent / "another", None)


def test_two_processes_do_not_train_one_run(tmp_path):
    with (tmp_path / ".one.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = [*SMALL, f"runs={tmp_path}", "name=one", "wandb=off", "overwrite=true"]
        out = program("train.py", *words, cwd=tmp_path, check=False)
    assert out.returncode == 2 and "another process is at work on" in out.stderr


def test_nothing_is_deleted_that_other_processes_of_a_run_may_read(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/run.json").write_text("{}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = [*SMALL, f"runs={tmp_path}", "name=one", "wandb=off", "overwrite=true"]
    words += ["trainer.devices=2", "trainer.accelerator=cpu"]
    out = program("train.py", *words, cwd=tmp_path, check=False)
    assert out.returncode == 2 and "other processes of this run may read it" in out.stderr
    assert (tmp_path / "one/run.json").exists()


def test_two_processes_train_together(workplace):
    arguments = [*SMALL, "name=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.threads=1", "wandb=off"]
    arguments += ["trainer.precision=bf16-mixed", "data.batch_size=2", "evaluation.episodes=2"]
    arguments += ["evaluation.recording=false", "evaluation.export=false"]
    program("train.py", *arguments, cwd=workplace)
    summary = json.loads((workplace / "runs/ddp/summary.json").read_text())
    assert summary["training"]["optimiser_steps"] == 6


@pytest.mark.parametrize("env", ["corridor", "push_soft", "sort_soft"])
def test_every_policy_suits_an_environment_with_settings_of_its_own(env, tmp_path):
    for policy, own in (("act", "actions_per_query: 5"), ("diffusion", "actions_per_token: 5")):
        out = program("train.py", f"env={env}", f"policy={policy}", "--cfg", "job", cwd=tmp_path).stdout
        assert own in out and "chunk: 20" in out


def test_scores_under_other_conditions_stand_beside_the_usual_ones(workplace):
    for words in ([], ["env.delay=30"], ["cleared=true"], ["checkpoint=best"], ["seed=77"]):
        program("evaluate.py", "run=runs/small", "episodes=2", "workers=1", "out=scores", *words, cwd=workplace)
    names = {path.name for path in (workplace / "scores").glob("*.json")}
    others = {"", "cleared_", "checkpoint_best_", "seed_77_"}
    slow = "evaluation_episodes_2_env.delay_30.json"
    assert names == {slow, *(f"evaluation_{other}episodes_2.json" for other in others)}
    assert json.loads((workplace / "scores" / slow).read_text())["env_options"]["delay"] == 30


def test_a_diverged_training_ends_with_the_reason(workplace):
    words = [*SMALL, "name=wild", "trainer.learning_rate=1e9", "trainer.gradient_clip=0", "wandb=off"]
    out = program("train.py", *words, cwd=workplace, check=False)
    assert out.returncode == 2 and "training has diverged" in out.stderr


def test_training_can_begin_with_the_weights_of_another_run(workplace):
    more = ["wandb=off", "evaluation.episodes=0", "evaluation.recording=false", "evaluation.export=false"]
    start = "trainer.init=runs/small/checkpoints/last.ckpt"
    program("train.py", *SMALL, *more, "name=warm", start, "trainer.learning_rate=1e-9", cwd=workplace)
    objectives = ["trainer.residual=0.5", "trainer.distillation=0.1", "trainer.recall=1", "memory.gate_span=2"]
    program("train.py", *SMALL, *more, "name=objectives", *objectives, cwd=workplace)

    def held_out(name: str) -> float:
        return json.loads((workplace / f"runs/{name}/summary.json").read_text())["training"]["held_out"]["imitation"]

    assert held_out("warm") == pytest.approx(held_out("small"), rel=1e-3)
    assert held_out("objectives") != pytest.approx(held_out("small"), rel=1e-3)


def test_configuration_round_trip():
    config = TrainConfig(env=DelayedEvidenceConfig(task="book"), memory=GRUConfig(), name="x")
    from trace_il.config import ACTConfig

    config.policy = ACTConfig(chunk=50)
    assert from_plain(yaml.safe_load(yaml.safe_dump(to_plain(config)))) == config
    assert TraceConfig().name == "trace" and CorridorConfig().id == "Corridor-v0"
