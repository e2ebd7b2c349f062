"""Training works: on the corridor TRACE learns what a policy without memory cannot."""

import json

import pytest
from conftest import program

from trace_il.checkpoint import load_agent
from trace_il.env_config import env_options
from trace_il.environment import make_env
from trace_il.interventions import intervene
from trace_il.options import read_run

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


def scores(folder, memory: str, epochs: int) -> dict:
    own = [f"memory={memory}", f"name={memory}", f"trainer.epochs={epochs}"]
    program("train.py", *COMMON, *own, cwd=folder, timeout=1800)
    return json.loads((folder / f"runs/{memory}/summary.json").read_text())


def test_trace_remembers_and_no_memory_guesses(folder):
    trace = scores(folder, "trace", 12)
    assert trace["scores"]["trained"]["branch_accuracy"] >= 0.9, trace["scores"]
    assert trace["scores"]["memory cleared"]["branch_accuracy"] <= 0.65, trace["scores"]
    none = scores(folder, "none", 6)
    assert none["scores"]["trained"]["branch_accuracy"] <= 0.65, none["scores"]
    assert none["scores"]["trained"]["branch_reached"] >= 0.9, none["scores"]


def test_decision_follows_the_memory_when_slots_are_swapped(folder):
    """The trained policy of the test above takes the other cue's door when it is given the other cue's slots."""
    config, run = read_run(str(folder / "runs/trace"))
    agent, env = load_agent(run / "checkpoints/last.ckpt"), make_env(config.env.id, env_options(config.env))
    pairs = [intervene(agent, env, seed, ["swap"]) for seed in range(20)]
    right = [pair["swap"] for pair in pairs if pair["untouched"].branch_correct == 1]
    assert len(right) >= 18
    assert sum(changed.branch_correct == 0 for changed in right) >= 0.9 * len(right)
