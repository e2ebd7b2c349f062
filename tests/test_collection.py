"""Demonstrations are whole, the same whoever collects them, and never mixed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, program

from envs.corridor.env import CorridorEnv
from envs.delayed_evidence.tasks.medicine import Medicine
from sims.state import VERSION
from trace_il.data.collect import CollectSpec, collect, demonstrate
from trace_il.data.reader import DatasetReader
from trace_il.errors import UserError

SPEC = CollectSpec("Corridor-v0", {"delay": 15})


def test_demonstrations_of_an_older_version_of_a_task_are_not_used_again(monkeypatch):
    spec = CollectSpec("DelayedEvidence-v0", {"task": "medicine"})
    before = spec.digest()
    monkeypatch.setattr(Medicine, "version", 7)
    assert spec.digest() != before and spec.identity["version"] == 7
    soft = CollectSpec("SortSoft-v0", {}).identity["version"]
    monkeypatch.setattr("envs.deformable.env.VERSION", VERSION + 1)  # of the simulators
    assert CollectSpec("SortSoft-v0", {}).identity["version"] > soft > VERSION
    assert "version" not in SPEC.identity


def test_killed_collection_keeps_whole_episodes_and_continues(tmp_path):
    arguments = ["env=corridor", "env.delay=15", "data.root=d", "data.episodes=60", "parallel.workers=1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "collect.py"), *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    info = tmp_path / "d/meta/info.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (info.exists() and json.loads(info.read_text())["total_episodes"] >= 3):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = DatasetReader(tmp_path / "d")
    assert 3 <= len(before) < 60
    assert all(before.frames(n, "top").shape[0] == before.lengths[n] for n in range(len(before)))
    arguments[3] = f"data.episodes={len(before) + 2}"
    program("collect.py", *arguments, cwd=tmp_path)
    after = DatasetReader(tmp_path / "d")
    assert len(after) == len(before) + 2
    for number in range(len(after)):  # the same as in one go
        expected = demonstrate(SPEC, number // 2)[number % 2]
        np.testing.assert_array_equal(after.states[number], expected.states)


def test_a_scene_in_which_the_expert_fails_with_one_cue_is_shown_with_none(monkeypatch):
    """So that every scene of a dataset is there with every cue."""
    step = CorridorEnv.step

    def failing(self, action):
        observation, reward, terminated, truncated, info = step(self, action)
        return observation, reward, terminated, truncated, {**info, "is_success": info["is_success"] and self.lucky}

    def lucky(self, seed=None, options=None):
        self.lucky = seed != 1 or options["cue"] == 0
        return reset(self, seed=seed, options=options)

    whole = demonstrate(SPEC, 1)
    reset = CorridorEnv.reset
    monkeypatch.setattr(CorridorEnv, "step", failing)
    monkeypatch.setattr(CorridorEnv, "reset", lucky)
    other = demonstrate(SPEC, 1)
    assert [int(episode.annotations["cue"][0]) for episode in other] == [0, 1]
    assert not np.array_equal(other[0].states[:5], whole[0].states[:5])


def test_two_collections_at_once_make_one_dataset(tmp_path):
    words = [str(ROOT / "collect.py"), "env=corridor", "env.delay=15", "data.root=d", "data.episodes=8"]
    command = [sys.executable, *words, "parallel.workers=1"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("collected 8 demonstrations" in text for text in said) == 1
    assert len(DatasetReader(tmp_path / "d")) == 8


def test_parallel_collection_equals_serial(tmp_path):
    list(collect(tmp_path / "one", SPEC, 4, workers=1))
    list(collect(tmp_path / "two", SPEC, 4, workers=2))
    one, two = DatasetReader(tmp_path / "one"), DatasetReader(tmp_path / "two")
    for number in range(4):
        np.testing.assert_array_equal(one.actions[number], two.actions[number])
        np.testing.assert_array_equal(one.frames(number, "top"), two.frames(number, "top"))


def test_other_datasets_are_not_overwritten(tmp_path):
    next(collect(tmp_path / "e", SPEC, 1, workers=1))
    shutil.copytree(tmp_path / "e", tmp_path / "d")
    (tmp_path / "d/meta/trace_il.json").unlink()
    with pytest.raises(UserError, match="not collected here"):
        next(collect(tmp_path / "d", SPEC, 4, workers=1))
    with pytest.raises(UserError, match="was collected with"):
        next(collect(tmp_path / "e", CollectSpec("Corridor-v0", {"delay": 16}), 2, workers=1))
