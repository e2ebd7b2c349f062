"""What a frame costs: latent steps of learned simulators against bodies, points and batch, MuJoCo beside them, and the
same with particles decoded and surfaces pushed apart; and what an optimiser step costs, so that all can be trained for
as long."""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from sims.build import load
from sims.dataset import FRAME, Trajectory, describe
from sims.flex import FlexSimulator
from sims.learn import SimulatorModule, TrajectoryDataModule
from sims.model import LearnedModel, predict, pushed_apart
from sims.scenes import SceneSettings, random_scene
from trace_il.cli import checked
from trace_il.config import register
from trace_il.sim_pipeline import recipe

FRAMES, REPEATS = 49, 5  # as in the tests, so that bodies meet
BODIES, BATCHES, SPACINGS = (1, 2, 4, 8), (1, 4, 16, 64), (1.4, 1.0, 0.7)
LARGE = (512, 2048)  # batches on a GPU
SEED = 2_500_000


def scenes(dim: int, bodies: int, count: int, density: float = 1.0) -> list[Any]:
    settings = SceneSettings(dim)
    spacing = density * settings.usual_spacing
    settings = SceneSettings(dim, bodies=(bodies, bodies), speed=0.2, spacing=spacing)  # so gentle that none diverges
    return [random_scene(settings, SEED + number) for number in range(count)]


def starts(own: list[Any]) -> list[Trajectory]:
    return [describe(scene, [scene.start()], 0) for scene in own]


def latent_step(model: LearnedModel, own: list[Trajectory]) -> Callable[[], None]:
    """A call that moves all scenes FRAMES frames on, in the model's own variables."""
    window = model.window(own, [0] * len(own), 0).to(model.place.device, model.place.dtype)
    speeds = window.velocities.new_zeros(FRAMES, *window.place.shape)

    @torch.no_grad()
    def call() -> None:
        model.rollout(window.positions[0], window.velocities[0], window.statics, (window.place, speeds), FRAMES)
        if model.place.is_cuda:
            torch.cuda.synchronize()

    return call


def shown_step(model: LearnedModel, own: list[Trajectory]) -> Callable[[], None]:
    """The same with the particles of every frame decoded and their surfaces pushed apart, as pictures show them."""

    def call() -> None:
        for start, result in zip(own, predict(model, own, FRAMES), strict=True):
            pushed_apart(start, result)

    return call


def truth_step(own: list[Any]) -> Callable[[], None]:
    """The same of the ground truth, one scene after the other."""
    simulators = [FlexSimulator() for _ in own]
    states = [simulator.reset(scene) for simulator, scene in zip(simulators, own, strict=True)]

    def call() -> None:
        for number, simulator in enumerate(simulators):
            state = states[number]
            for _ in range(FRAMES):
                state = simulator.step(state, FRAME)

    return call


def milliseconds(calls: dict[str, Callable[[], None]], scenes_each: int) -> dict[str, float]:
    """Median milliseconds a scene and frame; calls take turns, so that a busy machine slows all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(REPEATS):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begin)
    return {name: 1e3 * float(np.median(values)) / (FRAMES * scenes_each) for name, values in taken.items()}


def peak_memory(call: Callable[[], None], device: str) -> float | None:
    """Most memory that a call takes beyond what was taken before, MiB; None where the system does not tell."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system first
    reset.write_text("5")  # the peak begins anew
    before = _resident("VmRSS")
    call()
    return max(0.0, _resident("VmHWM") - before)


def _resident(key: str) -> float:
    """A line of this process's status, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 1024


def cost_rows(dim: int, files: dict[str, Path]) -> list[dict[str, Any]]:
    """Rows of all sizes, one thread. Models whose file is missing are left out, which their rows then show."""
    torch.set_num_threads(1)
    models = {name: load(path) for name, path in files.items() if path.exists()}
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    sizes = [(bodies, 1, 1.0) for bodies in BODIES] + [(2, batch, 1.0) for batch in BATCHES[1:]]
    sizes += [(2, 1, density) for density in SPACINGS if density != 1.0]
    sizes += [(2, batch, 1.0) for batch in LARGE if torch.cuda.is_available()]
    rows = []
    for bodies, batch, density in sizes:
        own = scenes(dim, bodies, batch, density)
        points = float(np.mean([len(start.body) for start in starts(own)]))
        for device in devices if batch < LARGE[0] else devices[1:]:
            calls = {name: latent_step(model.to(device), starts(own)) for name, model in models.items()}
            if batch < LARGE[0]:  # decoding and pushing apart is work of the CPU, scene by scene
                calls |= {
                    f"{name}, as shown": shown_step(model.to(device), starts(own)) for name, model in models.items()
                }
            calls["MuJoCo"] = truth_step(own[:4])
            result = milliseconds(calls, batch)
            result["MuJoCo"] *= batch / len(own[:4])
            memory = {name: peak_memory(call, "cpu" if name == "MuJoCo" else device) for name, call in calls.items()}
            for name, value in result.items():
                row = {"sim": name, "dim": dim, "device": "cpu" if name == "MuJoCo" else device, "bodies": bodies}
                row |= {"batch": batch, "points": points, "ms_per_scene_frame": value}
                row |= {"simulated_seconds_per_second": 1e3 * FRAME / value}
                row |= {"times_mujoco": result["MuJoCo"] / value, "peak_mib": memory[name]}
                rows.append(row)
    return rows


def optimiser_step(words: list[str], trajectories: list[Trajectory]) -> Callable[[], None]:
    """A call that makes one optimiser step of every length of window of `python train.py <words>`."""
    config = checked(compose("train_simulator", words))
    trainer, own = config.trainer, config.trainer.unroll
    model = recipe(config).build()
    module = SimulatorModule(model, trainer.learning_rate, trainer.noise, 10_000, 0)
    data = TrajectoryDataModule(
        model, trajectories, [], config.data.batch_size, 10_000, len(own), own, 0, 0, trainer.turn
    )
    optimizer, count = torch.optim.Adam(model.parameters(), lr=1e-6), 0

    def call() -> None:
        nonlocal count
        for epoch in range(len(own)):
            loss = module.loss(data.windows(epoch)[count % REPEATS])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        count += 1

    return call


def speed_rows(ways: dict[str, list[str]], trajectories: list[Trajectory]) -> list[dict[str, Any]]:
    """Seconds of one core that an optimiser step takes, a mean over the lengths of windows that share the training.

    Args:
        ways: words for train.py by name. They take turns, so that a busy machine slows all of them alike.
    """
    torch.set_num_threads(1)
    register()
    with initialize_config_dir(str(Path(__file__).resolve().parents[2] / "configs"), version_base=None):
        calls = {pace: optimiser_step(words, trajectories) for pace, words in ways.items()}
        lengths = {pace: len(checked(compose("train_simulator", words)).trainer.unroll) for pace, words in ways.items()}
    taken: dict[str, list[float]] = {pace: [] for pace in ways}
    for number in range(2 * REPEATS):  # what models keep of each body is kept in the first half, which is not counted
        for pace, call in calls.items():
            begin = time.process_time()
            call()
            if number >= REPEATS:
                taken[pace].append((time.process_time() - begin) / lengths[pace])
    return [{"pace": pace, "cpu_seconds_per_step": float(np.median(own))} for pace, own in taken.items()]
