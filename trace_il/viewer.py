"""Rollout -> Rerun recording with a ready layout: cameras, 3D scene, plots, memory maps, phase bands."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from .config import TrainConfig
from .diagnostics import analyse
from .env_config import env_options
from .environment import make_env
from .errors import UserError
from .files import replacing
from .interventions import intervene
from .pictures import PHASE_COLORS, PHASES, colormap, outcome, save_strip, save_video
from .rollout import Recording, Rollout, check_compatible, load_controller, policy_spec, rollout

PALETTE = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (23, 190, 207),
)
PLOTTED_CHANNELS = 4  # action channels that move most, for chunk against executed
MAPS = ("routing", "write_strength", "read_weights")


def _time(steps: np.ndarray, hz: float) -> list[rr.TimeColumn]:
    return [rr.TimeColumn("step", sequence=steps), rr.TimeColumn("time", duration=steps / hz)]


def moving_channels(actions: np.ndarray) -> np.ndarray:
    """The action channels that move most, relative to each other."""
    return np.sort(np.argsort(-actions.std(0))[:PLOTTED_CHANNELS])


def log_rollout(rec: rr.RecordingStream, root: str, result: Rollout, spec: dict[str, Any]) -> None:
    """Log one recorded rollout below the entity `root`."""
    data = result.recording
    assert data is not None
    steps = np.arange(len(data.states))
    ticks = np.array(data.ticks)
    at_steps, at_ticks = _time(steps, spec["control_hz"]), _time(ticks, spec["control_hz"])
    images = np.stack(data.images)
    height, width = images.shape[2:4]
    picture = rr.components.ImageFormat(width=width, height=height, color_model="RGB", channel_datatype="U8")
    for index, camera in enumerate(spec["cameras"]):
        path = f"{root}/cameras/{camera}"
        rec.log(path, rr.Image.from_fields(format=picture, magnification_filter="Nearest"), static=True)
        rec.send_columns(path, at_steps, rr.Image.columns(buffer=images[:, index].reshape(len(steps), -1)))

    def plot(
        name: str, index: list[rr.TimeColumn], values: np.ndarray, names: list[str], stepped: bool = False
    ) -> None:
        colors = [PALETTE[i % len(PALETTE)] for i in range(len(names))]
        style: dict[str, Any] = {"interpolation_mode": "StepAfter"} if stepped else {}
        rec.log(f"{root}/{name}", rr.SeriesLines(names=names, colors=colors, **style), static=True)
        rec.send_columns(f"{root}/{name}", index, rr.Scalars.columns(scalars=values.astype(np.float64)))

    states, actions = np.stack(data.states), np.stack(data.actions)
    info = data.info
    progress = np.array([[i.get("progress", 0.0), i.get("stage", 0)] for i in info], dtype=float)
    plot("progress", at_steps, progress, ["progress", "stage"], stepped=True)
    plot("state", at_steps, states, list(spec["state_names"]))
    plot("action", at_steps, actions, list(spec["action_names"]))
    plot(
        "signature",
        at_steps,
        np.log10(1e-6 + np.stack(data.signature)),
        [f"log10 |level {n + 1}|" for n in range(len(data.signature[0]))],
    )
    # Each chunk against what was executed: the prediction made one tick before the step.
    channels = moving_channels(actions)
    every, chunks = spec["tick_every"], np.stack(data.chunks)
    earlier = np.clip(steps // every - 1, 0, None)
    ahead = steps - earlier * every
    known = ahead < chunks.shape[1]
    ahead = np.minimum(ahead, chunks.shape[1] - 1)
    for channel in channels:
        predicted = np.where(known, chunks[earlier, ahead, channel], np.nan)
        pair = np.stack([actions[:, channel], predicted], axis=1)
        plot(f"chunk/{spec['action_names'][channel]}", at_steps, pair, ["executed", "predicted a tick before"])
    for name in MAPS:
        values = np.stack(getattr(data, name))
        plot(f"memory/{name}", at_ticks, values, [f"slot {k}" for k in range(values.shape[1])], stepped=True)
        _map(rec, f"{root}/maps/{name}", values, every, steps, at_steps)
    for name, curves in data.curves.items():
        plot(f"memory/{name}", at_ticks, np.stack(list(curves.values()), axis=1), list(curves), stepped=True)
    if data.remembered is not None:
        _remembered(rec, f"{root}/maps/remembered", data.remembered, at_ticks)
    if "phase" in info[0]:
        change = np.flatnonzero(np.diff([i["phase"] for i in info], prepend=-1))
        lane, names = f"{root}/bands/phase", list(PHASES)
        rec.log(lane, rr.StateConfiguration(values=names, labels=names, colors=list(PHASE_COLORS)), static=True)
        labels = [PHASES[info[i]["phase"]] for i in change]
        rec.send_columns(lane, _time(change, spec["control_hz"]), rr.StateChange.columns(state=labels))
    _scene(rec, root, data.scene, at_steps)
    rec.log(f"{root}/outcome", rr.TextDocument(f"{outcome(result)}, {result.steps} steps"), static=True)


def _map(
    rec: rr.RecordingStream, path: str, values: np.ndarray, every: int, steps: np.ndarray, index: list[rr.TimeColumn]
) -> None:
    """Slot x time picture with a cursor. Row k is slot k; the colour scale ends at the largest value."""
    tall = max(12, 120 // values.shape[1])
    scale = max(1, round(600 / len(steps)))  # pixels a control step; views keep the picture's shape
    wide = scale * every
    picture = colormap(values.T / max(values.max(), 1e-6)).repeat(tall, 0).repeat(wide, 1)
    rec.log(path, rr.Image(picture, magnification_filter="Nearest"), static=True)
    x = scale * (steps + 0.5)
    strips = [np.array([[v, 0], [v, picture.shape[0]]], np.float32) for v in x]
    rec.send_columns(f"{path}/cursor", index, rr.LineStrips2D.columns(strips=strips, colors=[(255, 60, 60)] * len(x)))


def _remembered(rec: rr.RecordingStream, path: str, pictures: np.ndarray, index: list[rr.TimeColumn]) -> None:
    """Thumbnails (N, K, C, h, w, 3): a column a slot, a row a camera."""
    grid = np.pad(pictures, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))  # a dark line between them
    ticks, slots, cameras, tall, wide = grid.shape[:5]
    grid = grid.transpose(0, 2, 3, 1, 4, 5).reshape(ticks, cameras * tall, slots * wide, 3)
    height, width = grid.shape[1:3]
    size = rr.components.ImageFormat(width=width, height=height, color_model="RGB", channel_datatype="U8")
    rec.log(path, rr.Image.from_fields(format=size, magnification_filter="Nearest"), static=True)
    rec.send_columns(path, index, rr.Image.columns(buffer=grid.reshape(ticks, -1)))


def _scene(rec: rr.RecordingStream, root: str, scene: list[list[dict[str, Any]]], index: list[rr.TimeColumn]) -> None:
    """Geometry that moves on entities with a transform a step."""
    if not scene or not scene[0]:
        return
    rec.log(f"{root}/world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for number, shape in enumerate(scene[0]):
        path = f"{root}/world/{shape['name']}"
        seen = np.array([shapes[number]["rgba"][3] for shapes in scene])  # what comes and goes has no colour at times
        color = [tuple(int(255 * c) for c in (*shape["rgba"][:3], seen.max()))]
        if shape["kind"] == "mesh":  # moves by its vertices; a triangle is drawn from both sides
            faces = np.concatenate([shape["faces"], shape["faces"][:, ::-1]])
            rec.log(path, rr.Mesh3D.from_fields(triangle_indices=faces, albedo_factor=color[0]), static=True)
            vertices = np.array([shapes[number]["vertices"] for shapes in scene], dtype=np.float32)
            columns = rr.Mesh3D.columns(vertex_positions=vertices.reshape(-1, 3))
            rec.send_columns(path, index, columns.partition([vertices.shape[1]] * len(vertices)))
            continue
        size = np.asarray(shape["size"], dtype=np.float32)
        archetype: Any
        if shape["kind"] == "box":
            archetype = rr.Boxes3D(half_sizes=[size], colors=color, fill_mode="solid")
        elif shape["kind"] == "sphere":
            archetype = rr.Ellipsoids3D(half_sizes=[[size[0]] * 3], colors=color, fill_mode="solid")
        elif shape["kind"] == "capsule":
            # Rerun's capsule starts at the origin, MuJoCo's is centred there.
            archetype = rr.Capsules3D(
                lengths=[2 * size[1]], radii=[size[0]], translations=[[0, 0, -size[1]]], colors=color, fill_mode="solid"
            )
        else:
            archetype = rr.Cylinders3D(lengths=[2 * size[1]], radii=[size[0]], colors=color, fill_mode="solid")
        rec.log(path, archetype, static=True)
        position = np.array([shapes[number]["position"] for shapes in scene], dtype=np.float32)
        wxyz = np.array([shapes[number]["quaternion"] for shapes in scene], dtype=np.float32)
        size_of = np.where(seen > 0, 1.0, 1e-6)[:, None].repeat(3, 1)
        columns = rr.Transform3D.columns(translation=position, quaternion=wxyz[:, [1, 2, 3, 0]], scale=size_of)
        rec.send_columns(path, index, columns)


def layout(recordings: dict[str, Recording], spec: dict[str, Any], channels: list[str]) -> rrb.Blueprint:
    """One column of views a rollout, by its root entity, for what there is in its recording."""
    alone = len(recordings) == 1
    axis = rrb.TimeAxis(link="LinkToGlobal")

    def series(path: str, name: str) -> rrb.TimeSeriesView:
        return rrb.TimeSeriesView(origin=path, name=name, axis_x=axis, plot_legend=rrb.PlotLegend(corner="LeftTop"))

    def column(root: str, own: Recording) -> rrb.Vertical:
        prefix = "" if alone else f"{root.strip('/')}: "
        cameras = [
            rrb.Spatial2DView(origin=f"{root}/cameras/{camera}", name=prefix + camera) for camera in spec["cameras"]
        ]
        scene = [rrb.Spatial3DView(origin=f"{root}/world", name="scene", background=[30, 32, 38])]
        scene = scene if own.scene and own.scene[0] else []
        maps = [
            rrb.Spatial2DView(origin=f"{root}/maps/{name}", name=f"{name.replace('_', ' ')}: slot x time")
            for name in MAPS
        ]
        if own.remembered is not None:
            maps.append(rrb.Spatial2DView(origin=f"{root}/maps/remembered", name="remembered: camera x slot"))
        curves = [series(f"{root}/memory/{name}", name.replace("_", " ")) for name in (*MAPS, *own.curves)]
        chunk = [series(f"{root}/chunk/{channel}", f"chunk against executed: {channel}") for channel in channels]
        return rrb.Vertical(
            rrb.Horizontal(*cameras, *scene),
            rrb.StateTimelineView(
                origin=f"{root}/bands",
                contents=[f"{root}/bands/**"],
                name=prefix + "cue, shared segment, branch",
                time_view=axis,
            ),
            rrb.Horizontal(*maps) if alone else rrb.Tabs(*maps),
            rrb.Tabs(*curves, active_tab=0),
            rrb.Horizontal(
                rrb.Tabs(*chunk, series(f"{root}/action", "action"), series(f"{root}/state", "state")),
                rrb.Tabs(
                    series(f"{root}/progress", "progress and stage"),
                    series(f"{root}/signature", "signature levels"),
                    rrb.TextDocumentView(origin=f"{root}/outcome", name="outcome"),
                ),
            ),
            row_shares=[3, 0.9, 1.3, 1.6, 2.2],
        )

    columns = [column(root, own) for root, own in recordings.items()]
    return rrb.Blueprint(
        columns[0] if alone else rrb.Horizontal(*columns),
        rrb.TopPanel(state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(state="collapsed", timeline="step", play_state="paused", fps=spec["control_hz"], loop_mode="All"),
        auto_views=False,
        auto_layout=False,
    )


def write_recording(path: Path, rollouts: dict[str, tuple[Rollout, dict[str, Any]]]) -> None:
    """Write one .rrd with rollouts (and the specs of their policies) by name, side by side.

    Raises:
        UserError: the policies act on different cameras or channels.
    """
    spec = next(iter(rollouts.values()))[1]
    for _, other in rollouts.values():
        if (other["cameras"], other["action_names"]) != (spec["cameras"], spec["action_names"]):
            raise UserError("only policies with the same cameras and action channels can be compared")
    rr.set_strict_mode(True)
    rec = rr.RecordingStream("trace_il_rollout", recording_id=uuid.uuid4())
    rec.set_log_time_enabled(False)
    rec.set_log_tick_enabled(False)
    recordings = {f"/{name}": result.recording for name, (result, _) in rollouts.items() if result.recording}
    first = next(iter(recordings.values()))
    channels = [spec["action_names"][c] for c in moving_channels(np.stack(first.actions))]
    with replacing(path) as temporary, rec:
        rec.save(str(temporary))
        rec.send_recording_name(" | ".join(rollouts))
        rec.send_blueprint(layout(recordings, spec, channels), make_active=True, make_default=True)
        for name, (result, own_spec) in rollouts.items():
            log_rollout(rec, f"/{name}", result, own_spec)


def record(
    config: TrainConfig, folder: Path, seed: int, cue: int | None = None, clear_memory: bool = False
) -> tuple[Rollout, dict[str, Any]]:
    """One recorded rollout of a run's policy in the run's environment, and the policy's spec."""
    controller = load_controller(str(folder / "checkpoints/last.ckpt"), clear_memory)
    env = make_env(config.env.id, env_options(config.env))
    check_compatible(controller, env, str(folder))
    result = rollout(controller, env, seed, record=True, cue=cue)
    env.close()
    analyse(controller.agent, folder, result, edited=clear_memory)
    return result, policy_spec(controller)


def record_intervention(
    config: TrainConfig, folder: Path, seed: int, kind: str, cue: int | None = None
) -> dict[str, tuple[Rollout, dict[str, Any]]]:
    """Untouched rollout of a run's policy, and the one on the same seed with a changed memory."""
    controller = load_controller(str(folder / "checkpoints/last.ckpt"))
    env = make_env(config.env.id, env_options(config.env))
    check_compatible(controller, env, str(folder))
    rollouts = intervene(controller.agent, env, seed, [kind], cue, record=True)
    env.close()
    spec = policy_spec(controller)
    for name, result in rollouts.items():
        analyse(controller.agent, folder, result, edited=name == kind)
    return {name: (result, spec) for name, result in rollouts.items()}


def record_run(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Recording, strip and videos of the first evaluation seeds, into the run folder."""
    files: dict[str, Any] = {"videos": []}
    for number in range(max(1, config.evaluation.videos)):
        result, spec = record(config, folder, config.evaluation.seed + number)
        if number == 0:
            write_recording(folder / "recording.rrd", {config.memory.name: (result, spec)})
            save_strip(folder / "strip.png", result, spec)
            files |= {"recording": str(folder / "recording.rrd"), "strip": str(folder / "strip.png")}
        if number < config.evaluation.videos:
            path = folder / f"videos/seed_{result.seed}.mp4"
            save_video(path, result, spec)
            files["videos"].append(str(path))
    return files
