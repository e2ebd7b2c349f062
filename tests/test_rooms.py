"""Rooms for planning by views: their lattice, views, tasks and environment."""

import io
import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import rerun as rr
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401
from envs.view_planning.furniture import FURNITURE
from envs.view_planning.lattice import (
    ALIKE,
    INVERSE,
    MOVES,
    NEAR,
    Move,
    arrived,
    breadth_first,
    differences,
    difficulty,
    path_nodes,
)
from envs.view_planning.scenes import Room
from envs.view_planning.tasks import Distances, Place
from envs.view_planning.views import RoomRenderer, Views, telling
from trace_il.errors import UserError
from trace_il.views.explore import episodes
from trace_il.views.judge import questions
from trace_il.views.viewer import play


@pytest.fixture(scope="module")
def places() -> list[Place]:
    return [Place("train", index, 32) for index in range(2)]


def test_every_move_has_an_exact_inverse_and_keeps_clear_of_furniture(places):
    for place in places:
        table, nodes = place.table, np.arange(place.lattice.size)
        for move in range(MOVES):
            went = table[:, move] != nodes
            assert (table[table[went, move], INVERSE[move]] == nodes[went]).all()
        assert np.array_equal(place.lattice.node(place.lattice.pose(nodes)), nodes)
        reached = np.flatnonzero(breadth_first(table, int(place.room.starts[0])) >= 0)
        assert place.room.free(place.metric[reached, :3].astype(float)).all() and len(reached) > 0.3 * len(nodes)
        steps = np.linalg.norm(place.metric[table[reached, Move.FORWARD], :3] - place.metric[reached, :3], axis=1)
        assert all(abs(step - 0.5) < 1e-3 or abs(step - 0.559) < 1e-3 for step in steps[steps > 0])


def test_breadth_first_distances_are_those_of_a_plain_search(places):
    table, start = places[0].table, int(places[0].room.starts[0])
    known, front = {start: 0}, [start]
    for depth in range(1, 4):
        front = [int(n) for node in front for n in table[node] if int(n) not in known]
        known |= dict.fromkeys(front, depth)
    distance = breadth_first(table, start, 3)
    assert {int(node): int(distance[node]) for node in np.flatnonzero(distance >= 0)} == known


def test_distances_angles_and_arrival():
    here = np.array([0, 0, 1, 0, 0, 0.0])
    assert differences(here, here + (0.3, 0.4, 0, 0, 0, 90)) == (pytest.approx(0.5), pytest.approx(90))
    assert differences(here, here + (0, 0, 0, 0, 60, 0))[1] == pytest.approx(60)
    assert difficulty(here, here + (NEAR, 0, 0, 0, 0, ALIKE)) == pytest.approx(2**0.5)
    assert arrived(here, here + (NEAR, 0, 0, 0, 0, ALIKE)) and not arrived(here, here + (NEAR + 0.06, 0, 0, 0, 0, 0))
    assert not arrived(here, here + (0, 0, 0, 0, 0, 60))


def test_rooms_are_their_seed_and_full_of_furniture():
    one, two, other = Room(5), Room(5), Room(6)
    assert np.array_equal(one.table, two.table) and np.array_equal(one.starts, two.starts)
    node = int(one.starts[0])
    pictures = [RoomRenderer(room).picture(node, 64) for room in (one, two)]
    assert np.array_equal(*pictures) and not telling(np.full((8, 8, 3), 90, np.uint8))
    assert not np.array_equal(pictures[0], RoomRenderer(other).picture(int(other.starts[0]), 64))
    rooms = [Room(seed) for seed in range(12)]
    assert all(len(room.pieces) >= 6 for room in rooms) and max(len(room.pieces) for room in rooms) > 12
    assert len({piece.kind for room in rooms for piece in room.pieces}) >= 12 and len(FURNITURE) >= 12
    for room in rooms:
        boxes = [piece.bounds() for piece in room.pieces]
        for number, box in enumerate(boxes):
            assert all((box[0] > o[1]).any() or (box[1] < o[0]).any() for o in boxes[:number])


def test_views_are_rendered_once_and_shared(tmp_path, monkeypatch):
    room = Room(3)
    first, second = Views(room, 32, tmp_path), Views(room, 32, tmp_path)
    nodes = room.starts
    seen = first(nodes)
    second.renderer = None
    assert np.array_equal(second(nodes), seen) and second.renderer is None  # read, not rendered
    assert np.array_equal(seen[0], RoomRenderer(room).picture(int(nodes[0]), 32))
    first.frames[nodes[0], 5] = 0  # as a machine that went down may leave it
    assert np.array_equal(Views(room, 32, tmp_path)(nodes), seen)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert np.array_equal(second(nodes), seen)
    with pytest.raises(OSError, match="bytes, 1000 are free"):
        second(np.arange(room.lattice.size))


def test_the_environment():
    env = gymnasium.make("ViewPlanning-v0", image_size=32, render_mode="rgb_array", disable_env_checker=True).unwrapped
    check_env(env, skip_render_check=True)
    observation, info = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert np.array_equal(observation["pixels"]["goal"], again["pixels"]["goal"])
    fewest = env.place.moves_left(env.goal)[env.start]
    while not (env.over or len(env.moves) >= env.horizon):
        observation, reward, terminated, _, info = env.step(env.expert())
    assert terminated and reward == 1 and info["is_success"] and len(env.moves) == fewest
    env.reset(seed=4)
    for _ in range(env.horizon + 1):
        _, reward, terminated, truncated, info = env.step(Move.TURN_LEFT)
    assert truncated and not terminated and reward == 0 and not info["is_success"]
    env.reset(seed=4)
    blocked = next(move for move in range(MOVES) if env.place.table[env.node, move] == env.node)
    observation, *_ = env.step(blocked)
    assert observation["blocked"] == 1 and env.node == env.start
    env.step(Move.TURN_LEFT)
    env.step(Move.TURN_RIGHT)
    assert env.node == env.start and env.render().shape == (224, 448, 3)


def test_bad_tasks_are_named():
    env = gymnasium.make("ViewPlanning-v0", image_size=32, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    inside = int(np.flatnonzero(~env.place.room.free(env.place.metric[:, :3].astype(float)))[0])
    corner = int(np.argmax(env.place.from_starts[int(env.place.room.starts[0])]))
    opposite = int(np.argmax(breadth_first(env.place.table, corner)))
    for options, message in (
        ({"goal": inside}, "inside furniture"),
        ({"goal": -1}, "node must be in 0"),
        ({"scene": 99}, r"scene must be in 0\.\.15, got 99"),
        (
            {"scene": env.scene, "start": corner, "goal": opposite},
            "cannot be reached from .*, 20 are allowed",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            env.reset(seed=0, options=options)
    with pytest.raises(ValueError, match="action must be in 0"):
        env.reset(seed=0)
        env.step(11)
    for options, message in (
        ({"image_size": 8}, "image_size must be in 16"),
        ({"pieces": (0, 0)}, "a scene needs furniture"),
        ({"split": "all"}, "split must be one of"),
        ({"moves": (5, 2)}, "moves must be"),
    ):
        with pytest.raises(ValueError, match=message):
            gymnasium.make("ViewPlanning-v0", disable_env_checker=True, **options)


def test_tasks_have_their_mix_and_questions_different_ends(places):
    tasks = episodes(places, 60, 1, Distances())
    assert 0.2 < np.mean([task.short for task in tasks]) < 0.5
    assert tasks == episodes(places, 60, 1, Distances())
    for task in tasks:
        assert 2 <= places[task.scene].from_starts[task.start][task.goal] <= 8
        assert telling(places[task.scene].views(task.goal))
    asked = questions(places, 60, 0)
    assert 0.2 < np.mean([item.short for item in asked]) < 0.5 and len({item.start for item in asked}) > 40
    for item in asked:
        ends = [int(path_nodes(places[item.scene].table, item.start, path)[-1]) for path in item.paths]
        assert tuple(ends) == item.ends and len(set(ends)) == 4 and item.start not in ends
        assert len({len(path) for path in item.paths}) == 1


def test_an_episode_is_played_with_keys(tmp_path, monkeypatch):
    said: list[str] = []
    rec = rr.RecordingStream("played")
    rec.save(str(tmp_path / "played.rrd"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("qq?e "))
    assert play(rec, 3, "test", said.append) is False
    assert [line.split(";")[0].split(",")[0] for line in said[1:5]] == ["turn_left", "turn_left", "turn_right", "stop"]
    assert "degrees off" in said[-1]
    with pytest.raises(UserError, match="split must be one of"):
        play(rec, 3, "moon", said.append)
