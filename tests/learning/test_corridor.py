"""Training works: on the corridor TRACE learns what a policy without memory cannot."""

import json

import pytest
from conftest import program

COMMON = [
    "env=corridor",
    "evaluation.episodes=100",
    "evaluation.recording=false",
    "evaluation.export=false",
    "wandb=off",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corridor")


def scores(folder, memory: str) -> dict:
    name = f"name={memory}"
    program("train.py", *COMMON, f"memory={memory}", name, cwd=folder, timeout=900)
    return json.loads((folder / f"runs/{memory}/summary.json").read_text())


def test_trace_remembers_and_no_memory_guesses(folder):
    trace = scores(folder, "trace")
    assert trace["scores"]["trained"]["branch_accuracy"] >= 0.95, trace["scores"]
    assert trace["scores"]["memory cleared"]["branch_accuracy"] <= 0.65, trace["scores"]
    assert trace["seconds"]["training"] <= 240, trace["seconds"]
    none = scores(folder, "none")
    assert none["scores"]["trained"]["branch_accuracy"] <= 0.65, none["scores"]
    assert none["scores"]["trained"]["branch_reached"] >= 0.9, none["scores"]
