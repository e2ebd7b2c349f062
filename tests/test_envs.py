import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401
from envs import Phase
from envs.delayed_evidence.env import CAMERAS, DelayedEvidenceEnv
from envs.delayed_evidence.scene import Factors
from envs.delayed_evidence.tasks import TASKS
from trace_il import env_config
from trace_il.environment import camera_sizes, make_env
from trace_il.errors import UserError

WINDOW = 5  # control steps between ticks: the policy's observation window
ENVS = [("Corridor-v0", {})] + [("DelayedEvidence-v0", {"task": task}) for task in TASKS]
IDS = [options.get("task", name) for name, options in ENVS]
VISUAL = [(name, options) for name, options in ENVS if not options or TASKS[options["task"]].visual_only]


def make(name: str, options: dict, **more):
    return gymnasium.make(name, disable_env_checker=True, **options, **more).unwrapped


def run_expert(env, seed: int, cue: int | None = None, disturbance: float = 0.0):
    """Observations, infos and labels of an expert episode; entry t is before action t."""
    observation, info = env.reset(seed=seed, options=None if cue is None else {"cue": cue})
    expert = env.make_expert(disturbance)
    observations, infos, labels, done = [observation], [info], [], False
    while not done:
        action = expert.action()
        labels.append(action.label)
        observation, _, terminated, truncated, info = env.step(action.executed)
        observations.append(observation)
        infos.append(info)
        done = terminated or truncated
    return observations, infos, labels


@pytest.mark.parametrize(("name", "options"), ENVS, ids=IDS)
def test_gymnasium_accepts_it(name, options):
    env = make(name, options)
    check_env(env, skip_render_check=True)
    assert env.reset(seed=0)[1].keys() >= {"stage", "progress", "is_success", "branch_correct", "phase", "cue"}
    env.close()


@pytest.mark.parametrize(("name", "options"), ENVS, ids=IDS)
def test_same_seed_same_bytes(name, options):
    """Also when other episodes ran before."""
    one, two = make(name, options), make(name, options)
    run_expert(two, 5, disturbance=1.0)
    steps = 60
    for env in (one, two):
        env.reset(seed=3)
    experts = [env.make_expert(1.0) for env in (one, two)]
    for _ in range(steps):
        results = [env.step(expert.action().executed)[0] for env, expert in zip((one, two), experts, strict=True)]
        assert results[0]["agent_pos"].tobytes() == results[1]["agent_pos"].tobytes()
        for camera in results[0]["pixels"]:
            assert results[0]["pixels"][camera].tobytes() == results[1]["pixels"][camera].tobytes()


@pytest.mark.parametrize(("name", "options"), ENVS, ids=IDS)
def test_expert_succeeds_on_fresh_seeds(name, options):
    env = make(name, {**options, "camera_period": 1000})
    outcomes = [run_expert(env, seed)[1][-1] for seed in range(9_000_000, 9_000_010)]
    assert sum(info["is_success"] for info in outcomes) >= 10
    assert all(info["progress"] == 1 and info["branch_correct"] == 1 for info in outcomes)
    disturbed = [run_expert(env, seed, disturbance=1.0)[1][-1]["is_success"] for seed in range(9_000_010, 9_000_016)]
    assert sum(disturbed) >= 4  # failed demonstrations are not recorded


def divergence(labels: dict[int, list[np.ndarray]]) -> int:
    """First step at which the expert's action depends on the cue."""
    return next(t for t, (a, b) in enumerate(zip(labels[0], labels[1], strict=False)) if not np.array_equal(a, b))


@pytest.mark.parametrize(("name", "options"), VISUAL, ids=[options.get("task", name) for name, options in VISUAL])
@pytest.mark.parametrize("seed", [1, 2])
def test_visual_cue_is_invisible_at_the_branch(name, options, seed):
    """Same seed, other cue: identical states and frames outside the cue, different frames during it."""
    env = make(name, options)
    runs = {cue: run_expert(env, seed, cue, disturbance=1.0) for cue in range(2)}
    assert all(infos[-1]["is_success"] for _, infos, _ in runs.values())
    branch = divergence({cue: run[2] for cue, run in runs.items()})
    phases = [info["phase"] for info in runs[0][1]]
    cue_steps = [t for t, phase in enumerate(phases) if phase == Phase.CUE]
    assert branch - cue_steps[-1] >= (160 if name.startswith("Delayed") else env.delay - 15)
    different = []
    for t in range(branch + 1):
        a, b = runs[0][0][t], runs[1][0][t]
        np.testing.assert_array_equal(a["agent_pos"], b["agent_pos"])
        if any(not np.array_equal(a["pixels"][camera], b["pixels"][camera]) for camera in a["pixels"]):
            different.append(t)
    assert different and set(different) <= set(cue_steps)  # nothing at the branch, nor before the cue
    assert len(different) > len(cue_steps) / 2
    env.close()


ORIGINS = [("book", 2), ("book", 4), ("laundry", 2), ("laundry", 4), ("cable", 2), ("cable", 4)]


@pytest.mark.parametrize(("task", "values"), ORIGINS)
@pytest.mark.parametrize(("seed", "disturbance"), [(0, 0.0), (1, 1.0)])
def test_origin_cue_is_invisible_at_the_branch(task, values, seed, disturbance):
    env = make("DelayedEvidence-v0", {"task": task, "cue_values": values})
    pair = (0, values // 2 if values > 2 else 1)
    runs = dict(enumerate(run_expert(env, seed, cue, disturbance) for cue in pair))
    branch = env.task.script(env.layout, 0).branch_step
    for t in range(branch - WINDOW + 1, branch + 1):
        a, b = runs[0][0][t], runs[1][0][t]
        assert np.abs(a["agent_pos"] - b["agent_pos"]).max() < 1e-2
        for camera in a["pixels"]:
            difference = np.abs(a["pixels"][camera].astype(float) - b["pixels"][camera]).mean()
            assert difference < 1.0, f"{camera}: {difference:.3f} of 255"
    first = runs[0][0][0]["pixels"]["overhead"], runs[1][0][0]["pixels"]["overhead"]
    assert not np.array_equal(*first)  # at the start it can be seen where the thing is
    for run in runs.values():
        assert branch - max(t for t, info in enumerate(run[1]) if info["phase"] == Phase.CUE) >= 160
    env.close()


@pytest.mark.parametrize("task", list(TASKS))
def test_a_wrong_branch_is_told_from_the_right_one(task):
    """An expert that believes another cue from the branch on fails there and nowhere else, with every value."""
    most = TASKS[task].max_cue_values
    env = make("DelayedEvidence-v0", {"task": task, "cue_values": most, "camera_period": 1000})
    for cue, seed in ((cue, 4 + cue) for cue in range(1 if task.endswith("_active") else most)):
        for believed in (cue, (cue + 1) % most):
            env.reset(seed=seed, options={"cue": cue})
            experts = {cue: env.make_expert(1.0)}
            env.cue = believed
            experts.setdefault(believed, env.make_expert(1.0))
            env.cue, done, info = cue, False, {"phase": -1}
            while not done:
                actions = {value: expert.action() for value, expert in experts.items()}
                now = believed if info["phase"] == Phase.BRANCH else cue
                _, _, terminated, truncated, info = env.step(actions[now].executed)
                done = terminated or truncated
            assert info["branch_correct"] == int(believed == cue), (cue, believed, info)
            assert info["is_success"] == (believed == cue) and (believed == cue or info["progress"] < 1)


def test_scene_geometry_shows_the_cloth_where_it_is():
    env = make("DelayedEvidence-v0", {"task": "laundry", "camera_period": 1000})
    env.reset(seed=3)
    for _ in range(3):
        env.step(env.make_expert().action().executed)
    (cloth,) = [shape for shape in env.scene_geometry() if shape["kind"] == "mesh"]
    assert set(cloth["faces"].flat) == set(range(len(cloth["vertices"])))
    (hanger,) = [shape for shape in env.scene_geometry() if shape["name"] == "garment_hanger"]
    hangs = hanger["position"][2] - cloth["vertices"][:, 2]
    assert abs(hangs.min()) < 0.01 and 0.12 < hangs.max() < 0.15


def test_large_images_and_vector_env():
    env = make("DelayedEvidence-v0", {"image_size": 224})
    assert env.reset(seed=0)[0]["pixels"]["left_wrist"].shape == (224, 224, 3)
    env.close()
    vector = gymnasium.vector.AsyncVectorEnv(
        [lambda: gymnasium.make("envs:DelayedEvidence-v0", disable_env_checker=True)] * 2, context="spawn"
    )
    observation, info = vector.reset(seed=[0, 1])
    observation, *_, info = vector.step(vector.action_space.sample())
    assert observation["pixels"]["overhead"].shape == (2, 64, 64, 3) and info["phase"].shape == (2,)
    vector.close()


KNOBS = {"late": 20, "decoys": 3, "factors": "held_out"}


@pytest.mark.parametrize("task", list(TASKS))
def test_expert_succeeds_with_every_knob_turned(task):
    most = TASKS[task].max_cue_values
    options = {"task": task, "camera_period": 1000, **KNOBS}
    if task.endswith("_active"):
        with pytest.raises(ValueError, match="its cue leaves view when it was found"):
            DelayedEvidenceEnv(task, late=20)
        del options["late"]
    plain, slow = (make("DelayedEvidence-v0", {**options, "cue_values": most, "delay": d}) for d in (1.0, 1.5))
    for cue in range(most):
        (_, quick, _), (_, long, _) = run_expert(plain, 5, cue), run_expert(slow, 5, cue)
        assert quick[-1]["is_success"] and long[-1]["is_success"] and long[-1]["cue"] == cue
        shared = [sum(info["phase"] == Phase.SHARED for info in infos) for infos in (quick, long)]
        assert 1.35 < shared[1] / shared[0] < 1.6
    cues = [[info["phase"] >= Phase.SHARED for info in run_expert(plain, seed, 0)[1]].index(True) for seed in range(4)]
    longest = 24 if not task.endswith("_active") else 120  # to look for it takes as long as it takes
    assert 3 < np.ptp(cues) <= longest  # the evidence leaves view at another time in every episode


@pytest.mark.parametrize("task", list(TASKS))
def test_nothing_is_inside_anything_at_the_start(task):
    env = DelayedEvidenceEnv(task, camera_period=1000, cue_values=TASKS[task].max_cue_values)
    for seed, cue in itertools.product(range(5), range(env.cue_values)):
        env.reset(seed=seed, options={"cue": cue})
        contact = env.data.contact
        names = [[env.model.geom(g).name for g in pair] for pair in contact.geom[contact.dist < -0.002]]
        assert not names, (seed, cue, names)
    env.close()


@pytest.mark.parametrize("task", list(TASKS))
def test_decoys_are_where_a_camera_sees_them(task):
    env = make("DelayedEvidence-v0", {"task": task, "decoys": 3, "camera_period": 1000})
    for seed in (1, 2):
        env.reset(seed=seed)
        expert, done, seen = env.make_expert(), False, dict.fromkeys(range(3), 0.0)
        while not done:
            _, _, terminated, truncated, _ = env.step(expert.action().executed)
            done = terminated or truncated
            for number in seen:
                if env.steps % 5 == 0 and env.model.geom(f"decoy_{number}").rgba[3]:
                    shares = [env.share_in_view(env.data, camera, f"decoy_{number}") for camera in CAMERAS]
                    seen[number] = max(seen[number], *shares)
        assert sum(64 * 64 * share >= 2 for share in seen.values()) >= 2, seen  # one may stand behind a hand


@pytest.mark.parametrize("task", ["medicine", "book"])
def test_decoys_come_after_the_cue_and_go_before_the_branch(task):
    env, without = (make("DelayedEvidence-v0", {"task": task, "decoys": n, "camera_period": 5}) for n in (3, 0))
    observations, infos, labels = run_expert(env, 1)
    expected, _, expected_labels = run_expert(without, 1)
    np.testing.assert_array_equal(labels, expected_labels)  # they are only seen
    changed = [
        infos[step]["phase"]
        for step in range(0, len(infos), 5)
        if any((observations[step]["pixels"][c] != expected[step]["pixels"][c]).any() for c in expected[0]["pixels"])
    ]
    assert set(changed) == {Phase.SHARED}


def test_held_out_factors_are_not_those_of_training():
    rng = np.random.default_rng(0)
    low, high = np.array([0.0, -2.0]), np.array([1.0, 2.0])
    place = {s: (Factors(rng, s).uniform(low, high, (500, 2)) - low) / (high - low) for s in ("train", "held_out")}
    assert place["train"].min() >= 0.1 and place["train"].max() <= 0.9
    held_out = place["held_out"]
    assert ((held_out <= 0.1) | (held_out >= 0.9)).all() and (held_out < 0.5).any() and (held_out > 0.5).any()
    assert not set(Factors(rng, "train").textures(200)) & set(Factors(rng, "held_out").textures(200))


@pytest.mark.parametrize("count", [2, 4])
def test_corridor_options(count):
    env = make("Corridor-v0", {"cue_values": count, "image_size": 64, "distractors": 3, "delay": 40})
    outcomes = {cue: run_expert(env, 0, cue)[1][-1]["is_success"] for cue in range(count)}
    assert all(outcomes.values())


def test_two_branches_ask_for_both_lamps():
    env = make("Corridor-v0", {"branches": 2, "delay": 20, "distractors": 2})
    assert env.cue_values == 4
    runs = [run_expert(env, 0, cue) for cue in range(4)]
    assert all(infos[-1]["stage"] == 4 and infos[-1]["is_success"] for _, infos, _ in runs)
    phases = [info["phase"] for info in runs[0][1]]
    changes = [phases[0], *(now for before, now in itertools.pairwise(phases) if now != before)]
    assert changes == [Phase.BEFORE_CUE, Phase.CUE, Phase.SHARED, Phase.BRANCH, Phase.SHARED, Phase.BRANCH]
    first, second = (phases.index(Phase.BRANCH), len(phases) - phases[::-1].index(Phase.SHARED))
    for cue in (1, 2, 3):  # bits: first lamp, second lamp
        observations, _, labels = runs[cue]
        assert (observations[first]["pixels"]["top"] == runs[0][0][first]["pixels"]["top"]).all()
        assert np.allclose(labels[first], runs[0][2][first]) == (cue < 2)
        assert abs(observations[second]["agent_pos"] - runs[0][0][second]["agent_pos"]).max() < 1e-2
        assert (labels[second][1] * runs[0][2][second][1] < 0) == (cue % 2 == 1)
    env.reset(seed=0, options={"cue": 1})
    for label in runs[2][2]:  # right for neither hall
        *_, done, cut, info = env.step(label)
    assert done and not cut and info["branch_correct"] == 0 and info["stage"] == 1
    env.reset(seed=0, options={"cue": 1})
    done = cut = False
    for step in itertools.count():  # through the wrong first door, and no further
        decided = info["branch_correct"] == 0 and step > first + 20
        *_, done, cut, info = env.step(np.zeros(2) if decided else runs[2][2][step])
        if done or cut:
            break
    assert cut and not done and info["branch_correct"] == 0 and not info["is_success"]


@pytest.mark.parametrize("branches", [3, 4])
def test_more_branches_show_and_ask_for_every_lamp(branches):
    env = make("Corridor-v0", {"branches": branches, "delay": 12 * branches - 9, "distractors": 0})
    assert env.cue_values == 2**branches
    for seed in range(10):
        runs = [run_expert(env, seed, cue) for cue in (0, *(1 << bit for bit in range(branches)))]
        assert all(infos[-1]["is_success"] and infos[-1]["stage"] == 2 * branches for _, infos, _ in runs)
        phases = np.array([info["phase"] for info in runs[0][1]])
        shared = int((phases == Phase.SHARED).argmax())
        begins = np.flatnonzero((phases[1:] == Phase.BRANCH) & (phases[:-1] != Phase.BRANCH)) + 1
        assert len(begins) == branches and shared <= begins[0]
        for lamp, (observations, _, labels) in enumerate(reversed(runs[1:])):
            pictures = zip(observations[:shared], runs[0][0][:shared], strict=True)
            assert sum((one["pixels"]["top"] != other["pixels"]["top"]).any() for one, other in pictures) == 4
            opposite = [labels[start][1] * runs[0][2][start][1] < 0 for start in begins[: lamp + 1]]
            assert opposite == [hall == lamp for hall in range(lamp + 1)]  # and later ones are come to otherwise


def test_bad_arguments():
    for name, options, message in (
        ("Corridor-v0", {"cue_values": 3}, "cue_values must be 2 or 4, got 3"),
        ("Corridor-v0", {"delay": 1}, r"delay must be in 10\.\.5000"),
        ("Corridor-v0", {"branches": 5}, r"branches must be in 1\.\.4, got 5"),
        ("Corridor-v0", {"branches": 2, "delay": 12}, r"delay must be in 15\.\.5000"),
        ("Corridor-v0", {"distractors": -1}, "distractors must not be negative, got -1"),
        ("DelayedEvidence-v0", {"task": "tea"}, "unknown task 'tea'"),
        ("DelayedEvidence-v0", {"image_size": 8}, r"image_size must be in 16\.\.640"),
        ("DelayedEvidence-v0", {"task": "laundry", "cue_values": 5}, r"cue_values of laundry must be in 2\.\.4, got 5"),
        ("DelayedEvidence-v0", {"delay": 0.5}, r"delay must be in 1\.\.4, got 0.5"),
        ("DelayedEvidence-v0", {"factors": "none"}, "factors must be one of .* got 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            make(name, options)
    env = make("Corridor-v0", {})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="2 finite numbers"):
        env.step(np.array([np.nan, 0.0]))
    for cue in (7, 0.5):
        with pytest.raises(ValueError, match=rf"cue must be in 0\.\.1, got {cue}"):
            env.reset(seed=0, options={"cue": cue})
    assert env.reset(seed=0, options={"cue": None})[1]["cue"] in (0, 1)


class OneImage(gymnasium.Env):
    """As gym-pusht's `obs_type="pixels_agent_pos"`: one image, not a dictionary of cameras."""

    observation_space = gymnasium.spaces.Dict(
        {
            "pixels": gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8),
            "agent_pos": gymnasium.spaces.Box(0, 512, (2,), np.float64),
        }
    )
    action_space = gymnasium.spaces.Box(0, 512, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"pixels": np.full((32, 32, 3), 7, np.uint8), "agent_pos": np.zeros(2)}, {}


def test_one_image_becomes_one_camera():
    gymnasium.register("OneImage-v0", entry_point=OneImage)
    env = make_env("OneImage-v0", {})
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert camera_sizes(env) == {"image": (32, 32)} and observation["pixels"]["image"][0, 0, 0] == 7
    gymnasium.register("NoImage-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    with pytest.raises(UserError, match="must give observations"):
        make_env("NoImage-v0", {})


@pytest.mark.parametrize("name", [name for name in env_config.ENVS if name not in ("gym", "recorded")])
def test_every_environment_is_made_by_its_configuration(name):
    own = env_config.ENVS[name]()
    env = make_env(own.id, env_config.env_options(own))
    assert set(camera_sizes(env).values()) == {(own.image_size, own.image_size)}
    env.close()
