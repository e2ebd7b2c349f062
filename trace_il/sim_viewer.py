"""A simulator's rollout beside the ground truth: Rerun recording, MP4 and a strip of frames."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
import torch

from sims.build import load
from sims.dataset import FRAME, Trajectory, simulate
from sims.flex import SimulationError
from sims.metrics import gaps, squared_errors
from sims.model import LearnedModel, Prediction, predict, pushed_apart, pusher_frames
from sims.scenes import random_scene

from .data.video import encode_video
from .errors import UserError
from .files import atomic_write, replacing
from .sim_config import SimulatorRunConfig, scene_settings

COLORS = ((66, 133, 180), (226, 120, 60), (90, 160, 90), (150, 110, 180), (200, 170, 60), (120, 120, 130))
PUSHER = (60, 60, 60)
WALL = (130, 130, 130)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A scene as it went, and as a model predicts it."""

    truth: Trajectory
    predicted: Prediction
    pictured: np.ndarray  # (T + 1, P, dim): predicted, with surfaces pushed apart where bodies feel each other
    contact: list[np.ndarray]  # ends (E, 2, dim) of the model's contact edges in each frame

    @property
    def errors(self) -> np.ndarray:
        """RMS distance of what is predicted, as tables have it, in each frame, m."""
        return np.sqrt(squared_errors(self.truth, self.predicted.positions))


def compare(model: LearnedModel, truth: Trajectory) -> Comparison:
    """A model's rollout of a scene."""
    result = predict(model, [truth], truth.frames)[0]
    pictured = pushed_apart(truth, result) if model.touching else result
    return Comparison(truth, result, pictured.positions, _contact_lines(model, truth, result))


def compare_run(config: SimulatorRunConfig, folder: Path, seed: int) -> Comparison:
    """The ground truth of a scene of a run's environment, and the rollout of the run's model.

    Raises:
        UserError: no trained simulator there, or a scene that cannot be simulated.
    """
    try:
        model = load(folder / "simulator.pt")
        truth = simulate(random_scene(scene_settings(config.env), seed), config.data.frames, seed)
    except (ValueError, SimulationError) as error:
        raise UserError(str(error)) from error
    return compare(model, truth)


def _contact_lines(model: LearnedModel, truth: Trajectory, result: Prediction) -> list[np.ndarray]:
    statics = model.statics([truth])
    place, speeds = pusher_frames([truth], [0], truth.frames)
    out = []
    for frame, latent in enumerate(result.latent):
        p = torch.from_numpy(latent).to(model.place).unsqueeze(0)
        here = (place + FRAME * speeds[:frame].sum(0)).to(model.place)
        out.append(model.contact_edges(p, statics, here).cpu().double().numpy())
    return out


def _flat(points: np.ndarray) -> np.ndarray:
    """(..., dim) -> (..., 3)."""
    return np.concatenate([points, np.zeros((*points.shape[:-1], 3 - points.shape[-1]))], axis=-1)


def _curves(own: Comparison) -> dict[str, np.ndarray]:
    truth, soft = own.truth, ~own.truth.kinematic
    energies = {
        name: 0.5 * np.einsum("p,tpd,tpd->t", truth.mass[soft], v[:, soft], v[:, soft])
        for name, v in (("truth", truth.velocities.astype(float)), ("prediction", own.predicted.velocities))
    }
    return {
        "error/rms_distance_m": own.errors,
        **{f"kinetic_energy/{name}_J": values for name, values in energies.items()},
        "gap/truth_m": gaps(truth, truth.positions),
        "gap/prediction_m": gaps(truth, own.predicted.positions),
        "gap/prediction_pushed_apart_m": gaps(truth, own.pictured),
    }


def write_recording(path: Path, own: Comparison) -> None:
    """Write one .rrd: the truth beside the prediction, its variables, contact edges, and curves over time."""
    rr.set_strict_mode(True)
    rec = rr.RecordingStream("trace_il_simulator", recording_id=uuid.uuid4())
    rec.set_log_time_enabled(False)
    rec.set_log_tick_enabled(False)
    truth, curves = own.truth, _curves(own)
    plots = [rrb.TimeSeriesView(origin=f"/{name}", name=name) for name in ("error", "kinetic_energy", "gap")]
    middle = _flat((truth.positions.min((0, 1)) + truth.positions.max((0, 1))) / 2)
    away = (
        1.3 * np.ptp(truth.positions, axis=(0, 1)).max() * np.array([0, 0, 1] if truth.dim == 2 else [0.5, -0.7, 0.5])
    )
    eye = rrb.EyeControls3D(
        position=middle + away, look_target=middle, eye_up=(0, 1, 0) if truth.dim == 2 else (0, 0, 1)
    )
    scenes = [rrb.Spatial3DView(origin=f"/{name}", name=name, eye_controls=eye) for name in ("truth", "prediction")]
    views = rrb.Vertical(rrb.Horizontal(*scenes), rrb.Horizontal(*plots), row_shares=[3, 1])
    with replacing(path) as temporary, rec:
        rec.save(str(temporary))
        rec.send_blueprint(rrb.Blueprint(views, rrb.TimePanel(state="collapsed")), make_active=True, make_default=True)
        for name in ("truth", "prediction"):
            for number, corners in enumerate(wall_corners(truth)):
                if truth.dim == 2:
                    rec.log(f"{name}/wall_{number}", rr.LineStrips3D([_flat(corners)], colors=WALL), static=True)
                else:
                    halves = [[0, 1, 2], [0, 2, 3]]
                    wall = rr.Mesh3D(vertex_positions=corners, triangle_indices=halves, albedo_factor=(*WALL, 60))
                    rec.log(f"{name}/wall_{number}", wall, static=True)
        for frame in range(len(own.pictured)):
            rec.set_time("frame", sequence=frame)
            rec.set_time("time", duration=FRAME * frame)
            for name, positions in (("truth", truth.positions[frame]), ("prediction", own.pictured[frame])):
                for body, (faces, color) in enumerate(_parts(truth)):
                    mesh = rr.Mesh3D(vertex_positions=_flat(positions), triangle_indices=faces, albedo_factor=color)
                    rec.log(f"{name}/body_{body}", mesh)
                if truth.kinematic.any():
                    pushers = rr.Points3D(_flat(positions[truth.kinematic]), colors=PUSHER, radii=0.003)
                    rec.log(f"{name}/pusher", pushers)
            latent = own.predicted.latent[frame].reshape(-1, truth.dim)
            rec.log("prediction/variables", rr.Points3D(_flat(latent), colors=(20, 20, 20), radii=0.002))
            rec.log(
                "prediction/contact", rr.LineStrips3D(_flat(own.contact[frame]), colors=(220, 40, 40), radii=0.0006)
            )
            for name, values in curves.items():
                rec.log(name, rr.Scalars(float(values[frame])))


def wall_corners(truth: Trajectory) -> list[np.ndarray]:
    """Ends (2, 2) of each wall, or corners (4, 3) in order, as far as the scene goes."""
    low, high = truth.positions.min((0, 1)), truth.positions.max((0, 1))
    middle, half = (low + high) / 2, (high - low).max() / 2 + 0.02
    out = []
    for normal, offset in ((wall[:-1].astype(float), float(wall[-1])) for wall in truth.walls):
        nearest = middle - (middle @ normal - offset) * normal
        if np.abs(nearest - middle).max() > 1.2 * half:
            continue  # far from all that happens
        axes = np.linalg.svd(normal[None])[2][1:]  # along the wall
        signs = [(-1,), (1,)] if truth.dim == 2 else [(-1, -1), (-1, 1), (1, 1), (1, -1)]
        out.append(np.stack([nearest + half * (np.array(sign) @ axes) for sign in signs]))
    return out


def _parts(truth: Trajectory) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Triangles and color of each soft body."""
    faces = truth.elements if truth.dim == 2 else truth.surface
    return [(faces[truth.body[faces[:, 0]] == body], COLORS[body % len(COLORS)]) for body in range(len(truth.young))]


def _draw(axis: Any, truth: Trajectory, positions: np.ndarray, points: np.ndarray, lines: np.ndarray) -> None:
    from matplotlib.collections import LineCollection, PolyCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

    for faces, color in _parts(truth):
        shade = [c / 255 for c in color]
        style: dict[str, Any] = {"facecolor": (*shade, 0.75 if truth.dim == 2 else 0.5), "linewidth": 0.3}
        style["edgecolor"] = (*[0.6 * c for c in shade], 1)
        if truth.dim == 2:
            axis.add_collection(PolyCollection(positions[faces], **style))
        else:
            axis.add_collection3d(Poly3DCollection(positions[faces], **style))
    if truth.kinematic.any():
        axis.scatter(*positions[truth.kinematic].T, s=4, color="black")
    if len(points):
        axis.scatter(*points.reshape(-1, truth.dim).T, s=3, color="black")
    if len(lines) and truth.dim == 2:
        axis.add_collection(LineCollection(list(lines), color="red", linewidth=0.8))
    elif len(lines):
        axis.add_collection3d(Line3DCollection(lines, color="red", linewidth=0.8))


def _frame_axes(axis: Any, truth: Trajectory) -> None:
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    low, high = truth.positions.min((0, 1)), truth.positions.max((0, 1))
    middle, half = (low + high) / 2, (high - low).max() / 2 + 0.02
    for name, centre in zip("xyz", middle, strict=False):
        getattr(axis, f"set_{name}lim")(centre - half, centre + half)
        getattr(axis, f"set_{name}ticks")([])
    axis.set_aspect("equal")
    for corners in wall_corners(truth):
        if truth.dim == 2:
            axis.plot(*corners.T, color="gray", scalex=False, scaley=False)
        else:
            axis.add_collection3d(Poly3DCollection([corners], facecolor=(0.5, 0.5, 0.5, 0.15), edgecolor="gray"))


Content = Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]  # of a frame: particles, variables, contact edges


def _rows(own: Comparison) -> dict[str, Content]:
    empty = np.zeros((0, 2, own.truth.dim))
    return {
        "ground truth": lambda frame: (own.truth.positions[frame], empty[:, 0], empty),
        "prediction": lambda frame: (own.pictured[frame], own.predicted.latent[frame], own.contact[frame]),
    }


def save_strip(path: Path, own: Comparison, columns: int = 6) -> None:
    """A picture of some frames of truth and prediction, and of the error over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    truth, error = own.truth, 1e3 * own.errors
    space: dict[str, Any] = {} if truth.dim == 2 else {"projection": "3d"}
    figure = plt.figure(figsize=(2 * columns, 6), layout="constrained")
    grid = figure.add_gridspec(3, columns, height_ratios=[2, 2, 1])
    for row, (name, content) in enumerate(_rows(own).items()):
        for column, frame in enumerate(np.linspace(0, truth.frames, columns).round().astype(int)):
            axis = figure.add_subplot(grid[row, column], **space)
            _frame_axes(axis, truth)
            _draw(axis, truth, *content(frame))
            axis.set_title(f"{FRAME * frame:.2f} s" if row == 0 else "", fontsize=8)
            if column == 0:
                label: Any = axis.text if truth.dim == 2 else axis.text2D
                label(-0.02, 0.5, name, rotation=90, va="center", ha="right", fontsize=8, transform=axis.transAxes)
    axis = figure.add_subplot(grid[2, :])
    axis.plot(FRAME * np.arange(len(error)), error)
    axis.set(xlabel="time (s)", ylabel="rms error (mm)", ylim=(0, None))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_video(path: Path, own: Comparison) -> None:
    """An MP4 of truth and prediction side by side, with the error so far."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    truth, error, rows = own.truth, 1e3 * own.errors, _rows(own)
    space: dict[str, Any] = {} if truth.dim == 2 else {"projection": "3d"}
    frames = []
    figure = plt.figure(figsize=(8, 4.6), dpi=80)
    for frame in range(len(error)):
        figure.clear()
        for column, (name, content) in enumerate(rows.items()):
            axis = figure.add_axes((0.01 + 0.5 * column, 0.14, 0.48, 0.8), **space)
            _frame_axes(axis, truth)
            _draw(axis, truth, *content(frame))
            axis.set_title(name, fontsize=9)
        figure.text(0.5, 0.05, f"{FRAME * frame:.2f} s, rms error {error[frame]:.1f} mm", ha="center", fontsize=9)
        canvas: Any = figure.canvas
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    atomic_write(path, encode_video(np.stack(frames), 25, crf=20))


def record_simulator(model: LearnedModel, truth: Trajectory, folder: Path) -> dict[str, str]:
    """Recording, video and strip of a scene, into the run folder."""
    own = compare(model, truth)
    paths = {"recording": "recording.rrd", "strip": "strip.png", "video": "rollout.mp4"}
    for name, save in (("recording", write_recording), ("strip", save_strip), ("video", save_video)):
        save(folder / paths[name], own)
    return {name: str(folder / path) for name, path in paths.items()}
