"""Planning by views: rooms and their lattice, view graphs, distillation, export, and the whole loop in a small form."""

import io
import json
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
import rerun as rr
import torch
from conftest import ROOT, program
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
)
from envs.view_planning.scenes import Room
from envs.view_planning.tasks import Distances, Place
from envs.view_planning.views import RoomRenderer, Views, telling
from trace_il.errors import UserError
from trace_il.views.agent import PathBatch, ViewAgent
from trace_il.views.batch import choices, from_records, from_trajectories
from trace_il.views.distill import CAP, CHOICE_KINDS, KINDS, Sampler, distil, single_graphs, successes
from trace_il.views.explore import episodes, greedy, run, sampled
from trace_il.views.export import replay, write
from trace_il.views.graph import Router, Trajectory, ViewGraph, load_trajectories, path_nodes, save_trajectories
from trace_il.views.judge import oracle, questions, random_moves, score
from trace_il.views.learn import choice_loss, path_loss
from trace_il.views.reinforce import advantages, informative
from trace_il.views.viewer import play


@pytest.fixture(scope="module")
def places() -> list[Place]:
    return [Place("train", index, 32) for index in range(2)]


@pytest.fixture(scope="module")
def explored(places) -> list[Trajectory]:
    return random_moves(places, [task for task in episodes(places, 8, 0, Distances()) for _ in range(12)], 0)


@pytest.fixture(scope="module")
def graphs(places, explored) -> list[ViewGraph]:
    out = [ViewGraph() for _ in places]
    for own in explored:
        out[own.scene].add(own.nodes, own.moves)
    return out


def small() -> ViewAgent:
    torch.manual_seed(0)
    return ViewAgent(32, channels=16, width=32, layers=1)


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


def test_views_are_rendered_once_and_shared(tmp_path):
    room = Room(3)
    first, second = Views(room, 32, tmp_path), Views(room, 32, tmp_path)
    nodes = room.starts
    seen = first(nodes)
    second.renderer = None
    assert np.array_equal(second(nodes), seen) and second.renderer is None  # read, not rendered
    assert np.array_equal(seen[0], RoomRenderer(room).picture(int(nodes[0]), 32))


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
    env.step(env.undo())
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
        assert 2 <= places[task.scene].from_starts[task.start][task.goal] <= 10
        assert telling(places[task.scene].views(task.goal))
    for item in questions(places, 20, 0):
        ends = [places[item.scene].end(item.start, path) for path in item.paths]
        assert tuple(ends) == item.ends and len(set(ends)) == 4 and item.start not in ends
        assert len({len(path) for path in item.paths}) == 1


def test_merged_trajectories_give_ways_that_none_of_them_went(places):
    place, start = places[0], int(places[0].room.starts[0])
    first = path_nodes(place.table, start, [Move.TURN_LEFT, Move.TURN_LEFT])
    second = path_nodes(place.table, int(first[1]), [Move.LOOK_UP])
    graph = ViewGraph(reverse=False)
    graph.add(first, [Move.TURN_LEFT, Move.TURN_LEFT])
    graph.add(second, [Move.LOOK_UP])
    labels = Router(graph).labels([graph.index[int(second[-1])]])
    assert labels.left[graph.index[start]] == 2 and labels.left[graph.index[int(first[2])]] == -1
    assert np.flatnonzero(labels.best[graph.index[start]]).tolist() == [Move.TURN_LEFT]
    assert graph.statistics([start])["shared"] == pytest.approx(1 / 4)
    both = ViewGraph()
    both.add(first, [Move.TURN_LEFT, Move.TURN_LEFT])
    both.add(second, [Move.LOOK_UP])
    assert Router(both).labels([both.index[start]]).left[both.index[int(second[-1])]] == 2


def test_labels_are_shortest_and_every_edge_replays(places, graphs):
    for place, graph in zip(places, graphs, strict=True):
        router = Router(graph)
        for (at, move), after in graph.edges.items():
            assert place.table[router.nodes[at], move] == router.nodes[after]
        goal = graph.index[int(place.room.starts[0])]
        labels = router.labels([goal])
        for at in np.flatnonzero(labels.left > 0)[:50]:
            for move in np.flatnonzero(labels.best[at, :MOVES]):
                assert labels.left[router.forward[at, move]] == labels.left[at] - 1
        whole = breadth_first(place.table, int(place.room.starts[0]))[router.nodes]
        assert (labels.left[labels.left >= 0] >= whole[labels.left >= 0]).all()


def test_graphs_and_trajectories_are_saved_whole(tmp_path, places, graphs, explored):
    graphs[0].save(tmp_path / "room.npz")
    again = ViewGraph.load(tmp_path / "room.npz", places[0].table)
    assert again.edges == graphs[0].edges and again.visits == graphs[0].visits and again.index == graphs[0].index
    with pytest.raises(UserError, match="graph of another room"):
        ViewGraph.load(tmp_path / "room.npz", places[1].table)
    with pytest.raises(UserError, match="no view graph"):
        ViewGraph.load(tmp_path / "nowhere.npz", places[0].table)
    save_trajectories(tmp_path / "found.npz", explored)
    for one, two in zip(explored, load_trajectories(tmp_path / "found.npz"), strict=True):
        assert np.array_equal(one.nodes, two.nodes) and np.array_equal(one.moves, two.moves)
        assert (one.scene, one.goal, one.stopped, one.success) == (two.scene, two.goal, two.stopped, two.success)
    with pytest.raises(ValueError, match="one node more than moves"):
        ViewGraph().add([1, 2], [])


def test_records_replay_and_moves_are_balanced(places, graphs, explored):
    own = [[one for one in explored if one.scene == place.index] for place in places]
    samplers = [Sampler(*parts) for parts in zip(places, graphs, own, strict=True)]
    records = list(distil(samplers, 400, 0))
    assert records == list(distil(samplers, 400, 0)) and {record.kind for record in records} == set(KINDS)
    for record in records:
        nodes = replay(places[record.scene], record)
        if record.kind in CHOICE_KINDS:
            assert record.paths[record.answer] == record.moves and record.ends[record.answer] == record.goal
            continue
        assert len(record.best) == len(record.left) == len(nodes) and all(best > 0 for best in record.best)
        for node, best, left in zip(nodes, record.best, record.left, strict=True):
            assert (best >> Move.STOP & 1) == (left == 0) == (node == record.goal)
    parts = [record for record in records if record.astray]
    assert len(parts) > 100 and any(0 in record.left for record in parts)
    assert len({(record.scene, record.start, record.moves) for record in parts}) < 0.3 * len(parts)
    moves = np.concatenate([record.moves for record in records if record.moves and not record.astray])
    assert np.bincount(moves.astype(int), minlength=MOVES).max() < 1.6 * CAP * len(moves)
    walks = distil([Sampler(places[0], graphs[0], walk=True)], 50, 0)
    assert all(replay(places[0], record)[-1] == record.goal for record in walks)
    with pytest.raises(ValueError, match="hold no edge"):
        list(distil([Sampler(places[0], ViewGraph())], 1, 0))


def test_hindsight_sees_single_trajectories_and_bootstrapping_successes(places, explored):
    alone = single_graphs(explored, reverse=True)
    assert all(len(graph) == len(set(own.nodes.tolist())) for graph, own in zip(alone, explored, strict=True))
    good = oracle(places, episodes(places, 3, 5, Distances()))
    for record in successes([*explored, *good], 40, 0):
        assert any(
            own.success and record.goal == own.goal and record.moves == tuple(own.moves) for own in [*explored, *good]
        )
    assert successes([own for own in explored if not own.success], 10, 0) == []


def test_an_agent_learns_from_a_batch_and_padding_does_not_matter(places, graphs, explored):
    samplers = [Sampler(place, graph) for place, graph in zip(places, graphs, strict=True)]
    records = list(distil(samplers, 80, 0))
    paths = [record for record in records if record.kind not in CHOICE_KINDS][:12]
    questions_ = [record for record in records if record.kind in CHOICE_KINDS][:8]
    agent, batch, choice = small(), from_records(places, paths), choices(places, questions_)
    hidden = agent(batch)
    for row, record in enumerate(paths[:4]):
        alone = agent(from_records(places, [record]))
        torch.testing.assert_close(hidden[row, : alone.shape[1]], alone[0], atol=1e-4, rtol=1e-3)
    optimiser = torch.optim.Adam(agent.parameters(), 3e-3)
    first = 0.0
    for _ in range(60):
        loss = path_loss(agent, batch)[0] + choice_loss(agent, choice)[0]
        first = first or float(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * first


def test_rollouts_equal_the_policy_on_their_own_record(places):
    """What the agent did step by step is what it says of the finished path at once."""
    agent, tasks = small(), episodes(places, 4, 2, Distances())
    found = run(agent, places, tasks, greedy)
    assert all(np.array_equal(own.nodes, path_nodes(places[own.scene].table, own.nodes[0], own.moves)) for own in found)
    batch = from_trajectories(places, found)
    with torch.no_grad():
        said = agent.decide(agent(batch), batch.closed).argmax(-1)
    asked = batch.label.sum(-1) > 0
    assert asked.any() and torch.equal(said[asked], batch.label.argmax(-1)[asked])
    for own, closed in zip(found, batch.closed.numpy(), strict=True):
        for step, move in enumerate(own.moves):
            after, been = places[own.scene].table[own.nodes[step], move], own.nodes[: step + 1]
            bumped = [then for then in range(step) if own.nodes[then] == own.nodes[then + 1]]
            tried = any(own.nodes[then] == own.nodes[step] and own.moves[then] == move for then in bumped)
            assert closed[step, move] == (tried or (after != own.nodes[step] and after in been))
    one, two = (run(agent, places, tasks, sampled(torch.Generator().manual_seed(0))) for _ in range(2))
    assert all(np.array_equal(a.nodes, b.nodes) for a, b in zip(one, two, strict=True))


def test_hidden_poses_and_views_are_not_used(places, explored):
    torch.manual_seed(0)
    agent = ViewAgent(32, channels=16, width=32, layers=1, pose=False)
    batch = from_trajectories(places, explored[:4])
    moved = PathBatch(*batch)._replace(pose=batch.pose + 1)
    torch.testing.assert_close(agent(batch), agent(moved))
    blind = batch._replace(seen=torch.zeros_like(batch.seen))
    other = blind._replace(images=255 - blind.images)
    torch.testing.assert_close(agent(blind), agent(other))


def test_oracle_reaches_everything_and_scores_add_up(places):
    tasks = episodes(places, 20, 3, Distances())
    best, chance = score(places, tasks, oracle(places, tasks)), score(places, tasks, random_moves(places, tasks, 0))
    assert best["success"] == best["spl"] == best["stop_precision"] == 1 and best["oscillation"] == 0
    assert chance["success"] < 0.2 and chance["position_error"] > best["position_error"]
    short = np.array([task.short for task in tasks])
    assert best["success_short_interval"][0] < 1 and short.any() and not short.all()


def test_advantages_and_the_variance_filter():
    values = np.zeros((2, 3))
    gained = advantages(np.array([1.0, 0.0]), values, np.array([3, 2]))
    assert gained[0, 2] == 1 and 0 < gained[0, 0] < gained[0, 1] < 1 and (gained[1] == 0).all()
    assert advantages(np.array([1.0]), np.full((1, 2), 1.0), np.array([2]))[0, 1] == 0
    assert informative(np.array([1, 1, 0, 1, 0, 0.0]), 2).tolist() == [False, False, True, True, False, False]


def test_export_for_language_models(tmp_path, places, graphs, explored):
    samplers = [Sampler(place, graph) for place, graph in zip(places, graphs, strict=True)]
    records = list(distil(samplers, 120, 0))
    own = Trajectory(
        0, records[0].goal, path_nodes(places[0].table, places[0].room.starts[0], [6]), np.array([6]), False, False
    )
    parts = Sampler(places[0], graphs[0], [own]).along(np.random.default_rng(0))
    count = write(tmp_path / "views", places, [*records, *parts])
    rows = json.loads((tmp_path / "views/sharegpt.json").read_text())
    assert count == len(rows) == 120 and parts
    for row in rows:
        text = " ".join(message["content"] for message in row["messages"])
        assert text.count("<image>") == len(row["images"])
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        assert all((tmp_path / "views" / name).exists() for name in row["images"])
    info = json.loads((tmp_path / "views/dataset_info.json").read_text())
    for entry in info.values():
        assert (tmp_path / "views" / entry["file_name"]).exists()
    alpaca = [json.loads(line) for line in (tmp_path / "views/alpaca.jsonl").read_text().splitlines()]
    assert all((r["instruction"] + r["input"]).count("<image>") == len(r["images"]) for r in alpaca)
    with pytest.raises(UserError, match="exists; give another"):
        write(tmp_path / "views", places, records)
    with pytest.raises(ValueError, match="only training rooms"):
        write(tmp_path / "other", [Place("test", 0, 32)], records)
    wrong = next(record for record in records if record.kind == "navigate")
    with pytest.raises(ValueError, match="end at"):
        replay(places[wrong.scene], type(wrong)(**{**wrong.__dict__, "goal": wrong.start}))


QUICK = [
    "env=view_planning", "view=graph_distillation", "view.iterations=2", "env.rooms=2", "env.dev_rooms=1",
    "env.test_rooms=1", "env.image_size=32", "view.rollouts=16", "view.rounds=2", "view.group=4", "view.records=100",
    "trainer.epochs=1", "trainer.steps_per_epoch=4", "trainer.base_epochs=1", "trainer.batch_size=4",
    "evaluation.episodes=8", "evaluation.items=8", "trainer.threads=1",
]  # fmt: skip


def test_a_killed_loop_goes_on_as_if_nothing_had_been(tmp_path):
    program("train.py", *QUICK, "name=whole", cwd=tmp_path)
    whole = tmp_path / "runs/whole"
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["scores"]["trained"]["episodes"] == 8 and "iteration 1" in summary["scores"]
    assert (whole / "iteration_2/graphs/room_0.npz").exists()
    assert list(whole.glob("iteration_2/distilled/wandb/*/*.wandb"))
    command = [sys.executable, str(ROOT / "train.py"), *QUICK, "name=killed", "wandb=off"]
    killed = tmp_path / "runs/killed"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        while not (killed / "iteration_1/records.json").exists():
            assert process.poll() is None and time.sleep(0.05) is None, (tmp_path / "log").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = (killed / "iteration_1/explore/epoch_0.npz").stat().st_mtime_ns
    program("train.py", *QUICK, "name=killed", "wandb=off", cwd=tmp_path)
    assert (killed / "iteration_1/explore/epoch_0.npz").stat().st_mtime_ns == before  # not repeated
    one, two = (torch.load(folder / "agent.pt", weights_only=True)["weights"] for folder in (whole, killed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (killed / "recording.rrd").stat().st_size > 10_000 and (killed / "episode.png").exists()
    program("view.py", "run=runs/killed", "split=test", "--save", "seen.rrd", cwd=tmp_path)
    assert (tmp_path / "seen.rrd").exists()
    out = program("export.py", "run=runs/killed", "out=vlm", "iteration=1", cwd=tmp_path)
    assert "examples" in out.stdout and (tmp_path / "vlm/sharegpt.json").exists()
    out = program("evaluate.py", "run=runs/killed", cwd=tmp_path, check=False)
    assert out.returncode == 2 and "is the run of a view planner" in out.stderr


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
        (["view=ppo", "env=corridor"], "corridor"),
        (["view=ppo", "view.rollouts=7"], "view.rollouts=7 must be a multiple of 4"),
        (["view=ppo", "env.moves=[5,2]"], "env.moves=[5, 2]"),
        (["view=ppo", "env.pieces=[0,0]"], "a scene needs furniture"),
        (["view=ppo", "trainer.devices=2", "trainer.accelerator=cpu"], "one process"),
        (["view=ppo", "view.init=nowhere.pt"], "no agent at nowhere.pt"),
    ],
)
def test_bad_input_is_named_before_long_work(tmp_path, words, message):
    out = program("train.py", *words, cwd=tmp_path, check=False)
    assert out.returncode == 2 and message in out.stderr and len(out.stderr.strip().splitlines()) == 1, out.stderr
