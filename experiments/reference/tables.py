"""Table and plot of the base policies beside published scores; called by ../report.py."""

from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
from common import Row, grouped, markdown
from matplotlib.figure import Figure


def reference_table(about: Row) -> str:
    """Success of the base policies by task, beside what is published for Diffusion Policy."""
    lines = []
    for task, rows in grouped(about["rows"], itemgetter("task")).items():
        cells = []
        for policy in ("act", "diffusion"):
            values = [100 * row["success"] for row in rows if row["policy"] == policy]
            cells.append(f"{np.mean(values):.1f} ({', '.join(f'{v:.0f}' for v in values)})" if values else "")
        lines.append([task, str(rows[0]["demonstrations"]), *cells, rows[0]["published"]])
    header = ["task", "demonstrations", "ACT, success %", "diffusion, success %", "Diffusion Policy in Ze et al. 2024"]
    episodes = about["rows"][0]["episodes"]
    return f"{markdown(header, lines)}\n\nMean over seeds (each seed), {episodes} closed-loop episodes a seed. "


def reference_plot(contents: list[Row]) -> Figure:
    """Success of the base policies by task, each seed a dot, with what is published as a line."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    tasks = grouped(contents[0]["rows"], itemgetter("task"))
    for place, rows in enumerate(tasks.values()):
        for x, (policy, color) in zip((-0.2, 0.2), (("act", "C0"), ("diffusion", "C1")), strict=True):
            values = [100 * row["success"] for row in rows if row["policy"] == policy]
            axis.bar(place + x, np.mean(values), 0.36, color=color, label=f"{policy}, no memory" if not place else None)
            axis.plot([place + x] * len(values), values, "k.", markersize=4)
        level = float(rows[0]["published"].split()[0])
        label = None if place else "Diffusion Policy, Ze et al. 2024"
        axis.plot([place - 0.42, place + 0.42], [level, level], "k--", linewidth=1, label=label)
    axis.set_xticks(range(len(tasks)), [task.removesuffix("-v3") for task in tasks], fontsize=8)
    axis.set(ylabel="success, %", ylim=(0, 105))
    axis.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure
