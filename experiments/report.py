"""Tables and plots from results files alone: python experiments/report.py main_job

Reads experiments/<name>/results/*.json, writes experiments/<name>/table.md and plot.png.
"""

import argparse
import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]
SCORES = (
    ("progress", "stage progress %", 1),
    ("branch_accuracy", "branch accuracy %", 100),
    ("success", "success %", 100),
)


def grouped(rows: list[Row], key: Callable[[Row], Hashable]) -> dict[Any, list[Row]]:
    """Rows by `key`, in the order in which keys come first."""
    out: dict[Any, list[Row]] = {}
    for row in rows:
        out.setdefault(key(row), []).append(row)
    return out


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines))


def source(about: Row) -> str:
    return f"`{about['command']}`, commit {about['commit'][:10]}, {about['date']}, {about['hardware']}."


def score_table(about: Row) -> str:
    """Mean over seeds, and each seed, of closed-loop scores by task and memory."""
    lines = []
    for (task, memory), rows in grouped(about["rows"], lambda row: (row["task"], row["memory"])).items():
        cells = []
        for key, _, scale in SCORES:
            values = np.array([scale * row[key] for row in rows])
            cells.append(f"{values.mean():.1f} ({', '.join(f'{v:.0f}' for v in values)})")
        lines.append([task, memory, str(len(rows)), *cells])
    header = ["task", "memory", "seeds", *(label for _, label, _ in SCORES)]
    episodes = about["rows"][0]["episodes"]
    return f"{markdown(header, lines)}\n\nMean over seeds (each seed), {episodes} closed-loop episodes a seed. "


def score_plot(contents: list[Row]) -> Figure:
    rows = [row for about in contents for row in about["rows"]]
    members = grouped(rows, lambda row: (row["task"], row["memory"]))
    tasks, memories = (list(dict.fromkeys(key[i] for key in members)) for i in (0, 1))
    figure, axes = plt.subplots(1, len(SCORES), figsize=(4 * len(SCORES), 3), layout="constrained")
    for axis, (key, label, scale) in zip(axes, SCORES, strict=True):
        for index, memory in enumerate(memories):
            for place, task in enumerate(tasks):
                values = [scale * row[key] for row in members.get((task, memory), [])]
                x = place + (index - (len(memories) - 1) / 2) * 0.25
                if values:
                    axis.bar(x, np.mean(values), 0.22, color=f"C{index}", label=memory)
                    axis.plot([x] * len(values), values, "k.", markersize=4)
        axis.set_xticks(range(len(tasks)), tasks)
        axis.set_title(label, fontsize=10)
        axis.set_ylim(0, 105)
    handles, labels = axes[-1].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique), fontsize=8)
    return figure


def steps_table(about: Row) -> str:
    """Optimiser steps to 90 % held-out branch accuracy by method, demonstrations and delay."""
    lines = []
    key = ("method", "demonstrations", "delay")
    for case, rows in grouped(about["rows"], lambda row: tuple(row[k] for k in key)).items():
        reached = [row["steps"] for row in rows]
        median = float(np.median([steps or np.inf for steps in reached]))
        each = ", ".join(str(row["steps"] or f"not in {row['trained']} ({100 * row['best']:.0f} %)") for row in rows)
        lines.append([*map(str, case), f"{median:.0f}" if np.isfinite(median) else "not reached", each])
    header = [*key, "steps to 90 %, median", "each seed"]
    return f"{markdown(header, lines)}\n\n"


def steps_plot(contents: list[Row]) -> Figure:
    """One panel a results file; a run that was given up is an open mark at its last step."""
    figure, axes = plt.subplots(1, len(contents), figsize=(5.5 * len(contents), 4), layout="constrained", squeeze=False)
    for axis, about in zip(axes[0], contents, strict=True):
        varied = next((k for k in ("demonstrations", "delay") if len({r[k] for r in about["rows"]}) > 1), "method")
        methods = grouped(about["rows"], lambda row: row["method"])
        for index, (method, rows) in enumerate(methods.items()):
            where = [index if varied == "method" else row[varied] for row in rows]
            _steps_points(axis, where, rows, f"C{index % 10}", method)
        if varied == "method":
            axis.set_xticks(range(len(methods)), list(methods), rotation=60, ha="right", fontsize=8)
        else:
            axis.set_xscale("log")
            axis.set_xlabel("demonstrations" if varied == "demonstrations" else "delay, control steps")
            axis.legend(fontsize=8)
        axis.set_ylabel("optimiser steps to 90 % held-out branch accuracy")
        axis.set_ylim(bottom=0)
    return figure


def _steps_points(axis: Axes, where: list[float], rows: list[Row], color: str, label: str) -> None:
    for x, row in zip(where, rows, strict=True):
        face = color if row["steps"] else "none"
        axis.plot([x], [row["steps"] or row["trained"]], "o", color=color, markerfacecolor=face, markersize=5)
    places = grouped([{"x": x, **row} for x, row in zip(where, rows, strict=True)], lambda row: row["x"])
    middle = [float(np.median([row["steps"] or row["trained"] for row in members])) for members in places.values()]
    axis.plot(list(places), middle, "-" if len(places) > 1 else "_", color=color, label=label, markersize=14)


REPORTS = {"main_job": (score_table, score_plot), "learning_sooner": (steps_table, steps_plot)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(REPORTS))
    name = parser.parse_args().name
    table, plot = REPORTS[name]
    contents = [json.loads(path.read_text()) for path in sorted((HERE / name / "results").glob("*.json"))]
    text = "\n".join(f"{table(about)}{source(about)}\n" for about in contents)
    plot(contents).savefig(HERE / name / "plot.png", dpi=110)
    (HERE / name / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
