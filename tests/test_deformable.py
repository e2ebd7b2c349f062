"""PushSoft and SortSoft: one environment in two simulators."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from conftest import program
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv

import envs  # noqa: F401
from envs import Phase
from envs.deformable.arm import TABLE
from sims.build import Recipe, save
from sims.flex import SimulationError
from sims.model import Range
from trace_il.env_config import SortSoftConfig, env_of, env_options
from trace_il.environment import make_env
from trace_il.errors import UserError

NAMES = ("PushSoft-v0", "SortSoft-v0")
EVERY = (*NAMES, "PushSoftArm-v0")
WIDE = Range(10.0, 0.1, 3.0)


def file(folder, seen: Range = WIDE, dim: int = 2) -> str:
    torch.manual_seed(0)
    recipe = Recipe("eqcollide", dim, {})
    path = folder / f"simulator_{dim}_{seen.speed}.pt"
    save(path, recipe, recipe.build(), seen)
    return str(path)


@pytest.fixture(scope="module")
def simulators(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("simulator")
    return {name: file(folder, dim=3 if name == "PushSoftArm-v0" else 2) for name in EVERY}


@pytest.fixture(scope="module")
def simulator(simulators) -> str:
    return simulators["PushSoft-v0"]


def make(name: str, backend: str, simulator: str, **more):
    options = {"backend": "learned", "simulator": simulator} if backend == "learned" else {}
    return gymnasium.make(name, disable_env_checker=True, **options, **more).unwrapped


def episode(env, seed: int, disturbance: float = 0.0, cue: int | None = None, steps: int = 1000):
    observation, info = env.reset(seed=seed, options=None if cue is None else {"cue": cue})
    expert, out = env.make_expert(disturbance), [(observation, info)]
    for _ in range(steps):
        observation, _, terminated, truncated, info = env.step(expert.action().executed)
        out.append((observation, info))
        if terminated or truncated:
            break
    return out


@pytest.mark.parametrize("backend", ["mujoco", "learned"])
@pytest.mark.parametrize("name", EVERY)
def test_gymnasium_accepts_it_and_it_repeats_itself(name, backend, simulators):
    env = make(name, backend, simulators[name])
    check_env(env, skip_render_check=True)
    other = make(name, backend, simulators[name])
    episode(other, 5, 1.0, steps=20)
    for (one, _), (two, _) in zip(episode(env, 3, 1.0, steps=40), episode(other, 3, 1.0, steps=40), strict=True):
        assert one["agent_pos"].tobytes() == two["agent_pos"].tobytes()
        for camera, picture in one["pixels"].items():
            assert picture.tobytes() == two["pixels"][camera].tobytes()
    assert env.render().shape[0] == 480


@pytest.mark.parametrize("name", EVERY)
def test_backends_begin_alike(name, simulators):
    one, two = (make(name, backend, simulators[name]) for backend in ("mujoco", "learned"))
    assert one.observation_space == two.observation_space and one.action_space == two.action_space
    for seed in range(3):
        (first, info), (second, other) = one.reset(seed=seed), two.reset(seed=seed)
        assert info == other
        for camera, picture in first["pixels"].items():
            assert np.array_equal(picture, second["pixels"][camera])


@pytest.mark.parametrize("name", NAMES)
def test_experts_of_the_ground_truth(name):
    env = make(name, "mujoco", "")
    for disturbance in (0.0, 1.0):
        outcomes = [episode(env, seed, disturbance)[-1][1] for seed in range(9_000_000, 9_000_006)]
        assert sum(info["is_success"] for info in outcomes) >= (6 if disturbance == 0 else 5)
        assert all(info["branch_correct"] == 1 for info in outcomes if name == "SortSoft-v0" and info["is_success"])


def test_the_lamp_alone_tells_the_bin_and_goes_out():
    env = make("SortSoft-v0", "mujoco", "")
    red, blue = (episode(env, 4, 1.0, cue) for cue in (0, 1))
    assert not np.array_equal(red[0][0]["pixels"]["overhead"], blue[0][0]["pixels"]["overhead"])
    shared = [t for t, (_, info) in enumerate(red) if info["phase"] == Phase.SHARED]
    assert len(shared) > 30
    for t in shared:
        assert np.array_equal(red[t][0]["pixels"]["overhead"], blue[t][0]["pixels"]["overhead"])
        assert np.array_equal(red[t][0]["agent_pos"], blue[t][0]["agent_pos"])
    counts = [
        sum(info["phase"] == Phase.SHARED for _, info in episode(make("SortSoft-v0", "mujoco", "", delay=delay), 4))
        for delay in (1.0, 2.0)
    ]
    assert counts[1] > 1.6 * counts[0]


def test_leaving_what_the_simulator_knows_ends_an_episode(tmp_path):
    narrow = file(tmp_path, Range(0.05, 0.99, 1.01))
    out = episode(make("PushSoft-v0", "learned", narrow), 1)
    assert "training knew" in out[-1][1]["ood_reason"] or "of its length" in out[-1][1]["ood_reason"]
    assert out[-1][1]["ood"] and not any(info["ood"] for _, info in out[:-1]) and len(out) < 100
    with pytest.raises(SimulationError, match=r"(training knew|of its length).*on_ood=truncate"):
        episode(make("PushSoft-v0", "learned", narrow, on_ood="error"), 1)


def test_materials_and_drag_that_the_simulator_does_not_know(tmp_path):
    soft, light = Range(10.0, 0.1, 3.0, (1e3, 2e3)), Range(10.0, 0.1, 3.0, drag=(0.0, 2.0))
    for known, reason in ((soft, "Young"), (light, "drag is 8")):
        with pytest.raises(SimulationError, match=reason):
            episode(make("PushSoft-v0", "learned", file(tmp_path, known), on_ood="error"), 1)


def test_the_arm_pushes_a_soft_block_onto_the_mark():
    env = gymnasium.make("PushSoftArm-v0", disable_env_checker=True, render_mode="rgb_array").unwrapped
    outcomes = [episode(env, seed, disturbance)[-1][1] for seed, disturbance in ((1, 0.0), (2, 0.0), (3, 1.0))]
    assert [info["is_success"] for info in outcomes] == [True] * 3 and outcomes[0]["branch_correct"] == -1
    # The block lies on the table, and gives way where it is pushed: its points leave the places of a rigid block.
    env.reset(seed=5)
    expert, off, height = env.make_expert(), [], []
    for _ in range(100):
        env.step(expert.action().executed)
        _, points, angle = env.task.pose(env.data)
        cos, sin = np.cos(angle), np.sin(angle)
        off.append(np.abs(points - env.task.mesh.points[:, :2] @ np.array([[cos, sin], [-sin, cos]])).max())
        height.append(env.world.body[:, 2].min() - TABLE)
        assert np.array_equal(env.data.flexvert_xpos, env.world.body)  # what the cameras see
    assert 3e-4 < max(off) < 0.005 and min(height) > 0 and max(height) < 0.006


@pytest.mark.parametrize("name", EVERY)
def test_the_viewer_gets_triangles_of_the_body_where_it_is(name):
    env = make(name, "mujoco", "")
    episode(env, 0, steps=5)
    (body,) = [shape for shape in env.scene_geometry() if shape["kind"] == "mesh"]
    faces, points = body["faces"], body["vertices"]
    assert faces.shape[1] == 3 and faces.max() == len(points) - 1
    assert np.allclose(points[:, : env.world.body.shape[1]], env.world.body, atol=1e-6)
    if name == "PushSoftArm-v0":  # a closed surface with its volume inside
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        assert np.linalg.det(points[faces]).sum() / 6 == pytest.approx(env.task.mesh.volumes.sum(), rel=0.02)


def test_the_arm_in_a_simulator_that_does_not_know_its_block(tmp_path):
    narrow = file(tmp_path, Range(0.01, 0.99, 1.01), dim=3)
    assert episode(make("PushSoftArm-v0", "learned", narrow), 1)[-1][1]["ood"]
    with pytest.raises(SimulationError, match=r"(training knew|of its length).*on_ood=truncate"):
        episode(make("PushSoftArm-v0", "learned", narrow, on_ood="error"), 1)
    with pytest.raises(ValueError, match="2 dimensions, this environment has 3"):
        make("PushSoftArm-v0", "learned", file(tmp_path))
    with pytest.raises(ValueError, match=r"env=soft_bodies_3d env.world=table"):
        gymnasium.make("PushSoftArm-v0", backend="learned")


def test_an_arm_whose_physics_diverges_ends_its_episode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the engine writes a log
    env = gymnasium.make("PushSoftArm-v0").unwrapped
    env.reset(seed=0)
    *_, truncated, info = env.step(env.make_expert().action().executed)
    assert not truncated and not info["ood"]
    env.data.qvel[-1] = 1e12
    *_, terminated, truncated, info = env.step(np.zeros(17))
    assert truncated and not terminated and info["ood"]
    env.reset(seed=0)
    assert not env.step(env.make_expert().action().executed)[4]["ood"]
    env.close()


def test_many_at_once(simulator):
    options = {"backend": "learned", "simulator": simulator}
    makers = [lambda: gymnasium.make("envs:PushSoft-v0", disable_env_checker=True, **options)] * 2
    vector = AsyncVectorEnv(makers, context="spawn")
    observation, _ = vector.reset(seed=[1, 1])
    assert np.array_equal(*observation["pixels"]["overhead"])
    vector.close()


def test_policies_are_judged_in_the_ground_truth(simulator):
    config = SortSoftConfig(backend="learned", simulator=simulator)
    assert env_options(config)["backend"] == "mujoco"
    assert env_options(config, collecting=True)["backend"] == "learned"
    for judged_in in ("mujoco", "learned"):  # what an exported policy names is judged as the run was
        asked = env_options(replace(config, judged_in=judged_in))
        assert env_options(env_of(config.id, asked)) == asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "bullet"}, "backend must be one of"),
        ({"backend": "learned"}, "train one: python train.py sim=eqcollide"),
        ({"backend": "learned", "simulator": "nowhere.pt"}, "no simulator at nowhere.pt"),
        ({"image_size": 8}, "image_size must be in 16..640, got 8"),
        ({"on_ood": "ignore"}, "on_ood must be truncate or error"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        make_env("PushSoft-v0", options)


def test_a_simulator_of_other_dimensions_and_bad_actions(tmp_path, simulator):
    with pytest.raises(UserError, match="is of 3 dimensions, this environment has 2"):
        make_env("PushSoft-v0", {"backend": "learned", "simulator": file(tmp_path, dim=3)})
    env = make("PushSoft-v0", "mujoco", simulator)
    env.reset(seed=0)
    for bad in (np.zeros(3), np.array([np.nan, 0])):
        with pytest.raises(ValueError, match="action must be 2 finite numbers"):
            env.step(bad)
    with pytest.raises(ValueError, match=r"cue must be in 0\.\.0"):
        env.reset(options={"cue": 1})


def test_a_policy_is_trained_in_the_learned_simulator(tmp_path, simulator):
    words = ["env=sort_soft", "env.backend=learned", f"env.simulator={simulator}", "data.episodes=4", "name=tiny"]
    words += ["trainer.epochs=1", "trainer.steps_per_epoch=2", "data.batch_size=2", "evaluation.episodes=1"]
    words += ["evaluation.recording=false", "evaluation.export=false", "evaluation.cleared=false", "wandb=off"]
    program("train.py", *words, "parallel.workers=1", "trainer.threads=1", cwd=tmp_path)
    assert json.loads((tmp_path / "runs/tiny/summary.json").read_text())["scores"]["trained"]["episodes"] == 1
    collected = json.loads(next((tmp_path / "data").glob("*/meta/trace_il.json")).read_text())["collected_with"]
    assert collected["env_options"]["backend"] == "learned" and len(collected["files"]["simulator"]) == 16
    out = program("evaluate.py", "run=runs/tiny", "env.judged_in=learned", "episodes=1", "workers=1", cwd=tmp_path)
    assert "success" in out.stdout
