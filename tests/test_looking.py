"""Active tasks: the camera must be aimed before there is a cue, and demonstrations show how."""

import itertools

import numpy as np
import pytest
from conftest import program

from envs.base import Phase
from envs.delayed_evidence.env import DelayedEvidenceEnv
from envs.delayed_evidence.tasks.cupboard import card_in_view
from envs.delayed_evidence.viewpoints import LARGE, LOOKS, MOVES, examine, lattice, stray
from trace_il.data.cache import FrameCache
from trace_il.data.episodes import EpisodeDataset
from trace_il.data.reader import DatasetReader

TASKS = ("medicine_active", "tool_active")


def looked(env: DelayedEvidenceEnv, seed: int) -> list[int]:
    """Viewpoints of the way by which the expert looks."""
    env.reset(seed=seed)
    return [int(np.flatnonzero((lattice()[0] == one).all(1))[0]) for one in env.layout["look"]]


def test_every_move_between_viewpoints_has_an_inverse():
    joints, table = lattice()
    nodes = np.arange(len(table))
    assert 100 < np.isfinite(joints[:, 0]).sum() < len(joints)
    for move in range(MOVES):
        went = table[:, move] != nodes
        assert went.any() and (table[table[went, move], move ^ 1] == nodes[went]).all()
        assert np.isfinite(joints[table[went, move]]).all()


@pytest.mark.parametrize(("task", "look"), [(TASKS[0], "oracle"), (TASKS[1], "oracle"), (TASKS[1], "sweep")])
def test_only_the_camera_that_is_aimed_sees_the_card(task, look):
    """As large as viewpoints promise, and while the phase says so; the others never see it, on the whole way."""
    env = DelayedEvidenceEnv(task, look=look, camera_period=1000)
    env.reset(seed=3)
    expert, done, seen, phases = env.make_expert(), False, [], []
    while not done:
        _, _, terminated, truncated, info = env.step(expert.action().executed)
        done = terminated or truncated
        seen.append(env.share_in_view(env.data, "right_wrist", "cue"))
        phases.append(info["phase"])
        if env.steps % 5 == 0:
            assert (
                env.share_in_view(env.data, "overhead", "cue") == env.share_in_view(env.data, "left_wrist", "cue") == 0
            )
    shares, phase = np.array(seen), np.array(phases)
    assert info["is_success"] and shares[0] == 0 and shares.max() > LARGE and (shares > LARGE / 2).sum() >= 20
    assert (phase[shares > 0] == Phase.CUE).all() and (phase[-100:] >= Phase.SHARED).all()
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_ways_to_look_lead_to_the_card_and_graphs_give_shorter_ones(task):
    env, rng = DelayedEvidenceEnv(task, camera_period=1000), np.random.default_rng(0)
    strayed = set()
    moves: dict[str, list[int]] = {look: [] for look in LOOKS}
    for seed in range(2_600_000, 2_600_015):
        start = looked(env, seed)[0]
        outlook = examine(env.model, env.data, env.robot, lambda data: card_in_view(env.task, data))
        assert outlook.hidden[start]
        for look, way_of in LOOKS.items():
            way = way_of(outlook, [start], rng)
            moves[look].append(len(way) - 1)
            assert way[0] == start and outlook.free[way].all() and not outlook.seen[way[:-1]].any()
            assert outlook.seen[way[-1]] or look == "fixed"
            assert all(after in outlook.table[before] for before, after in itertools.pairwise(way))
        been = stray(outlook, start, rng)
        strayed.add(len(been) - 1)
        assert been[0] == start and not outlook.seen[been].any()
        assert all(after in outlook.table[before] for before, after in itertools.pairwise(been))
        back = LOOKS["graph"](outlook, been, rng)
        assert back[0] == been[-1] and outlook.seen[back[-1]] and not outlook.seen[back[:-1]].any()
    assert strayed >= {1, 2, 3}
    mean = {look: np.mean(own) for look, own in moves.items()}
    assert mean["fixed"] == 0 and set(moves["oracle"]) <= {2, 3, 4, 5, 6}
    assert all((np.array(moves[look]) >= moves["oracle"]).all() for look in LOOKS if look != "fixed")
    assert max(moves["sweep"] + moves["random"]) <= 20  # so that the episode is long enough for them
    assert mean["graph"] <= 1.3 * mean["oracle"] and mean["graph"] <= mean["hindsight"] <= mean["random"]
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_the_scene_is_the_same_however_the_expert_looks(task):
    envs = {look: DelayedEvidenceEnv(task, look=look, camera_period=1000) for look in ("graph", "oracle", "random")}
    for seed in range(3):
        ways = {look: looked(env, seed) for look, env in envs.items()}
        assert len({way[0] for way in ways.values()}) == 1 and len(ways["oracle"]) <= len(ways["graph"])
        assert np.array_equal(envs["graph"].model.body("cupboard").pos, envs["random"].model.body("cupboard").pos)
    for env in envs.values():
        env.close()


def test_bad_looks_are_named(tmp_path):
    with pytest.raises(ValueError, match="look must be one of graph, oracle"):
        DelayedEvidenceEnv("medicine_active", look="up")
    out = program(
        "collect.py", "env=delayed_evidence", "env.task=tool_active", "env.look=up", cwd=tmp_path, check=False
    )
    assert out.returncode == 2 and "look must be one of" in out.stderr
    out = program("collect.py", "env=delayed_evidence", "env.look=oracle", cwd=tmp_path, check=False)
    assert out.returncode == 2 and "env.task=medicine has nothing to look for" in out.stderr


def test_demonstrations_that_go_astray_show_the_way_back_and_nothing_else(tmp_path):
    """Where the expert makes wrong moves, they are marked, begin the episode, and are nobody's target."""
    words = ["env=delayed_evidence", "env.task=medicine_active", "env.image_size=32", "data.episodes=4", "data.seed=5"]
    out = program("collect.py", *words, "parallel.workers=1", cwd=tmp_path)
    assert "collected 4 demonstrations" in out.stdout
    (root,) = (tmp_path / "data").glob("delayed_evidence-medicine_active-*")
    data, every, chunk = DatasetReader(root), 5, 16
    wrong = [int(labels.sum()) for labels in data.labels["astray"]]
    assert wrong[::2] == wrong[1::2] and 0 in wrong and max(wrong) > 0  # both cues of a scene go the same way
    assert all((labels[:count] == 1).all() for labels, count in zip(data.labels["astray"], wrong, strict=True))
    whole = EpisodeDataset(data, FrameCache(data), every, chunk, 2).batch(list(range(4)))
    for number, count in enumerate(wrong):
        length, ticks = int(data.lengths[number]), -(-count // every)
        assert whole.is_pad[number, :ticks].all()
        assert not whole.is_pad[number, ticks : (length - chunk) // every].any()
        assert whole.valid[number].sum() == -(-length // every)


def test_an_undisturbed_expert_does_not_go_astray():
    env = DelayedEvidenceEnv("medicine_active", camera_period=1000)
    for seed in range(4):
        env.reset(seed=seed)
        assert len(env.layout["stray"]) > 1 and not env.make_expert().action().astray
    env.close()
