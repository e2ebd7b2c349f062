"""Planning by views: view graphs, distillation, export, and the whole loop in a small form."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

import envs  # noqa: F401
from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import (
    MOVES,
    Move,
    arrived,
    breadth_first,
    path_nodes,
)
from envs.view_planning.tasks import Distances, Place
from trace_il.errors import UserError
from trace_il.views.agent import PathBatch, ViewAgent, from_frame, to_frame
from trace_il.views.batch import (
    SIDES,
    choices,
    from_records,
    from_trajectories,
    mirrored,
    mirrored_choices,
    pose_features,
)
from trace_il.views.distill import CAP, CHOICE_KINDS, KINDS, Sampler, distil, single_graphs, successes
from trace_il.views.explore import episodes, greedy, run, sampled
from trace_il.views.export import replay, write
from trace_il.views.graph import Router, Trajectory, ViewGraph, load_trajectories, save_trajectories
from trace_il.views.judge import oracle, random_moves, score
from trace_il.views.learn import choice_loss, path_loss
from trace_il.views.reinforce import Reinforcement, RolloutData, advantages, assess, informative


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
    graphs[0].save(tmp_path / "room.npz", places[0].table)
    again = ViewGraph.load(tmp_path / "room.npz", places[0].table)
    assert again.edges == graphs[0].edges and again.visits == graphs[0].visits and again.index == graphs[0].index
    with pytest.raises(UserError, match="graph of another room"):
        ViewGraph.load(tmp_path / "room.npz", places[1].table)
    with pytest.raises(UserError, match="graph of another room"):  # though nothing in it tells
        ViewGraph().save(tmp_path / "empty.npz", places[0].table)
        ViewGraph.load(tmp_path / "empty.npz", places[1].table)
    (tmp_path / "half.npz").write_bytes((tmp_path / "room.npz").read_bytes()[:-50])
    with pytest.raises(UserError, match="cannot be read"):
        ViewGraph.load(tmp_path / "half.npz", places[0].table)
    content = (tmp_path / "room.npz").read_bytes()
    for place in range(0, len(content), len(content) // 60):
        (tmp_path / "flipped.npz").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            same = ViewGraph.load(tmp_path / "flipped.npz", places[0].table)
        except UserError as error:
            assert "cannot be read" in str(error)
        else:
            assert same.edges == again.edges
    with pytest.raises(UserError, match="cannot be read"):  # whole, and of something else
        load_trajectories(tmp_path / "room.npz")
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
    parts = [record for record in records if record.part]
    assert len(parts) > 100 and any(0 in record.left for record in parts)
    assert len({(record.scene, record.start, record.moves) for record in parts}) < 0.3 * len(parts)
    moves = np.concatenate([record.moves for record in records if record.moves and not record.part])
    assert np.bincount(moves.astype(int), minlength=MOVES).max() < 1.6 * CAP * len(moves)
    walks = distil([Sampler(places[0], graphs[0], walk=True)], 50, 0)
    assert all(replay(places[0], record)[-1] == record.goal for record in walks)
    with pytest.raises(ValueError, match="hold no edge"):
        list(distil([Sampler(places[0], ViewGraph())], 1, 0))


def test_random_exploration_goes_on_to_where_it_has_not_been(places):
    tasks = episodes(places, 10, 3, Distances())
    fresh = [len(set(own.nodes.tolist())) for own in random_moves(places, tasks, 0, stops=False)]
    uniform = []
    rng = np.random.default_rng(0)
    for task in tasks:
        moves = rng.integers(MOVES, size=BUDGET)
        uniform.append(len({task.start, *path_nodes(places[task.scene].table, task.start, moves).tolist()}))
    assert np.mean(fresh) > 1.15 * np.mean(uniform)


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
    hidden = agent(batch).hidden
    for row, record in enumerate(paths[:4]):
        alone = agent(from_records(places, [record])).hidden
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


def test_what_an_agent_leaves_alone_is_not_asked_of_it(places, explored):
    agent, batch = small(), from_trajectories(places, explored[:6])
    there = batch.label.sum(-1) > 0
    batch = batch._replace(closed=batch.closed | (batch.label > 0) & (torch.arange(MOVES + 1) < MOVES))
    logits = agent.decide(agent(batch).hidden, batch.closed)
    figures = path_loss(agent, batch)[1]
    only_stops = -logits.log_softmax(-1)[..., Move.STOP][batch.label[..., Move.STOP] > 0]
    assert there.sum() > len(only_stops) > 0
    torch.testing.assert_close(figures["move"], only_stops.mean().detach())


def test_rollouts_equal_the_policy_on_their_own_record(places):
    """What the agent did step by step is what it says of the finished path at once."""
    agent, tasks = small(), episodes(places, 4, 2, Distances())
    found = run(agent, places, tasks, greedy)
    assert all(np.array_equal(own.nodes, path_nodes(places[own.scene].table, own.nodes[0], own.moves)) for own in found)
    batch = from_trajectories(places, found)
    with torch.no_grad():
        said = agent.decide(agent(batch).hidden, batch.closed).argmax(-1)
    asked = batch.label.sum(-1) > 0
    assert asked.any() and torch.equal(said[asked], batch.label.argmax(-1)[asked])
    for own, closed in zip(found, batch.closed.numpy(), strict=True):
        for step, move in enumerate(own.moves):
            after, been = places[own.scene].table[own.nodes[step], move], own.nodes[: step + 1]
            bumped = [then for then in range(step) if own.nodes[then] == own.nodes[then + 1]]
            tried = any(own.nodes[then] == own.nodes[step] and own.moves[then] == move for then in bumped)
            assert closed[step, move] == (tried or (after != own.nodes[step] and after in been))
    # When the moves are spent it says where it is, and never before.
    assert all(own.stopped and len(own.moves) <= BUDGET for own in found)
    spent = batch.closed[..., MOVES]
    assert not spent[:, :BUDGET].any() and spent[:, BUDGET:].all() and any(len(own.moves) == BUDGET for own in found)
    one, two = (run(agent, places, tasks, sampled(torch.Generator().manual_seed(0))) for _ in range(2))
    assert all(np.array_equal(a.nodes, b.nodes) for a, b in zip(one, two, strict=True))


def test_what_views_say_is_carried_to_where_the_camera_is(places, explored):
    """The true place of the goal, as seen from every view, is the same place as seen from the start."""
    batch = from_trajectories(places, explored[:6])
    there = batch.label.sum(-1) > 0
    common = to_frame(batch.where, batch.pose)
    torch.testing.assert_close(common[there], common[:, :1].expand_as(common)[there], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(from_frame(common, batch.pose)[there], batch.where[there], atol=1e-4, rtol=1e-4)


def test_a_mirror_swaps_sides_and_nothing_else(places, explored):
    batch = from_trajectories(places, explored[:6])
    other = mirrored(batch)
    for one, two in zip(batch, mirrored(other), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(other.images, batch.images.flip(2)) and torch.equal(other.label.sum(-1), batch.label.sum(-1))
    for before, after in ((Move.LEFT, Move.RIGHT), (Move.TURN_RIGHT, Move.TURN_LEFT), (Move.UP, Move.UP)):
        assert torch.equal(other.label[..., after], batch.label[..., before])
    for before, after in ((Move.LEFT, Move.RIGHT), (Move.TURN_RIGHT, Move.TURN_LEFT), (Move.FORWARD, Move.FORWARD)):
        assert torch.equal(other.closed[..., after], batch.closed[..., before])
    assert batch.closed[..., Move.LEFT].ne(batch.closed[..., Move.RIGHT]).any()
    # A step to the left from the start is one to the right.
    torch.testing.assert_close(other.pose[..., 1], -batch.pose[..., 1])
    torch.testing.assert_close(to_frame(other.where, other.pose)[..., 1], -to_frame(batch.where, batch.pose)[..., 1])


def test_a_mirrored_question_leads_to_the_mirrored_places(places):
    place = places[0]
    asked = choices(places, [place.item(np.random.default_rng(number)) for number in range(6)])
    other = mirrored_choices(asked)
    assert torch.equal(other.images, asked.images.flip(2)) and not torch.equal(other.paths, asked.paths)
    lattice = place.lattice
    free = lattice.table(np.ones((*lattice.shape[:4], MOVES), bool))  # nothing stands in the way
    middle = int(np.ravel_multi_index(tuple(n // 2 for n in lattice.shape), lattice.shape))
    for one, two in zip(asked.paths.flatten(0, 1), other.paths.flatten(0, 1), strict=True):
        ends = [path_nodes(free, middle, path[path < MOVES].tolist())[-1] for path in (one, two)]
        where, mirror = (pose_features(place.metric[end], place.metric[middle]) for end in ends)
        np.testing.assert_allclose(mirror, where * SIDES.numpy(), atol=1e-5)


def test_hidden_poses_and_views_are_not_used(places, explored):
    torch.manual_seed(0)
    agent = ViewAgent(32, channels=16, width=32, layers=1, pose=False)
    batch = from_trajectories(places, explored[:4])
    moved = PathBatch(*batch)._replace(pose=batch.pose + 1)
    torch.testing.assert_close(agent(batch).hidden, agent(moved).hidden)
    hidden = agent(batch).hidden
    moves = torch.arange(MOVES + 1) < MOVES
    torch.testing.assert_close(agent.decide(hidden, batch.closed), agent.decide(hidden, batch.closed ^ moves))
    blind = batch._replace(seen=torch.zeros_like(batch.seen))
    other = blind._replace(images=255 - blind.images)
    torch.testing.assert_close(agent(blind).hidden, agent(other).hidden)


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


@pytest.mark.parametrize("group", [1, 2])
def test_what_went_well_becomes_likelier_up_to_the_clip(places, group):
    """Of two tries of a task the one that succeeded; the ratio is no longer pushed beyond the clip."""
    agent = small().eval()
    tasks = [task for task in episodes(places, 2, 0, Distances()) for _ in range(2)]
    found = run(agent, places, tasks, sampled(torch.Generator().manual_seed(0)))
    found = [own._replace(success=number % 2 == 0) for number, own in enumerate(found)]
    data = RolloutData(agent, places, 2, 2, Distances(), len(found), 0, None)
    data.group = group
    module = Reinforcement(agent, 1e-2, group)
    module.log = lambda *words, **more: None
    batch = next(data._batches(found, np.random.default_rng(0)))
    last = batch.paths.label.sum((1, 2)).long() - 1
    good = batch.outcome.gather(1, last[:, None])[:, 0] > 0.5  # of the last action it is the reward
    assert good.sum() == len(found) // 2
    if group > 1:
        tries = batch.advantage[batch.paths.label.sum(-1) > 0]
        assert set(tries.sign().tolist()) == {-1, 1} and tries.abs().min() > 0.99
    flat = batch._replace(advantage=torch.where(good[:, None], 1.0, -1.0) * batch.paths.label.sum(-1))
    before = assess(agent, batch.paths)[0].sum(1)
    optimizer = module.configure_optimizers()
    for _ in range(5):
        optimizer.zero_grad()
        module.training_step(flat, 0).backward()
        optimizer.step()
    risen = assess(agent, batch.paths)[0].sum(1) - before
    assert risen[good].mean() > 0 > risen[~good].mean()
    if group > 1:  # what is beyond the clip, where its advantage wants it, has only entropy left to learn from
        done = flat._replace(log_probability=assess(agent, batch.paths)[0] - flat.advantage)
        slopes = []
        for own in (done, done._replace(advantage=0 * done.advantage)):
            module.zero_grad()
            module.training_step(own, 0).backward()
            slopes.append(torch.cat([p.grad.flatten() for p in agent.parameters() if p.grad is not None]))
        torch.testing.assert_close(*slopes, atol=1e-6, rtol=1e-3)


def test_export_for_language_models(tmp_path, places, graphs, explored):
    samplers = [Sampler(place, graph) for place, graph in zip(places, graphs, strict=True)]
    records = list(distil(samplers, 120, 0))
    parts = Sampler(places[0], graphs[0], explored[:12]).along(np.random.default_rng(0))
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
    assert len(alpaca) == sum(len(row["messages"]) for row in rows) // 2
    for row in alpaca:
        shown = [*(asked for asked, _ in row["history"]), row["instruction"]]
        assert " ".join(shown).count("<image>") == len(row["images"])
    said = Counter(row["output"] for row in alpaca if row["history"])
    assert len(said) > 2 and said["stop"] < sum(said.values())  # moves are said, too, not in what the user says
    with pytest.raises(UserError, match="exists; give another"):
        write(tmp_path / "views", places, records)
    with pytest.raises(ValueError, match="only training rooms"):
        write(tmp_path / "other", [Place("test", 0, 32)], records)
    with pytest.raises(UserError, match="no record to export"):
        write(tmp_path / "nothing", places, parts)
    good = oracle(places, episodes(places, 3, 5, Distances()))  # which end where the goal counts as reached
    assert write(tmp_path / "successes", places, successes(good, 20, 0)) == 20
    ways = (record for record in records if record.kind == "sequence")
    wrong = next(one for one in ways if not arrived(*places[one.scene].metric[[one.start, one.goal]]))
    with pytest.raises(ValueError, match="end at"):
        replay(places[wrong.scene], type(wrong)(**{**wrong.__dict__, "goal": wrong.start}))
