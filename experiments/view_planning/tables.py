"""Table and plot of planning by views; called by ../report.py."""

import matplotlib.pyplot as plt
import numpy as np
from common import Row, markdown
from matplotlib.figure import Figure
from scipy import stats

OURS = "graph distillation"
COLUMNS = (
    "success",
    "success_short",
    "success_long",
    "success_own_stop",
    "spl",
    "p2v",
    "v2p",
    "p2v_short",
    "v2p_short",
)
TOTALS = ("explored_moves", "optimiser_steps")


def named(row: Row) -> str:
    return row["arm"] if row["stage"] == "trained" else f"{row['arm']}, {row['stage']}"


def by_room(rows: list[Row]) -> dict[int, np.ndarray]:
    """Success in every room (rooms,), by seed."""
    return {row["seed"]: np.array([*map(int, row["outcomes"])]).reshape(row["rooms"], -1).mean(1) for row in rows}


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of (seeds, rooms) and its 95 % interval. All seeds are judged on the same tasks, and those of a room are
    alike, so they are no independent episodes: the variances of the means of rooms and, where there are several, of
    seeds are added, and the degrees of freedom are Satterthwaite's (1946)."""
    parts = [values.mean(axis) for axis in (0, 1)]
    parts = [means for means in parts if len(means) > 1]
    variances = np.array([means.var(ddof=1) / len(means) for means in parts])
    total = variances.sum()
    if total == 0:
        return float(values.mean()), float(values.mean()), float(values.mean())
    freedom = total**2 / (variances**2 / [len(means) - 1 for means in parts]).sum()
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(total))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def pooled(rows: list[Row]) -> tuple[float, float, float]:
    """Success over all seeds with its 95 % interval."""
    return interval(np.stack([*by_room(rows).values()]))


def difference(ours: list[Row], others: list[Row]) -> tuple[float, float, float] | None:
    """How much more often ours succeeds on the same tasks and seeds, with its 95 % interval; None: no common seed."""
    one, two = by_room(ours), by_room(others)
    common = sorted(set(one) & set(two))
    return interval(np.stack([one[seed] - two[seed] for seed in common])) if common else None


def views_table(about: Row) -> str:
    """A line an arm: means over seeds, success pooled with its interval, and how much better ours is."""
    lines = []
    ours = [row for row in about["rows"] if named(row) == OURS]
    for name in dict.fromkeys(map(named, about["rows"])):
        own = [row for row in about["rows"] if named(row) == name]
        p, low, high = pooled(own)
        cells = [f"{100 * p:.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
        for key in COLUMNS[1:]:
            values = [100 * row[key] for row in own if row.get(key) is not None]
            cells.append(f"{np.mean(values):.1f}" if values else "")
        for key in TOTALS:
            values = [row[key] for row in own if row.get(key) and row["stage"] == "trained"]
            cells.append(f"{np.mean(values):.0f}" if values else "")
        apart = difference(ours, own) if name != OURS else None
        lines.append(
            [
                name,
                str(len(own)),
                *cells,
                "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in apart)) if apart else "",
            ]
        )
    header = [
        "arm",
        "seeds",
        "success %",
        "short",
        "long",
        "own STOP",
        "SPL",
        "P2V",
        "V2P",
        "P2V short",
        "V2P short",
        "moves explored",
        "optimiser steps",
        f"{OURS} minus it",
    ]
    return markdown(header, lines) + "\n\n" + found_table(about["rows"])


# What exploring found in training rooms: key, header, factor.
FOUND = (
    ("explored_success", "success of its episodes % (random moves never say STOP)", 100),
    ("graph_nodes", "nodes of a room", 1),
    ("coverage", "of those within 20 moves %", 100),
    ("graph_edges_per_node", "edges a node", 1),
    ("graph_shared", "where trajectories meet %", 100),
    ("graph_reach_6", "within 6 moves of a start", 1),
)


def found_table(rows: list[Row]) -> str:
    """A line an arm and iteration, mean over seeds; empty where no results have it."""
    lines = []
    for name in dict.fromkeys(named(row) for row in rows if row["stage"].startswith("iteration")):
        own = [row for row in rows if named(row) == name]
        cells = [[factor * row[key] for row in own if key in row] for key, _, factor in FOUND]
        lines.append([name, *(f"{np.mean(values):.1f}" if values else "" for values in cells)])
    if not lines:
        return ""
    return "What exploring found:\n\n" + markdown(["arm", *(header for _, header, _ in FOUND)], lines) + "\n\n"


def views_plot(contents: list[Row]) -> Figure:
    """Success of every arm and iteration with its interval; and in the end, by the fewest moves to the target."""
    rows = [row for about in contents for row in about["rows"]]
    names = list(dict.fromkeys(map(named, rows)))
    figure, axes = plt.subplots(1, 2, figsize=(13, 0.3 * len(names) + 2.5), layout="constrained")
    for place, name in enumerate(names):
        own = [row for row in rows if named(row) == name]
        p, low, high = pooled(own)
        axes[0].errorbar(100 * p, place, xerr=[[100 * (p - low)], [100 * (high - p)]], fmt="o", color="C0")
        if own[0]["stage"] != "trained":
            continue
        moves = sorted({int(n) for row in own for n in row["by_moves"]})
        means = [100 * np.mean([row["by_moves"][str(n)] for row in own if str(n) in row["by_moves"]]) for n in moves]
        axes[1].plot(moves, means, label=name)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="success on unseen rooms, %")
    axes[1].set(xlabel="fewest moves to the target", ylabel="success, %")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
