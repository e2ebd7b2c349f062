"""Table and plot of looking and acting; called by ../report.py."""

from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
from common import Row, grouped, markdown
from matplotlib.figure import Figure

KEYS = ("task", "policy", "memory", "demonstrations")


def look_table(about: Row) -> str:
    """A line an arm: means over seeds, and each seed's branch accuracy."""
    header = ["task", "look", "memory", "demonstrations", "branch accuracy % (each seed)", "success %", "cue seen %",
              "steps to the cue / oracle's, median", "mean", "both cues right %"]  # fmt: skip
    lines = []
    for arm, rows in grouped(about["rows"], itemgetter(*KEYS)).items():
        each = [100 * row["branch_accuracy"] for row in rows]
        steps = np.concatenate([np.column_stack((row["cue_steps"], row["oracle_cue_steps"])) for row in rows])
        slower = (steps[:, 0] / steps[:, 1])[steps[:, 0] >= 0]
        cells = [f"{np.mean(each):.1f} ({', '.join(f'{v:.0f}' for v in each)})"]
        cells += [f"{100 * np.mean([row[key] for row in rows]):.1f}" for key in ("success", "cue_found")]
        cells += [f"{value(slower):.2f}" if len(slower) else "" for value in (np.median, np.mean)]
        cells += [f"{100 * np.mean([row['both_cues_right'] for row in rows]):.1f}"]
        lines.append([*map(str, arm), *cells])
    episodes = about["rows"][0]["episodes"]
    return (
        f"{markdown(header, lines)}\n\n{episodes} closed-loop episodes a seed. "
        "Steps to the cue: over the episodes in which it is seen, "
        "each against the oracle in the same scene. All policies begin with one of the passive task, which had its 250 "
        "demonstrations of what is done after the look. "
    )


def look_plot(contents: list[Row]) -> Figure:
    """Branch accuracy of every arm, a panel a task."""
    rows = [row for about in contents for row in about["rows"]]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = plt.subplots(1, len(tasks), figsize=(7 * len(tasks), 3.6), layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        arms = grouped([row for row in rows if row["task"] == task], itemgetter(*KEYS))
        for place, own in enumerate(arms.values()):
            values = [100 * row["branch_accuracy"] for row in own]
            axis.bar(place, np.mean(values), color="C0" if own[0]["memory"] == "trace" else "0.6")
            axis.plot([place] * len(values), values, "k.", markersize=3)
        labels = [f"{look}\n{memory}, {count}" for _, look, memory, count in arms]
        axis.set_xticks(range(len(arms)), labels, fontsize=7)
        axis.axhline(50, color="C3", linestyle="--", linewidth=1)
        axis.set(title=task, ylabel="branch accuracy, %", ylim=(0, 105))
    return figure
