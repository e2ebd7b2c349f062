"""Looking at view planning: a room's graph from above, an episode in it, coverage over iterations; and playing it."""

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

import envs  # noqa: F401  (registers the environments)
from envs.view_planning.env import ViewPlanningEnv
from envs.view_planning.lattice import MOVES, Move, breadth_first, descend, path_nodes
from envs.view_planning.tasks import Episode, Place

from ..errors import UserError
from ..files import replacing
from .config import ViewRunConfig
from .explore import episodes, greedy, run
from .graph import Trajectory, ViewGraph
from .pipeline import distances, rooms
from .storage import load_weights, make_agent

KEYS = dict(zip("wsdarfqetg ", Move, strict=True))  # forward back right left up down, turn l r, look up down, STOP
TAKEN, SHORTEST, GOAL, WALL, WOOD = (230, 90, 40), (40, 120, 220), (30, 160, 60), (90, 90, 90), (190, 175, 150)


@dataclass
class Shown:
    """An episode to look at."""

    place: Place
    task: Episode
    taken: Trajectory
    shortest: np.ndarray  # nodes of a shortest way to the target
    graphs: list[ViewGraph]  # of the room, by iteration; empty for a room that was not trained in
    iterations: list[dict[str, Any]]  # scores.json of every iteration


def show(config: ViewRunConfig, folder: Path, seed: int, split: str = "train") -> Shown:
    """The agent of a run in an episode of a seed.

    Args:
        split: of the room; view graphs are there for "train" alone.
    Raises:
        UserError: the run has no agent yet.
    """
    count = {"train": config.env.rooms, "dev": config.env.dev_rooms, "test": config.env.test_rooms}
    if split not in count:
        raise UserError(f"split={split!r} must be one of {', '.join(count)}")
    places = rooms(config, split, count[split])
    agent = load_weights(folder / "agent.pt", make_agent(config))
    rng = np.random.default_rng(seed)
    place = places[int(rng.integers(len(places)))]
    task = episodes([place], 1, seed, distances(config))[0]
    taken = run(agent, places, [task], greedy)[0]
    moves = descend(place.table, breadth_first(place.table, task.goal), task.start)
    done = [folder / f"iteration_{number}" for number in range(1, config.view.iterations + 1)]
    graphs = [
        ViewGraph.load(path / f"graphs/room_{place.index}.npz", place.table)
        for path in done
        if split == "train" and (path / f"graphs/room_{place.index}.npz").exists()
    ]
    scores = [json.loads((path / "scores.json").read_text()) for path in done if (path / "scores.json").exists()]
    return Shown(place, task, taken, path_nodes(place.table, task.start, moves), graphs, scores)


def visits_from_above(graph: ViewGraph, place: Place) -> tuple[np.ndarray, np.ndarray]:
    """Places (C, 2) that were visited, m, and how often (C,), over all heights and directions."""
    cells, inverse = np.unique(place.metric[graph.nodes][:, :2], axis=0, return_inverse=True)
    return cells, np.bincount(inverse.ravel(), weights=np.array(graph.visits, float), minlength=len(cells))


def edges_from_above(graph: ViewGraph, place: Place) -> np.ndarray:
    """Ends (E, 2, 2) of the edges that lead from one place to another, m, each once."""
    forward, _ = graph.tables()
    ends = np.stack([np.broadcast_to(np.arange(len(graph))[:, None], forward.shape), forward], axis=-1).reshape(-1, 2)
    places = place.metric[graph.nodes][:, :2][ends]
    apart = places[np.abs(places[:, 0] - places[:, 1]).max(1) > 1e-6].round(6)
    first, second = apart[:, 0].T, apart[:, 1].T
    swap = (first[0] > second[0]) | ((first[0] == second[0]) & (first[1] > second[1]))
    apart[swap] = apart[swap, ::-1]
    return np.unique(apart, axis=0)


def write_recording(path: Path, shown: Shown) -> None:
    """Write one .rrd."""
    import matplotlib

    rr.set_strict_mode(True)
    rec = rr.RecordingStream("trace_il_views", recording_id=uuid.uuid4())
    rec.set_log_time_enabled(False)
    rec.set_log_tick_enabled(False)
    place = shown.place
    pictures = [rrb.Spatial2DView(origin=f"/{name}", name=name) for name in ("view", "goal")]
    bars = [
        rrb.BarChartView(origin="/coverage/share", name="coverage of what can be reached, by iteration"),
        rrb.BarChartView(origin="/coverage/success", name="success on development rooms, by iteration"),
    ]
    layout = rrb.Horizontal(
        rrb.Spatial2DView(origin="/above", name="from above"),
        rrb.Vertical(
            rrb.Horizontal(*pictures), rrb.TimeSeriesView(origin="/episode", name="episode"), rrb.Horizontal(*bars)
        ), column_shares=[3, 2],
    )  # fmt: skip
    with replacing(path) as temporary, rec:
        rec.save(str(temporary))
        rec.send_blueprint(rrb.Blueprint(layout, rrb.TimePanel(state="collapsed")), make_active=True, make_default=True)
        half = place.room.half
        rec.log("above/walls", rr.Boxes2D(centers=[(0, 0)], half_sizes=[half], colors=WALL), static=True)
        bounds = np.stack([piece.bounds()[:, :2] for piece in place.room.pieces])
        furniture = rr.Boxes2D(
            mins=_flip(bounds)[:, 0], sizes=bounds[:, 1] - bounds[:, 0], colors=WOOD,
            labels=[piece.kind for piece in place.room.pieces], show_labels=True,
        )  # fmt: skip
        rec.log("above/furniture", furniture, static=True)
        goal = place.metric[shown.task.goal, :2]
        rec.log("above/target", rr.Points2D(_up(goal[None]), colors=GOAL, radii=0.1), static=True)
        shortest = _up(place.metric[shown.shortest, :2])
        rec.log("above/shortest", rr.LineStrips2D([shortest], colors=SHORTEST, radii=0.02), static=True)
        rec.log("goal", rr.Image(place.views(shown.task.goal)), static=True)
        if shown.graphs:
            cells, count = visits_from_above(shown.graphs[-1], place)
            shades = matplotlib.colormaps["viridis"](np.log1p(count) / np.log1p(count.max()))
            edges = [_up(ends) for ends in edges_from_above(shown.graphs[-1], place)]
            rec.log("above/edges", rr.LineStrips2D(edges, colors=(150, 150, 150), radii=0.005), static=True)
            visits = rr.Points2D(_up(cells), colors=(255 * shades).astype(np.uint8), radii=0.05)
            rec.log("above/visits", visits, static=True)
        if shown.iterations:
            share = [own.get("coverage", 0.0) for own in shown.iterations]
            rec.log("coverage/share", rr.BarChart(share, color=SHORTEST), static=True)
            success = [own["success"] for own in shown.iterations]
            rec.log("coverage/success", rr.BarChart(success, color=GOAL), static=True)
        left = place.moves_left(shown.task.goal)
        for step, node in enumerate(shown.taken.nodes):
            rec.set_time("step", sequence=step)
            rec.log("view", rr.Image(place.views(int(node))))
            way = _up(place.metric[shown.taken.nodes[: step + 1], :2])
            rec.log("above/taken", rr.LineStrips2D([way], colors=TAKEN, radii=0.03))
            rec.log("above/camera", rr.Arrows2D(origins=way[-1:], vectors=_ahead(place, int(node)), colors=TAKEN))
            rec.log("episode/moves_left", rr.Scalars(int(left[node])))


def _up(points: np.ndarray) -> np.ndarray:
    """Points (..., 2) with y upwards, as maps have it; pictures have it downwards."""
    return points * (1, -1)


def _flip(bounds: np.ndarray) -> np.ndarray:
    """Boxes (N, 2, 2) likewise."""
    return np.sort(bounds * (1, -1), axis=1)


def _ahead(place: Place, node: int) -> np.ndarray:
    yaw = np.radians(place.metric[node, 5])
    return 0.35 * np.array([[np.cos(yaw), -np.sin(yaw)]])


def save_picture(path: Path, shown: Shown, columns: int = 6) -> None:
    """The graph from above beside the views along the episode."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    place = shown.place
    figure = plt.figure(figsize=(13, 5), layout="constrained")
    grid = figure.add_gridspec(2, 2 + columns // 2, width_ratios=[3.6, *[1] * (1 + columns // 2)])
    axis = figure.add_subplot(grid[:, 0])
    for piece in place.room.pieces:
        low, high = piece.bounds()[:, :2]
        axis.add_patch(Rectangle(tuple(low), *(high - low), color=[c / 255 for c in WOOD], zorder=0))
        axis.annotate(piece.kind, tuple((low + high) / 2), ha="center", va="center", fontsize=6)
    if shown.graphs:
        cells, count = visits_from_above(shown.graphs[-1], place)
        lines = LineCollection(list(edges_from_above(shown.graphs[-1], place)), color="0.7", linewidth=0.6, zorder=0.5)
        axis.add_collection(lines)
        dots = axis.scatter(cells[:, 0], cells[:, 1], c=count, s=14, norm="log", cmap="viridis", zorder=1)
        figure.colorbar(dots, ax=axis, label="visits", shrink=0.7)
    jitter = np.random.default_rng(0).normal(0, 0.02, (len(shown.taken.nodes), 2))
    axis.plot(*(place.metric[shown.taken.nodes, :2] + jitter).T, color="orangered", label="taken", zorder=3)
    axis.plot(*place.metric[shown.shortest, :2].T, "--", color="royalblue", label="shortest", zorder=3)
    axis.plot(*place.metric[shown.task.start, :2], "ko", label="start", zorder=4)
    axis.plot(*place.metric[shown.task.goal, :2], "*", color="green", markersize=13, label="target", zorder=4)
    axis.set(xlim=(-place.room.half[0], place.room.half[0]), ylim=(-place.room.half[1], place.room.half[1]))
    axis.set(xlabel="x (m)", ylabel="y (m)", aspect="equal")
    axis.legend(fontsize=7, loc="upper right")
    nodes = shown.taken.nodes
    chosen = np.unique(np.linspace(0, len(nodes) - 1, columns).round().astype(int))
    pictures = [("target", place.views(shown.task.goal))]
    pictures += [(f"move {step}", place.views(int(nodes[step]))) for step in chosen]
    for number, (title, picture) in enumerate(pictures):
        row, column = divmod(number, 1 + columns // 2)
        axis = figure.add_subplot(grid[row, 1 + column])
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    outcome = "arrived" if shown.taken.success else "stopped elsewhere" if shown.taken.stopped else "did not stop"
    figure.suptitle(f"{place.split} room {place.index}: {outcome} after {len(shown.taken.moves)} moves, "
                    f"{len(shown.shortest) - 1} are the fewest to the exact pose", fontsize=10)  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def keys() -> Iterator[str]:
    """Keys as they are pressed; characters of the input where it is no terminal."""
    if not sys.stdin.isatty():
        yield from sys.stdin.read()
        return
    import termios
    import tty

    stream = sys.stdin.fileno()
    before = termios.tcgetattr(stream)
    try:
        tty.setcbreak(stream)
        while key := sys.stdin.read(1):
            yield key
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def play(rec: rr.RecordingStream, seed: int, split: str, say: Callable[[str], None] = print) -> bool:
    """One episode by hand; whether it succeeded. Views go to the recording stream as they are made."""
    try:
        env = gymnasium.make("ViewPlanning-v0", split=split, image_size=256, disable_env_checker=True).unwrapped
    except ValueError as error:
        raise UserError(f"split: {error}") from error
    assert isinstance(env, ViewPlanningEnv)
    observation, info = env.reset(seed=seed)
    rec.send_blueprint(rrb.Horizontal(*(rrb.Spatial2DView(origin=f"/{name}", name=name) for name in ("view", "goal"))))
    rec.log("goal", rr.Image(observation["pixels"]["goal"]), static=True)
    say("w s forward back, a d left right, r f up down, q e turn, t g look up down, space: stop here, x: give up")
    rec.set_time("step", sequence=0)
    rec.log("view", rr.Image(observation["pixels"]["view"]))
    for key in keys():
        if key == "x":
            break
        if key not in KEYS:
            continue
        observation, _, terminated, truncated, info = env.step(KEYS[key])
        rec.set_time("step", sequence=len(env.moves))
        rec.log("view", rr.Image(observation["pixels"]["view"]))
        blocked = ", blocked" if observation["blocked"] and KEYS[key] < MOVES else ""
        say(f"{KEYS[key].name.lower()}{blocked}; {env.horizon - len(env.moves)} moves are left")
        if terminated or truncated:
            break
    env.close()
    outcome = "arrived" if info["is_success"] else "not there"
    say(f"{outcome}: {info['distance']:.2f} m and {info['angle']:.0f} degrees off")
    return bool(info["is_success"])
