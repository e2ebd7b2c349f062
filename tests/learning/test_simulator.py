"""Training a simulator works: far better than rigid flight, stable for long, and good enough to act in."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from conftest import program

import envs  # noqa: F401
from sims.build import load
from sims.dataset import describe
from sims.model import predict
from sims.scenes import SceneSettings, random_scene

COMMON = ["env.world=mixed", "env.bodies=[1,3]", "data.trajectories=96", "data.validation=6"]
COMMON += ["evaluation.scenes=16", "evaluation.recording=false", "wandb=off"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulator")
    for name, more in (("eqcollide", ["trainer.epochs=5", "trainer.steps_per_epoch=40"]), ("ballistic", [])):
        program("train.py", f"sim={name}", *COMMON, *more, f"name={name}", cwd=folder, timeout=1800)
    return folder


def test_it_predicts_collisions(folder):
    own, rigid = (
        json.loads((folder / f"runs/{name}/summary.json").read_text())["scores"]["trained"]
        for name in ("eqcollide", "ballistic")
    )
    assert own["mse"] < 0.15 * rigid["mse"] and own["mse"] < 5e-4 and own["diverged"] == 0, (own, rigid)
    assert own["gap_error"] < 0.006 and own["apart_gap_error"] < 0.006 and own["impact_frames_median"] <= 1, own


def test_no_scene_diverges_for_four_times_as_long(folder):
    model = load(folder / "runs/eqcollide/simulator.pt")
    scenes = [random_scene(SceneSettings(2, "free", (2, 3)), 2_400_000 + number) for number in range(100)]
    starts = [describe(scene, [scene.start()], 0) for scene in scenes]
    for start, result in zip(starts, predict(model, starts, 196), strict=True):
        energy = 0.5 * np.einsum("p,tpd,tpd->t", start.mass, result.velocities, result.velocities)
        assert np.isfinite(result.positions).all() and energy.max() < 1.05 * energy[0]


def test_half_the_points_move_alike(folder):
    model = load(folder / "runs/eqcollide/simulator.pt")
    fine, coarse = (random_scene(SceneSettings(2, kinds=("disc",), spacing=gap), 2_400_007) for gap in (0.0, 0.019))
    pairs = zip(fine.bodies, coarse.bodies, strict=True)
    coarse = replace(fine, bodies=tuple(replace(own, mesh=other.mesh) for own, other in pairs))
    assert len(fine.bodies[0].mesh.points) > 1.7 * len(coarse.bodies[0].mesh.points)
    ends = []
    for scene in (fine, coarse):
        start = describe(scene, [scene.start()], 0)
        result = predict(model, [start], 49)[0]
        ends.append([result.positions[-1, start.body == body].mean(0) for body in range(len(scene.bodies))])
    assert np.abs(np.array(ends[0]) - np.array(ends[1])).max() < 0.02


@pytest.mark.parametrize("name", ["PushSoft-v0", "SortSoft-v0"])
def test_experts_succeed_in_it(folder, name):
    options = {"backend": "learned", "simulator": str(folder / "runs/eqcollide/simulator.pt")}
    env = gymnasium.make(name, disable_env_checker=True, **options).unwrapped
    successes = 0
    for seed in range(9_000_000, 9_000_010):
        env.reset(seed=seed)
        expert, done = env.make_expert(1.0), False
        while not done:
            _, _, terminated, truncated, info = env.step(expert.action().executed)
            done = terminated or truncated
        successes += info["is_success"]
    assert successes >= 9
