"""Learned simulators of all kinds: what holds for any weights, and how they are judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sims.build import MODELS, Recipe, load, save
from sims.dataset import FRAME, Trajectory, simulate, transformed
from sims.geometry import crossing, crossing_depths, edge_distances, facet_distances
from sims.learn import SimulatorModule, TrajectoryDataModule, _Windows
from sims.metrics import (
    LOST,
    TOUCH,
    contact_scores,
    equivariance_error,
    gaps,
    pusher_gaps,
    rollout_scores,
    summarise,
    true_gaps,
    wall_gaps,
)
from sims.model import LearnedSimulator, Prediction, Range, predict, pushed_apart
from sims.scenes import SceneSettings, random_rotation, random_scene
from sims.separation import separated
from sims.state import CONTACT_RADIUS

SMALL = {"gns": {"width": 16, "layers": 2}, "meshgraphnets": {"width": 16, "layers": 2}}
SMALL |= {name: {"width": 16, "layers": 2} for name in ("egnn", "segno")}
EQUIVARIANT = ("eqcollide", "first_order", "egnn", "segno", "constant_velocity", "ballistic")


def network(name: str, dim: int = 2, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    return Recipe(name, dim, SMALL.get(name, {})).build().to(dtype).eval()


def worlds(name: str) -> tuple[str, ...]:
    """Those that a model knows."""
    return ("free",) if name == "first_order" else ("free", "box", "pusher")


@pytest.fixture(scope="module")
def scenes() -> dict[tuple[str, int], Trajectory]:
    """The moments before and in a collision, of every world."""
    out = {}
    for dim in (2, 3):
        for world, measure in (("free", gaps), ("box", wall_gaps), ("pusher", pusher_gaps)):
            whole = simulate(random_scene(SceneSettings(dim, world), 3), 70)
            near = np.flatnonzero(measure(whole, whole.positions) < 0.015)  # below the reach of all models
            start = int(near[0])
            cut = {name: getattr(whole, name)[start : start + 19] for name in ("positions", "velocities")}
            out[world, dim] = replace(whole, **cut)
    return out


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_batches_equal_single_scenes(scenes, name, dim):
    model, own = network(name, dim), [scenes[world, dim] for world in worlds(name)]
    together = predict(model, own, 6)
    for trajectory, result in zip(own, together, strict=True):
        alone = predict(model, [trajectory], 6)[0]
        np.testing.assert_allclose(alone.positions, result.positions, atol=1e-10)
        np.testing.assert_allclose(alone.velocities, result.velocities, atol=1e-9)
        pushed = trajectory.kinematic
        np.testing.assert_allclose(result.positions[:, pushed], trajectory.positions[:7, pushed], atol=1e-5)
        np.testing.assert_allclose(result.positions[0], trajectory.positions[0], atol=6e-3)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_who_is_equivariant(scenes, name, dim):
    own = [scenes[world, dim] for world in worlds(name)]
    error = equivariance_error(network(name, dim), own, 6)
    assert error < 1e-10 if name in EQUIVARIANT else error > 1e-6, error


@pytest.mark.parametrize("name", ["gns", "egnn", "segno", "meshgraphnets", "twin", "eqcollide"])
def test_order_of_bodies_and_particles_does_not_matter(scenes, name):
    trajectory, rng = scenes["free", 2], np.random.default_rng(0)
    bodies = len(trajectory.young)
    number = rng.permutation(bodies)
    order = np.concatenate([rng.permutation(np.flatnonzero(trajectory.body == old)) for old in number])
    place = np.argsort(order)
    other = replace(
        trajectory, positions=trajectory.positions[:, order], velocities=trajectory.velocities[:, order],
        body=np.argsort(number)[trajectory.body[order]], kinematic=trajectory.kinematic[order],
        rest=trajectory.rest[order], mass=trajectory.mass[order], elements=place[trajectory.elements],
        surface=place[trajectory.surface], young=trajectory.young[number],
    )  # fmt: skip
    model = network(name)
    one, two = predict(model, [trajectory], 6)[0], predict(model, [other], 6)[0]
    np.testing.assert_allclose(one.positions[:, order], two.positions, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 3])
def test_moving_a_trajectory_keeps_what_it_is(scenes, dim):
    trajectory, matrix = scenes["box", dim], random_rotation(dim, np.random.default_rng(0))
    matrix[0] *= -1
    shift = np.arange(dim) + 0.5
    moved = transformed(trajectory, matrix, shift)
    for wall, other in zip(trajectory.walls, moved.walls, strict=True):
        before = trajectory.positions @ wall[:-1] - wall[-1]
        np.testing.assert_allclose(moved.positions @ other[:-1] - other[-1], before, atol=1e-5)
    back = transformed(moved, matrix.T, -shift @ matrix)
    np.testing.assert_allclose(back.positions, trajectory.positions, atol=1e-5)
    np.testing.assert_array_equal(back.elements, trajectory.elements)
    np.testing.assert_allclose(gaps(moved, moved.positions), gaps(trajectory, trajectory.positions), atol=1e-5)


def test_ballistic_is_exact_in_free_flight():
    for dim in (2, 3):
        settings = SceneSettings(dim, "free", (1, 1))
        truth = simulate(random_scene(settings, 1), 20)
        result = predict(network("ballistic", dim), [truth], 20)[0]
        assert np.abs(result.positions - truth.positions).max() < 2e-3
        for drag in (0.0, 2.0):
            fallen = simulate(replace(random_scene(settings, 1), gravity=-0.8 * np.eye(dim)[-1], drag=drag), 40)
            result = predict(network("ballistic", dim), [fallen], 40)[0]
            assert np.abs(result.positions - fallen.positions).max() < (2e-3 if dim == 2 else 6e-3)  # it tumbles


def test_distances_of_edges_and_what_goes_through():
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(12, 2, 3)), rng.normal(size=(9, 2, 3))
    t = np.linspace(0, 1, 401)[:, None]
    dense = [own[:, None, 0] + t * (own[:, None, 1] - own[:, None, 0]) for own in (one, two)]
    nearest = np.array([[np.sqrt(((a[:, None] - b) ** 2).sum(-1)).min() for b in dense[1]] for a in dense[0]])
    np.testing.assert_allclose(edge_distances(one, two), nearest, atol=6e-3)
    triangle = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], float)
    through = np.array(
        [[[0.2, 0.2, -1], [0.2, 0.2, 1]], [[0.9, 0.9, -1], [0.9, 0.9, 1]], [[0.2, 0.2, 1], [0.2, 0.2, 2]]]
    )
    assert crossing(through, triangle)[:, 0].tolist() == [True, False, False]
    across = np.array([[[-1, 0.1], [0.3, 0.1]], [[1, 0], [2, 0]]])
    np.testing.assert_allclose(crossing_depths(across, np.array([[[0, -1], [0, 1.0]]])), [[0.3], [0]])


def test_gap_of_crossed_edges():
    """Two tetrahedra whose edges meet crosswise: no point comes near a facet."""
    length = 0.2
    low = np.array([[-length, 0, 0], [length, 0, 0], [0, -0.05, -0.1], [0, 0.05, -0.1]])
    high = np.array([[0, -length, 0], [0, length, 0], [-0.05, 0, 0.1], [0.05, 0, 0.1]])
    for apart, gap in ((0.01, 0.01), (-0.01, -0.01)):
        points = np.concatenate([low, high + (0, 0, apart)])
        corners = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
        faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
        truth = Trajectory(
            points[None], 0 * points[None], np.repeat([0, 1], 4), np.zeros(8, bool), points, np.ones(8), corners,
            np.concatenate([faces, faces + 4]), np.ones(2), np.zeros(3), np.zeros(()), np.zeros((0, 4)), np.array(0),
        )  # fmt: skip
        assert gaps(truth, truth.positions)[0] == pytest.approx(gap, abs=1e-6)


def test_distances_to_facets():
    rng = np.random.default_rng(0)
    for dim in (2, 3):
        points, corners = rng.normal(size=(20, dim)), rng.normal(size=(5, dim, dim))
        weights = rng.dirichlet(0.5 * np.ones(dim), size=40000)
        dense = np.einsum("nc,fcd->fnd", weights, corners)
        nearest = np.linalg.norm(points[:, None, None] - dense, axis=-1).min(-1)
        found = facet_distances(points, corners)
        assert (found <= nearest + 1e-9).all() and (nearest - found).max() < 0.02


@pytest.mark.parametrize("dim", [2, 3])
def test_scores_of_perfect_and_of_bad_rollouts(scenes, dim):
    truth = scenes["free", dim]
    right = Prediction(truth.positions.astype(float), truth.velocities.astype(float), truth.positions)
    scores = rollout_scores(truth, right)
    for name in ("mse", "mse_1", "mse_10", "gap_error", "impact_frames", "kinetic_energy_error", "transport"):
        assert scores[name] < 1e-9, name
    assert scores["momentum_drift"] < 1e-4 and scores["diverged"] == 0 and "mse_49" not in scores
    assert gaps(truth, truth.positions).min() < TOUCH  # they meet
    # The second body flies through the first.
    bad = right.positions.copy()
    centres = [bad[:, truth.body == body].mean(1) for body in (0, 1)]
    bad[:, truth.body == 1] += ((centres[0] - centres[1]) * np.linspace(0, 1, len(bad))[:, None])[:, None]
    found = rollout_scores(truth, replace(right, positions=bad))
    assert found["penetration"] > 0.03 and found["mse"] > 1e-4 and found["gap_error"] > 0.03
    wild = replace(right, positions=np.where(np.arange(len(bad))[:, None, None] > 5, np.nan, right.positions))
    summary = summarise([scores, rollout_scores(truth, wild)])
    assert summary["diverged"] == 0.5 and summary["mse"] == pytest.approx(LOST / 2)
    assert "mse_49" not in summary and summary["gap_error"] < 1e-9


@pytest.mark.parametrize(("world", "name"), [("pusher", "pusher"), ("box", "wall")])
@pytest.mark.parametrize("dim", [2, 3])
def test_scores_of_what_pushers_and_walls_do(dim, world, name):
    truth = simulate(random_scene(SceneSettings(dim, world, (1, 1)), 5), 60)
    right = Prediction(truth.positions.astype(float), truth.velocities.astype(float), truth.positions)
    scores = rollout_scores(truth, right)
    assert "penetration" not in scores  # there is one body
    assert scores[f"{name}_penetration"] < 2e-3 and scores[f"{name}_gap_error"] < 1e-6
    # The body is drawn into the pusher, or through the floor.
    soft = ~truth.kinematic
    aim = (
        truth.positions[-1, truth.kinematic].mean(0)
        if name == "pusher"
        else 1.3 * truth.walls[0, :-1] * truth.walls[0, -1]
    )
    bad = right.positions.copy()
    bad[:, soft] += np.linspace(0, 1, len(bad))[:, None, None] * (aim - bad[-1, soft].mean(0))
    found = rollout_scores(truth, replace(right, positions=bad))
    assert found[f"{name}_penetration"] > 0.02 and found[f"{name}_gap_error"] > 0.01


MEASURES = {"free": gaps, "pusher": pusher_gaps, "box": wall_gaps}


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("world", MEASURES)
def test_surfaces_are_pushed_apart(scenes, world, dim):
    truth, measure = scenes[world, dim], MEASURES[world]
    touch = CONTACT_RADIUS * (2 if world == "free" else 1)
    now = truth.positions[measure(truth, truth.positions).argmin()].astype(float)
    if world == "box":
        inside = now @ truth.walls[:, :-1].T - truth.walls[:, -1]
        point, wall = np.unravel_index(inside.argmin(), inside.shape)
        own, aim = truth.body == truth.body[point], -truth.walls[wall, :-1]
    else:  # towards the middle of the body that it meets
        own = truth.body == 1 if world == "free" else truth.kinematic
        aim = now[truth.body == 0].mean(0) - now[own].mean(0)
    aim = own[:, None] * aim / np.linalg.norm(aim)
    deep = now[None] + (0.022 if world == "free" else 0.012) * aim
    assert measure(truth, deep).min() < touch - 0.004
    mended = separated(truth, deep)
    assert measure(truth, mended).min() > max(0, measure(truth, deep).min() + 0.002)
    assert np.linalg.norm(mended - deep, axis=-1).max() < 0.035
    if world == "free":
        np.testing.assert_array_equal(separated(truth, truth.positions[:1]), truth.positions[:1])  # no touch yet
    matrix, shift = random_rotation(dim, np.random.default_rng(1)), np.full(dim, 0.3)
    turned = separated(transformed(truth, matrix, shift), deep @ matrix.T + shift)
    np.testing.assert_allclose(turned, mended @ matrix.T + shift, atol=1e-6)


def test_what_is_pushed_apart_is_told_apart_from_what_a_model_predicts(scenes):
    truth, model = scenes["free", 2], network("eqcollide")
    own = predict(model, [truth], 12)[0]
    apart = pushed_apart(truth, own)
    assert gaps(truth, apart.positions).min() > gaps(truth, own.positions).min() + 0.001
    np.testing.assert_array_equal(apart.positions[0], own.positions[0])
    np.testing.assert_array_equal(apart.latent, own.latent)
    np.testing.assert_array_equal(apart.velocities, own.velocities)
    scores, least = rollout_scores(truth, own), true_gaps(truth)[:13].min()
    assert scores["gap_error"] == pytest.approx(abs(gaps(truth, own.positions).min() - least))
    assert scores["apart_gap_error"] == pytest.approx(abs(gaps(truth, apart.positions).min() - least))
    assert scores["apart_gap_error"] < scores["gap_error"]


def test_a_missed_touch_counts_as_missed_by_all_frames():
    far, near = np.full(20, 0.04), np.r_[np.full(12, 0.04), np.full(8, 0.001)]
    assert contact_scores(far, near, TOUCH)["impact_frames"] == 20 and contact_scores(far, near, TOUCH)["missed_impact"]
    assert "impact_frames" not in contact_scores(far, far, TOUCH)
    shifted = np.r_[np.full(14, 0.04), np.full(6, -0.002)]
    assert contact_scores(shifted, near, TOUCH) == {
        "penetration": 0.002, "gap_error": pytest.approx(0.003), "missed_impact": 0.0, "impact_frames": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_simulator_steps_as_it_was_judged(scenes, name):
    """Behind the simulator's contract a model is the one that was trained, or is refused."""
    model = network(name)
    if name in ("gns", "first_order"):
        with pytest.raises(ValueError, match="wants more than positions and velocities"):
            LearnedSimulator(model)
        return
    simulator, scene = LearnedSimulator(model), random_scene(SceneSettings(2, "pusher"), 3)
    state = simulator.reset(scene)
    whole = predict(model, [simulator.described], 20)[0]
    for _ in range(20):
        state = simulator.step(state, FRAME)
    np.testing.assert_allclose(state.positions, whole.positions[-1], atol=1e-9)


def test_equations_of_first_order_refuse_what_they_do_not_know(scenes):
    for world in ("box", "pusher"):
        with pytest.raises(ValueError, match="know no gravity, drag or walls"):
            predict(network("first_order"), [scenes[world, 2]], 1)


def test_scenes_with_more_walls_than_a_model_has_room_for(scenes):
    crowded = replace(scenes["box", 2], walls=np.concatenate([scenes["box", 2].walls] * 2))
    for name in ("gns", "meshgraphnets"):
        with pytest.raises(ValueError, match="knows at most 3 walls, the scene has"):
            predict(network(name), [crowded], 1)


def test_windows_repeat_themselves_and_noise_needs_no_target(scenes):
    own = [scenes["free", 2], scenes["pusher", 2]]
    model = network("gns", dtype=torch.float32)
    data = TrajectoryDataModule(model, own, own, 2, 5, 6, [1, 4], seed=3, turn=True)
    assert [data.frames(epoch) for epoch in range(6)] == [1, 1, 1, 4, 4, 4]
    first, again = _Windows(data, 4, 0)[2], _Windows(data, 4, 0)[2]
    assert torch.equal(first.positions, again.positions) and len(first.speeds) == 4
    assert not torch.equal(first.positions, _Windows(data, 4, 1)[2].positions)
    assert first.past.shape == (4, *first.positions.shape[1:])
    module = SimulatorModule(model, 1e-3, 0.05, 10, 0)
    loss = module.loss(first)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", MODELS)
def test_files_of_simulators(tmp_path, scenes, name):
    recipe = Recipe(name, 2, SMALL.get(name, {}))
    model = network(name, dtype=torch.float32)
    own = [scenes["free", 2]]
    save(tmp_path / "simulator.pt", recipe, model, Range.of(own))
    again = predict(load(tmp_path / "simulator.pt"), own, 4)[0]
    np.testing.assert_array_equal(again.positions, predict(model, own, 4)[0].positions)


def test_bad_files_of_simulators(tmp_path):
    with pytest.raises(ValueError, match=r"train one: python train\.py sim="):
        load(tmp_path / "none.pt")
    (tmp_path / "half.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "half.pt")
    with pytest.raises(ValueError, match="unknown simulator 'magic'; choose of eqcollide"):
        Recipe("magic", 2, {}).build()
