"""Active tasks: the camera must be aimed before there is a cue, and demonstrations show how."""

import itertools

import numpy as np
import pytest
from conftest import program

from envs.base import new_renderer
from envs.delayed_evidence.env import DelayedEvidenceEnv
from envs.delayed_evidence.viewpoints import LOOKS, MOVES, examine, lattice, share_seen, size_in_picture

TASKS = ("medicine_active", "tool_active")


def looks(task: str, look: str, seeds: range) -> list[np.ndarray]:
    """Viewpoints of the ways by which an expert looks."""
    env, joints = DelayedEvidenceEnv(task, look=look, camera_period=1000), lattice()[0]
    out = []
    for seed in seeds:
        env.reset(seed=seed)
        out.append(np.array([int(np.flatnonzero((joints == one).all(1))[0]) for one in env.layout["look"]]))
    env.close()
    return out


def test_every_move_between_viewpoints_has_an_inverse():
    joints, table = lattice()
    nodes = np.arange(len(table))
    assert 100 < np.isfinite(joints[:, 0]).sum() < len(joints)
    for move in range(MOVES):
        went = table[:, move] != nodes
        assert went.any() and (table[table[went, move], move ^ 1] == nodes[went]).all()
        assert np.isfinite(joints[table[went, move]]).all()


@pytest.mark.parametrize("task", TASKS)
def test_only_the_camera_that_is_aimed_sees_the_card(task):
    """Rays say what a segmentation says; the other cameras never see the card, on the whole way."""
    env = DelayedEvidenceEnv(task, camera_period=1000)
    env.reset(seed=3)
    renderer, card = new_renderer(env.model, 64, 64), env.model.geom("cue").id
    renderer.enable_segmentation_rendering()

    def pixels(camera: str) -> int:
        renderer.update_scene(env.data, camera)
        return int((renderer.render()[..., 0] == card).sum())

    expert, done, seen = env.make_expert(), False, []
    while not done:
        _, _, terminated, truncated, info = env.step(expert.action().executed)
        done = terminated or truncated
        share = share_seen(env.model, env.data, "right_wrist", "cue", 9)
        seen.append((share, pixels("right_wrist"), info["phase"]))
        if share == 1.0:
            full = 64 * 64 * size_in_picture(env.model, env.data, "right_wrist", "cue")
            assert abs(seen[-1][1] - full) < 5 + 0.2 * full
        if env.steps % 5 == 0:
            assert pixels("overhead") == pixels("left_wrist") == 0
    shares, counts, phases = map(np.array, zip(*seen, strict=True))
    assert info["is_success"] and counts[shares > 0.5].min() > 12 and max(counts[0], counts[shares == 0].max()) <= 4
    assert (phases[shares > 0] == 1).all() and (phases[-100:] >= 2).all()
    renderer.close()
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_ways_to_look_begin_alike_and_graphs_give_shorter_ones(task):
    seeds = range(2_600_000, 2_600_020)
    ways = {look: looks(task, look, seeds) for look in LOOKS}
    moves = {look: np.array([len(way) - 1 for way in own]) for look, own in ways.items()}
    for own in ways.values():  # the scene is the same, whoever looks
        assert [way[0] for way in own] == [way[0] for way in ways["oracle"]]
    assert (moves["fixed"] == 0).all() and (moves["oracle"] >= 2).all() and (moves["oracle"] <= 6).all()
    assert all((moves[look] >= moves["oracle"]).all() for look in ("graph", "hindsight", "random", "sweep"))
    assert moves["graph"].mean() <= 1.3 * moves["oracle"].mean()
    assert moves["graph"].mean() <= moves["hindsight"].mean() <= moves["random"].mean()
    env = DelayedEvidenceEnv(task, look="graph", camera_period=1000)
    for seed, way in zip(list(seeds)[:5], ways["graph"], strict=False):
        env.reset(seed=seed)
        outlook = examine(env.model, env.data, env.robot, "cue")
        assert not outlook.seen[way[:-1]].any() and outlook.seen[way[-1]] and outlook.free[way].all()
        assert all(after in outlook.table[before] for before, after in itertools.pairwise(way))
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


def test_demonstrations_of_an_active_task_are_collected(tmp_path):
    words = ["env=delayed_evidence", "env.task=medicine_active", "env.image_size=32", "data.episodes=2"]
    out = program("collect.py", *words, "parallel.workers=1", cwd=tmp_path)
    assert "collected 2 demonstrations" in out.stdout
    assert len(list((tmp_path / "data").glob("delayed_evidence-medicine_active-*"))) == 1
