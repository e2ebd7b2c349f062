"""An environment of one's own, with an expert or with a recorded dataset, and a dataset alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, SMALL, program

from trace_il.config import (
    from_plain,
)
from trace_il.data.reader import DatasetReader
from trace_il.errors import UserError
from trace_il.preflight import check_environment

OWN = """
import gymnasium, numpy as np
from envs.base import ExpertAction

class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict({{
        "pixels": gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8),
        "agent_pos": gymnasium.spaces.Box(-1, 1, (1,), np.float32),
    }})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.5, 0.5, 1)
        self.steps = 0
        return self.look(), {{}}

    def look(self):
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:, int(16 + 15 * self.place[0])] = 255
        return {{"pixels": picture, "agent_pos": self.place.astype(np.float32)}}

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * action, -1, 1)
        self.steps += 1
        return self.look(), 0.0, False, self.steps == 30, {{"is_success": bool(abs(self.place[0]) < 0.1)}}
{expert}
gymnasium.register("Reach-v0", entry_point=Reach, disable_env_checker=True)
"""
EXPERT = """
    def make_expert(self, disturbance=0.0):
        env = self
        class Expert:
            def action(self):
                action = np.clip(-2 * env.place, -1, 1).astype(np.float32)
                return ExpertAction(action, action)
        return Expert()
"""


def test_an_environment_of_ones_own_collects_with_its_expert_and_says_when_there_is_none(workplace):
    arguments = [a for a in SMALL if not a.startswith("env")] + ["wandb=off", "policy.chunk=20", "data.episodes=4"]
    for name, expert in (("reach_module", EXPERT), ("bare_module", "")):
        (workplace / f"{name}.py").write_text(OWN.format(expert=expert))
    env = {**os.environ, "PYTHONPATH": str(workplace)}

    def run(module: str, *more: str) -> subprocess.CompletedProcess:
        words = [sys.executable, str(ROOT / "train.py"), "env=gym", f"env.id={module}:Reach-v0", f"name={module}"]
        words += [*arguments, *more]
        return subprocess.run(words, cwd=workplace, env=env, capture_output=True, text=True, timeout=300)

    bare = run("bare_module")
    assert bare.returncode == 2 and "has no expert (make_expert); give data.root" in bare.stderr
    own = run("reach_module")
    assert own.returncode == 0, own.stdout + own.stderr
    assert json.loads((workplace / "runs/reach_module/summary.json").read_text())["scores"]["trained"]["episodes"] == 3
    # The same demonstrations as if recorded elsewhere, with names that the environment does not know.
    recorded = workplace / "recorded_reach"
    shutil.copytree(next((workplace / "data").glob("reach-*")), recorded)
    (recorded / "meta/trace_il.json").unlink()
    info = json.loads((recorded / "meta/info.json").read_text())
    info["features"]["action"]["names"] = info["features"]["observation.state"]["names"] = ["elbow"]
    (recorded / "meta/info.json").write_text(json.dumps(info))
    first = run("bare_module", f"data.root={recorded}", "agent.relative=[elbow]")
    assert first.returncode == 0, first.stdout + first.stderr
    start = "trainer.init=runs/bare_module/checkpoints/last.ckpt"
    second = run("bare_module", f"data.root={recorded}", "agent.relative=[elbow]", "name=second", start)
    assert second.returncode == 0, second.stdout + second.stderr
    shutil.rmtree(workplace / "runs/bare_module")  # what a run began with it needs no more
    again = run("bare_module", f"data.root={recorded}", "agent.relative=[elbow]", "name=second", start)
    assert again.returncode == 0 and "is finished" in again.stdout


def test_any_environment_with_a_recorded_dataset(workplace, monkeypatch):
    """env=gym: nothing of ours is known of the environment but its Gymnasium id."""
    data = workplace / "recorded"
    shutil.copytree(next((workplace / "data").glob("corridor-*")), data)
    (data / "meta/trace_il.json").unlink()  # as somebody else's
    info = json.loads((data / "meta/info.json").read_text())
    arguments = ["env=gym", "env.id=envs:Corridor-v0", "+env.options.delay=20", f"data.root={data}", "policy.chunk=20"]
    arguments += [*[a for a in SMALL if not a.startswith("env")], "wandb=off"]
    taken = program("train.py", *arguments, "data.episodes=6", cwd=workplace)
    assert "2 of 8 episodes are not used" in " ".join(taken.stdout.split())
    summary = json.loads((workplace / "runs/corridor-trace-0/summary.json").read_text())
    assert summary["scores"]["trained"]["episodes"] == 3 and summary["training"]["train_episodes"] == 5
    program("evaluate.py", "policy=runs/corridor-trace-0/policy.ts", "episodes=2", cwd=workplace)
    (data / "meta/info.json").write_text(json.dumps(info | {"fps": 50}))
    refused = program("train.py", *arguments, "name=faster", cwd=workplace, check=False)
    assert refused.returncode == 2 and "recorded at 50 Hz" in refused.stderr
    (data / "meta/info.json").write_text(json.dumps(info))  # nothing was trained yet: other settings may take the name
    reader = DatasetReader(data)
    reader.actions[0][:] = 90.0  # degrees, say
    with monkeypatch.context() as patch, pytest.raises(UserError, match="lie outside the environment's limits"):
        patch.chdir(workplace)
        check_environment(from_plain(yaml.safe_load(Path("runs/corridor-trace-0/config.yaml").read_text())), reader)
    more = ["trainer.learning_rate=1e-4", "evaluation.episodes=0", "evaluation.recording=false"]
    program("train.py", *arguments, *more, "evaluation.export=false", "name=faster", cwd=workplace)


def test_a_recorded_dataset_is_enough_for_an_exported_policy(workplace):
    """env=recorded: no environment, as of a robot that there is no simulator of."""
    data = workplace / "robot"
    shutil.copytree(next((workplace / "data").glob("corridor-*")), data)
    (data / "meta/trace_il.json").unlink()
    words = [a for a in SMALL if not a.startswith(("env", "evaluation"))]
    words += ["env=recorded", f"data.root={data}", "policy.chunk=20", "wandb=off"]
    out = program("train.py", *words, cwd=workplace)
    assert "error of the actions of held-out demonstrations" in " ".join(out.stdout.split())
    run = workplace / "runs/recorded-trace-0"
    about, actions = json.loads((run / "policy.json").read_text()), np.concatenate(DatasetReader(data).actions)
    np.testing.assert_allclose(about["action_low"], actions.min(0))
    np.testing.assert_allclose(about["action_high"], actions.max(0))
    assert about["control_hz"] == 10 and about["parity_and_latency"]["steps"] > 40
    assert (run / "recording.rrd").stat().st_size > 0
    for more, message in (
        (["train.py", *words, "evaluation.episodes=3", "name=n"], "evaluation.episodes=3 needs an environment"),
        (["train.py", "env=recorded"], "env=recorded needs data.root="),
        (["evaluate.py", f"policy={run}/policy.ts"], "was trained on a recorded dataset alone"),
    ):
        refused = program(*more, cwd=workplace, check=False)
        assert refused.returncode == 2 and message in refused.stderr
