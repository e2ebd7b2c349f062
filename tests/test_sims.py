"""Properties of the simulators: what physics and symmetry ask of them, trained or not."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

from sims.dataset import FRAME, equivariance_floor, generate, load, moved, simulate
from sims.eqcollide.decoder import interpolation
from sims.eqcollide.encoder import control_of
from sims.eqcollide.model import EqCollide
from sims.flex import FlexSimulator, SimulationError, highest_frequencies
from sims.model import LearnedSimulator, predict
from sims.scenes import SceneSettings, random_rotation, random_scene, training_kinds
from sims.shapes import KINDS_2D, KINDS_3D, body_mesh, element_volumes, facet_normals
from sims.state import Body, Pusher, Scene, Wall


def model(dim: int, dtype: torch.dtype = torch.float64) -> EqCollide:
    torch.manual_seed(0)
    return EqCollide(dim).to(dtype)


def pair(dim: int, gap: float = 0.05, speed: float = 0.6, seed: int = 0) -> Scene:
    """Two bodies on their way to each other along x, `gap` m apart."""
    rng = np.random.default_rng(seed)
    spacing = {2: 0.0135, 3: 0.035}[dim]
    bodies = []
    for side in (-1, 1):
        x = np.eye(dim)[0] * side
        mesh = body_mesh("box" if side < 0 else training_kinds(dim)[-1], dim, 0.08, spacing, rng)
        spin = np.full(1 if dim == 2 else 3, 0.7 * side)
        turn = random_rotation(dim, rng)
        near = gap / 2 - (side * mesh.points @ turn.T)[:, 0].min()
        bodies.append(Body(mesh, near * x, turn, -speed / 2 * x, spin))
    return Scene(tuple(bodies), gravity=np.zeros(dim))


@pytest.mark.parametrize(("dim", "kind"), [*((2, kind) for kind in KINDS_2D), *((3, kind) for kind in KINDS_3D)])
def test_meshes_are_sound(dim, kind):
    for seed in range(3):
        mesh = body_mesh(kind, dim, 0.08, {2: 0.0135, 3: 0.035}[dim], np.random.default_rng(seed))
        assert mesh.volumes.min() > 0 and mesh.quality.min() > 0.2
        assert np.abs(mesh.shares @ mesh.points).max() < 1e-12 and abs(mesh.shares.sum() - 1) < 1e-12
        normals = facet_normals(mesh.points, mesh.surface)
        assert np.abs(normals.sum(0)).max() < 1e-12  # the surface is closed
        # Gauss: its normals point outwards, and enclose the volume of the elements.
        middle = mesh.points[mesh.surface].mean(1)
        assert np.einsum("fd,fd->", middle, normals) / dim == pytest.approx(mesh.volumes.sum())


@pytest.mark.parametrize("dim", [2, 3])
def test_ground_truth_keeps_momentum_and_repeats_itself(dim):
    scene = pair(dim)
    one, two = simulate(scene, 30), simulate(scene, 30)
    np.testing.assert_array_equal(one.positions, two.positions)
    momentum = np.einsum("p,tpd->td", one.mass, one.velocities)
    assert np.abs(momentum - momentum[0]).max() < 1e-5 * np.abs(one.mass[:, None] * one.velocities[0]).sum()
    energy = 0.5 * np.einsum("p,tpd,tpd->t", one.mass, one.velocities, one.velocities)
    assert energy[-1] < energy[0] and energy.min() < 0.9 * energy[0]  # they met
    volumes = element_volumes(one.positions[-1], one.elements)
    assert volumes.min() > 0


def test_ground_truth_is_equivariant_up_to_its_floor():
    floor = equivariance_floor(SceneSettings(2), 20, range(2))
    assert set(floor) == {"rotation", "translation", "reflection"} and max(floor.values()) < 2e-3


def test_gravity_walls_drag_and_pushers_of_the_ground_truth():
    mesh = body_mesh("disc", 2, 0.08, 0.0135, np.random.default_rng(0))
    body = Body(mesh, np.zeros(2), np.eye(2), np.zeros(2), np.zeros(1))
    down = np.array([0.0, -1.0])
    fallen = simulate(Scene((body,), gravity=down), 20)
    assert fallen.positions[-1, :, 1].mean() == pytest.approx(-0.5 * 0.2**2, rel=0.05)
    floor = simulate(Scene((body,), walls=(Wall(np.array([0.0, 1.0]), -0.1),), gravity=down), 60)
    assert floor.positions[..., 1].min() > -0.105
    slowed = simulate(Scene((replace(body, velocity=np.array([0.5, 0.0])),), gravity=0 * down, drag=2.0), 50)
    assert slowed.velocities[-1, :, 0].mean() == pytest.approx(0.5 * np.exp(-1), rel=0.02)
    ball = Pusher(0.02, np.array([-0.2, 0.0, 0.1]), np.array([0.1, 0.0, 0.0]))
    ball_mesh = body_mesh(training_kinds(3)[-1], 3, 0.07, 0.035, np.random.default_rng(0))
    solid = Body(ball_mesh, np.zeros(3), np.eye(3), np.zeros(3), np.zeros(3))
    there = simulate(Scene((solid,), (ball,), gravity=np.zeros(3)), 20)
    np.testing.assert_allclose(there.positions[-1, there.kinematic].mean(0), [-0.18, 0, 0.1], atol=1e-6)
    pusher = Pusher(0.02, np.array([-0.12, 0.0]), np.array([0.4, 0.0]))
    pushed = simulate(Scene((body,), (pusher,), gravity=0 * down, drag=2.0), 40)
    assert pushed.positions[-1, ~pushed.kinematic, 0].mean() > 0.02
    np.testing.assert_allclose(pushed.positions[-1, pushed.kinematic].mean(0), [-0.12 + 0.4 * 0.4, 0], atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_control_points_carry_affine_motions_momentum_and_virtual_work(dim):
    rng = np.random.default_rng(1)
    mesh = body_mesh(training_kinds(dim)[-1], dim, 0.08, {2: 0.0135, 3: 0.035}[dim], rng)
    mass = 2.0 * mesh.shares
    control = control_of(mesh.points, mass, mesh.surface, 16)
    affine, shift = rng.normal(size=(dim, dim)), rng.normal(size=dim)
    target = mesh.points @ affine + shift
    np.testing.assert_allclose(control.decode @ (control.points @ affine + shift), target, atol=1e-12)
    np.testing.assert_allclose(control.encode @ target, control.points @ affine + shift, atol=1e-10)
    velocities = rng.normal(size=mesh.points.shape)
    np.testing.assert_allclose(control.masses @ (control.encode @ velocities), mass @ velocities, atol=1e-12)
    assert control.masses.min() > 0
    # Rotating the body at rest does not change the map.
    turned = mesh.points @ random_rotation(dim, rng).T
    chosen = [int(np.abs(mesh.points - point).sum(1).argmin()) for point in control.points]
    np.testing.assert_allclose(interpolation(turned, turned[chosen]), control.decode, atol=1e-9)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("beside", ["nothing", "floor", "pusher"])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_whole_step_is_equivariant(dim, beside, dtype, limit):
    simulator, rng = LearnedSimulator(model(dim, dtype)), np.random.default_rng(0)
    scene = pair(dim, gap=0.012)  # close enough for contact within the frames
    up, alone = np.eye(dim)[-1], scene
    start = scene.start().positions
    lowest = start[(start @ up).argmin()]
    if beside == "floor":
        scene = replace(scene, gravity=-9.81 * up, walls=(Wall(up, float(lowest @ up) - 0.005),))
    if beside == "pusher":
        scene = replace(scene, pushers=(Pusher(0.02, lowest - 0.028 * up, 0.3 * up),))
    mirror = np.eye(dim)
    mirror[0, 0] = -1
    for matrix in (random_rotation(dim, rng), mirror):
        shift = rng.uniform(-0.3, 0.3, dim)
        ends = []
        for start in (scene, moved(scene, matrix, shift)):
            state = simulator.reset(start)
            for _ in range(5):
                state = simulator.step(state, FRAME)
            ends.append(state)
        soft = ~ends[0].kinematic  # the points of a pusher do not turn with it, and it makes no difference
        assert np.abs(ends[1].positions - (ends[0].positions @ matrix.T + shift))[soft].max() < limit
        assert np.abs(ends[1].velocities - ends[0].velocities @ matrix.T)[soft].max() < 50 * limit
    if beside != "nothing":  # it does touch
        state = simulator.reset(replace(alone, gravity=scene.gravity))
        for _ in range(5):
            state = simulator.step(state, FRAME)
        assert np.abs(ends[0].positions[soft] - state.positions).max() > 1e-5


@pytest.mark.parametrize("dim", [2, 3])
def test_integrators_agree_where_steps_are_small(dim):
    scene = pair(dim, gap=0.012)

    def end(integrator: str, substeps: int) -> np.ndarray:
        torch.manual_seed(0)
        simulator = LearnedSimulator(EqCollide(dim, integrator=integrator, substeps=substeps).double())
        state = simulator.reset(scene)
        for _ in range(5):
            state = simulator.step(state, FRAME)
        return state.velocities

    exact = end("rk4", 32)
    moved_by = np.abs(exact - scene.start().velocities).max()
    errors = {key: np.abs(end(*key) - exact).max() / moved_by for key in (("euler", 4), ("euler", 32), ("rk4", 4))}
    assert moved_by > 0.05 and np.abs(end("dopri5", 1) - exact).max() < 2e-3 * moved_by
    assert errors["rk4", 4] < 0.3 * errors["euler", 4] and errors["euler", 32] < 0.3 * errors["euler", 4], errors


@pytest.mark.parametrize("dim", [2, 3])
def test_momentum_is_kept_to_round_off_in_a_collision(dim):
    scene = pair(dim, gap=0.012)
    simulator = LearnedSimulator(model(dim))
    state = simulator.reset(scene)
    mass = simulator.described.mass.astype(float)
    before, own = mass @ state.velocities, state.body == 0
    first = mass[own] @ state.velocities[own]
    for _ in range(10):
        state = simulator.step(state, FRAME)
    assert np.abs(mass @ state.velocities - before).max() < 1e-10
    assert np.abs(mass[own] @ state.velocities[own] - first).max() > 1e-4  # they did touch


@pytest.mark.parametrize("dim", [2, 3])
def test_far_bodies_move_as_if_alone_and_order_does_not_matter(dim):
    scene, simulator = pair(dim, gap=0.4, speed=0.1), LearnedSimulator(model(dim))

    def run(bodies: tuple[Body, ...]) -> list[np.ndarray]:
        state = simulator.reset(replace(scene, bodies=bodies))
        for _ in range(5):
            state = simulator.step(state, FRAME)
        return [state.positions[state.body == number] for number in range(len(bodies))]

    one, two = scene.bodies
    both = run((one, two))
    np.testing.assert_array_equal(both[0], run((one,))[0])
    swapped = run((two, one))
    np.testing.assert_array_equal(both[1], swapped[0])


@pytest.mark.parametrize("dim", [2, 3])
def test_free_flight_is_rigid(dim):
    scene = pair(dim, gap=0.8, speed=0.0)
    simulator = LearnedSimulator(model(dim))
    state = simulator.reset(scene)
    rest = np.linalg.norm(state.positions[0] - state.positions[5])
    for _ in range(30):
        state = simulator.step(state, FRAME)
    assert np.linalg.norm(state.positions[0] - state.positions[5]) == pytest.approx(rest, rel=5e-3)


def test_batches_of_different_scenes_equal_single_ones():
    settings = [SceneSettings(2, "free", (1, 1)), SceneSettings(2, "box", (3, 3)), SceneSettings(2, "pusher")]
    trajectories = [simulate(random_scene(own, 3), 12) for own in settings]
    network = model(2)
    together = predict(network, trajectories, 12)
    for trajectory, result in zip(trajectories, together, strict=True):
        positions = result.positions
        np.testing.assert_allclose(predict(network, [trajectory], 12)[0].positions, positions, atol=1e-12)
        pushed = trajectory.kinematic
        np.testing.assert_allclose(positions[:, pushed], trajectory.positions[:, pushed], atol=1e-5)


def test_datasets_go_on_after_a_kill_and_are_never_half(tmp_path):
    root = tmp_path / "data"
    code = (
        "from functools import partial; from pathlib import Path; from trace_il.parallel import parallel_map\n"
        "from sims.dataset import generate; from sims.scenes import SceneSettings\n"
        "if __name__ == '__main__':\n spread = partial(parallel_map, workers=2)\n"
        f" list(generate(Path({str(root)!r}), SceneSettings(2), 12, 20, 100, spread))"
    )
    script = tmp_path / "go.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    place = {**os.environ, "PYTHONPATH": str(ROOT)}  # all of it: BLAS chooses its kernels, and last digits, by it
    process = subprocess.Popen(command, cwd=ROOT, env=place, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(root.glob("0*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(ValueError, match="not complete"):
        load(root)
    deadline = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):  # once none of its workers is left
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    before = {path.name: path.stat().st_mtime_ns for path in root.glob("0*.npz")}
    assert 3 <= len(before) < 12
    assert list(generate(root, SceneSettings(2), 12, 20, 100))[-1] == 12
    assert all((root / name).stat().st_mtime_ns == stamp for name, stamp in before.items())
    trajectories = load(root)
    assert len(trajectories) == 12 and all(trajectory.frames == 20 for trajectory in trajectories)
    assert json.loads((root / "complete.json").read_text())["rejected"] >= 0
    again = simulate(random_scene(SceneSettings(2), int(trajectories[5].seed)), 20)
    np.testing.assert_array_equal(again.positions, trajectories[5].positions)
    with pytest.raises(ValueError, match="count=12, asked for 13"):
        next(generate(root, SceneSettings(2), 13, 20, 100))
    damaged = root / "00003.npz"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"00003\.npz is missing or damaged"):
        load(root)
    damaged.unlink()
    with pytest.raises(ValueError, match=r"00003\.npz is missing or damaged"):
        load(root)


def test_a_diverging_scene_is_an_error():
    scene = pair(2, speed=30.0)
    with pytest.raises(SimulationError, match=r"inside out|diverged"):
        simulate(scene, 30)
    simulator = FlexSimulator()
    start = simulator.reset(pair(2))
    after = simulator.step(start, FRAME)
    with pytest.raises(SimulationError, match="diverged"):
        simulator.step(replace(start, velocities=1e12 + start.velocities), FRAME)
    np.testing.assert_array_equal(simulator.step(start, FRAME).positions, after.positions)


@pytest.mark.parametrize("dim", [2, 3])
def test_pushers_meet_the_bodies(dim):
    pushed = rejected = 0
    for seed in range(8):
        try:
            trajectory = simulate(random_scene(SceneSettings(dim, "pusher", (1, 2)), seed), 30)
        except SimulationError:  # as when data are generated
            rejected += 1
            continue
        soft = ~trajectory.kinematic
        change = trajectory.velocities[-1, soft].mean(0) - np.exp(-2 * 0.3) * trajectory.velocities[0, soft].mean(0)
        pushed += bool(np.linalg.norm(change) > 0.02)
    assert pushed >= 5 and rejected <= 2


def test_bodies_are_pushed_over_a_table_and_stay_on_it():
    moved = []
    for seed in range(6):
        scene = random_scene(SceneSettings(3, "table", (1, 2)), seed)
        trajectory = simulate(scene, 40)
        soft = trajectory.positions[:, ~trajectory.kinematic]
        lowest = [soft[:, trajectory.body[~trajectory.kinematic] == i, 2].min(1) for i in range(len(scene.bodies))]
        assert all(low.min() > 0 and low.max() < 0.02 for low in lowest)  # m; tilted a little at most
        assert trajectory.positions[:, trajectory.kinematic, 2].std(0).max() < 1e-6  # pushers stay level
        moved.append(float(np.linalg.norm((soft[-1] - soft[0])[:, :2], axis=1).max()))
    assert np.median(moved) > 0.05


@pytest.mark.parametrize("dim", [2, 3])
def test_no_mesh_is_faster_than_its_fastest_element(dim):
    body = random_scene(SceneSettings(dim), 2_700_004).bodies[0]
    still = replace(body, velocity=np.zeros(dim), spin=0 * body.spin)
    simulator, small, dt = FlexSimulator(), 1e-6, 1e-6
    start = simulator.reset(Scene((still,), gravity=np.zeros(dim)))
    shape = np.random.default_rng(0).normal(size=start.positions.shape)
    for _ in range(60):  # power iteration on what a small displacement is accelerated by
        displaced = start.positions + small * shape / np.linalg.norm(shape)
        shape = simulator.step(replace(start, positions=displaced), dt).velocities / dt
    bound = highest_frequencies(body.mesh, body.young).max()
    assert 0.7 * bound < np.sqrt(np.linalg.norm(shape) / small) <= 1.01 * bound


@pytest.mark.parametrize("seed", [2_700_025, 2_700_029])  # with steps of 0.5 ms they rang at 1.2 and 1.5 m/s
def test_velocities_are_what_positions_change_by(seed):
    trajectory = simulate(random_scene(SceneSettings(2), seed), 49)
    change = np.diff(trajectory.positions, axis=0) / FRAME - trajectory.velocities[1:]
    assert np.sqrt((change[-10:] ** 2).sum(-1).mean(0)).max() < 0.1
