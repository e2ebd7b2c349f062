"""Tables and plots from results files alone: python experiments/report.py main_job

Reads experiments/<name>/results/*.json, writes experiments/<name>/table.md and plot.png.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from common import Row, grouped, markdown
from look_then_act.tables import look_plot, look_table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reference.tables import reference_plot, reference_table
from scipy.stats import spearmanr
from simulators.tables import simulators_plot, simulators_table
from view_planning.tables import views_plot, views_table

HERE = Path(__file__).resolve().parent
SCORES = (
    ("progress", "stage progress %", 1),
    ("branch_accuracy", "branch accuracy %", 100),
    ("success", "success %", 100),
)


def source(about: Row) -> str:
    return f"`{about['command']}`, commit {about['commit'][:10]}, {about['date']}, {about['hardware']}."


def read(folder: Path) -> list[Row]:
    """Results files; those called <table>-<part>.json are one table."""
    contents = []
    for paths in grouped(sorted(folder.glob("*.json")), lambda path: path.stem.split("-")[0]).values():
        parts = [measured for path in paths for measured in json.loads(path.read_text())]
        sources = "\n".join(dict.fromkeys(source(part) for part in parts))
        contents.append({"rows": [row for part in parts for row in part["rows"]], "source": sources})
    return contents


def ahead(ours: list[Row], other: list[Row], draws: int = 4000) -> str:
    """By how much our branch accuracy is higher, in points, and a 95 % interval by drawing seeds of training and the
    scenes that they share anew; empty where the same seeds and scenes have not been kept of both."""
    found = [{row["seed"]: row["each_branch"] for row in rows if "each_branch" in row} for rows in (ours, other)]
    seeds = sorted(set(found[0]) & set(found[1]))
    lengths = {len(own[seed]) for own in found for seed in seeds}
    if len(lengths) != 1 or {row["seed"] for row in (*ours, *other)} != set(seeds):
        return ""
    correct = np.array([[own[seed] for seed in seeds] for own in found]) == 1  # (2, seeds, episodes)
    gain, rng = 100.0 * (correct[0].astype(float) - correct[1]), np.random.default_rng(0)
    runs, scenes = (rng.integers(size, size=(draws, size)) for size in gain.shape)
    means = gain[runs[:, :, None], scenes[:, None, :]].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{gain.mean():.1f} [{low:.1f}, {high:.1f}]"


def score_table(about: Row) -> str:
    """Mean over seeds, and each seed, of closed-loop scores by task, policy and memory; then the mean over tasks."""
    lines = []
    arms = grouped(about["rows"], lambda row: (row["task"], row["policy"], row["memory"]))
    for (task, policy, memory), rows in arms.items():
        cells = []
        for key, _, scale in SCORES:
            values = np.array([scale * row[key] for row in sorted(rows, key=lambda row: row["seed"])])
            cells.append(f"{values.mean():.1f} ({', '.join(f'{v:.0f}' for v in values)})")
        reached = np.mean([row["branch_reached"] for row in rows])
        correct = np.mean([row["branch_accuracy"] for row in rows]) / max(reached, 1e-9)
        cells += [f"{100 * reached:.0f}", f"{100 * correct:.0f}" if reached else ""]
        ours = arms.get((task, policy, "trace"), [])
        cells.append(ahead(ours, rows) if memory != "trace" else "")
        episodes = "/".join(map(str, dict.fromkeys(row["episodes"] for row in rows)))
        lines.append([task, policy, memory, f"{len(rows)} x {episodes}", *cells])
    tasks = {row["task"] for row in about["rows"]}
    for (policy, memory), rows in grouped(about["rows"], lambda row: (row["policy"], row["memory"])).items():
        by_task = grouped(rows, lambda row: row["task"])
        if len(tasks) > 1 and set(by_task) == tasks:
            cells = []
            for key, _, scale in SCORES:
                mean = np.mean([np.mean([scale * row[key] for row in own]) for own in by_task.values()])
                cells.append(f"**{mean:.1f}**")
            # Bootstrap standard errors of single runs, as if runs were independent.
            variance = sum(sum(row["progress_error"] ** 2 for row in own) / len(own) ** 2 for own in by_task.values())
            cells[0] += f" ± {1.96 * np.sqrt(variance) / len(tasks):.1f}"
            lines.append(["all, task-balanced", policy, memory, str(len(rows)), *cells, "", "", ""])
    header = ["task", "policy", "memory", "runs x episodes", *(label for _, label, _ in SCORES)]
    header += ["branch reached %", "of these correct %", "TRACE's branch accuracy less this one, points"]
    return (
        f"{markdown(header, lines)}\n\nMean over seeds (each seed); retrieval keeps demonstrations, so it is offline. "
    )


def score_plot(contents: list[Row]) -> Figure:
    """A row of panels a results file, a panel a score."""
    figure, axes = plt.subplots(
        len(contents), len(SCORES), figsize=(4.5 * len(SCORES), 3.2 * len(contents)), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for line, about in zip(axes, contents, strict=True):
        several = len({row["policy"] for row in about["rows"]}) > 1
        members = grouped(
            about["rows"],
            lambda row, several=several: (row["task"], f"{row['policy']}, " * several + row["memory"]),
        )
        tasks, arms = (list(dict.fromkeys(key[i] for key in members)) for i in (0, 1))
        for axis, (key, label, scale) in zip(line, SCORES, strict=True):
            for index, arm in enumerate(arms):
                for place, task in enumerate(tasks):
                    values = [scale * row[key] for row in members.get((task, arm), [])]
                    x = place + (index - (len(arms) - 1) / 2) * 0.8 / len(arms)
                    if values:
                        axis.bar(x, np.mean(values), 0.7 / len(arms), color=f"C{index % 10}", label=arm)
                        axis.plot([x] * len(values), values, "k.", markersize=3)
            axis.set_xticks(range(len(tasks)), tasks, fontsize=8)
            axis.set_title(label, fontsize=10)
            axis.set_ylim(0, 105)
        handles, labels = line[-1].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        line[-1].legend(unique.values(), unique.keys(), fontsize=6, bbox_to_anchor=(1.02, 1), loc="upper left")
    return figure


def mean_table(about: Row) -> str:
    """Numbers averaged over seeds, by everything else that the rows say; a block for each kind of row."""
    text = ""
    keep = ("phase", "pixels", "processes")
    for _, block in grouped(about["rows"], lambda row: tuple(key for key in row if key != "seed")).items():
        words = [key for key, value in block[0].items() if isinstance(value, str) or key in keep]
        numbers = [key for key in block[0] if key not in (*words, "seed", "place")]
        lines = []
        for label, rows in grouped(block, lambda row, words=words: tuple(row[key] for key in words)).items():
            cells = [f"{np.mean([row[key] for row in rows]):.4g}" for key in numbers]
            lines.append([*map(str, label), str(len(rows)), *cells])
        header = [key.replace("_", " ") for key in (*words, "rows", *numbers)]
        text += f"{markdown(header, lines)}\n\n"
    return text


def diagnostics_plot(contents: list[Row]) -> Figure:
    """The probe's curves, one panel a task, and what interventions do."""
    by_part = {next(key for key in PART_OF if key in about["rows"][0]): about["rows"] for about in contents}
    by_part = {part: [row for row in rows if row["memory"] == "trace"] for part, rows in by_part.items()}
    tasks = list(dict.fromkeys(row["task"] for rows in by_part.values() for row in rows))
    figure, axes = plt.subplots(2, len(tasks), figsize=(4.5 * len(tasks), 6), layout="constrained", squeeze=False)
    for column, task in enumerate(tasks):
        axis = axes[0, column]
        own = [row for row in by_part.get("phase", []) if row["task"] == task]
        for name, color in (("slots", "C0"), ("content", "C1")):
            for number, (phase, rows) in enumerate(grouped(own, lambda row: row["phase"]).items()):
                points = grouped(rows, lambda row: row["place"])
                means = [np.mean([row[name] for row in members]) for members in points.values()]
                label = f"cue from the {name}" if number == 0 else None
                axis.plot([phase + place for place in points], means, color=color, label=label)
        axis.set_xticks(np.arange(4) + 0.5, ["before", "cue", "shared", "branch"])
        for edge in range(1, 4):
            axis.axvline(edge, color="0.8")
        axis.set(ylim=(0, 1.05), ylabel="accuracy of the probe")
        axis.set_title(task, fontsize=10)
        axis.legend(fontsize=8)
        axis = axes[1, column]
        kinds = grouped([r for r in by_part.get("intervention", []) if r["task"] == task], lambda r: r["intervention"])
        for place, (_, rows) in enumerate(kinds.items()):
            for shift, key in enumerate(("own_branch", "wrong_branch")):
                name = key.replace("_", " ") if place == 0 else None
                mean = np.mean([row[key] for row in rows])
                axis.bar(place + 0.4 * (shift - 0.5), mean, 0.36, color=f"C{3 * shift}", label=name)
        axis.set_xticks(range(len(kinds)), list(kinds))
        axis.set(ylim=(0, 1.05), ylabel="share of episodes")
        axis.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def performance_plot(contents: list[Row]) -> Figure:
    """Overhead of TRACE a control step, against the base policy."""
    rows = [row for about in contents for row in about["rows"] if "overhead" in row]
    figure, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
    middle, low, high = (100 * np.array([row[f"overhead{end}"] for row in rows]) for end in ("", "_low", "_high"))
    axis.bar(range(len(rows)), middle, yerr=[middle - low, high - middle], capsize=3)
    axis.set_xticks(
        range(len(rows)), [f"{r['policy']}\n{r['sizes']}\n{r['pixels']} px\n{r['form']}" for r in rows], fontsize=7
    )
    axis.set_ylabel("overhead, %")
    axis.axhline(10, color="C3", linestyle="--", linewidth=1)
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
    text = f"{markdown(header, lines)}\n\n"
    if len({row["demonstrations"] for row in about["rows"]}) > 1:
        fewest = []
        for method, rows in grouped(about["rows"], lambda row: row["method"]).items():
            medians = {
                number: np.median([row["steps"] or np.inf for row in own])
                for number, own in grouped(rows, lambda row: row["demonstrations"]).items()
            }
            enough = [number for number, steps in medians.items() if np.isfinite(steps)]
            fewest.append([method, str(min(enough)) if enough else f"more than {max(medians)}"])
        text += f"{markdown(['method', 'fewest demonstrations with which the median run reaches 90 %'], fewest)}\n\n"
    return text


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
        axis.set_ylabel("optimiser steps to 90 %\nheld-out branch accuracy")
        axis.set_ylim(bottom=0)
    return figure


def _steps_points(axis: Axes, where: list[float], rows: list[Row], color: str, label: str) -> None:
    for x, row in zip(where, rows, strict=True):
        face = color if row["steps"] else "none"
        axis.plot([x], [row["steps"] or row["trained"]], "o", color=color, markerfacecolor=face, markersize=5)
    places = grouped([{"x": x, **row} for x, row in zip(where, rows, strict=True)], lambda row: row["x"])
    middle = [float(np.median([row["steps"] or row["trained"] for row in members])) for members in places.values()]
    axis.plot(list(places), middle, "-" if len(places) > 1 else "_", color=color, label=label, markersize=14)


def transfer_table(about: Row) -> str:
    """Success by demonstrations and backend; gap and rank correlation between the simulators that policies come from,
    and between those that the same policies are judged in."""
    rows = [row for row in about["rows"] if "cleared" not in row["memory"]]
    lines, means = [], {}
    keys = ("task", "policy", "memory", "demonstrations", "judged_in")
    for case, own in grouped(rows, lambda row: tuple(row[key] for key in keys)).items():
        values = [100 * row["success"] for row in own]
        means[case] = float(np.mean(values))
        accuracies = [row["branch_accuracy"] for row in own]
        branch = "-" if None in accuracies else f"{np.mean([100 * accuracy for accuracy in accuracies]):.1f}"
        each = ", ".join(f"{v:.0f}" for v in values)
        lines.append([*map(str, case), str(len(own)), f"{means[case]:.1f} ({each})", branch])
    header = [*keys, "runs", "success % (each seed)", "branch accuracy %"]
    text = f"{markdown(header, lines)}\n\n"
    sizes = sorted({row["demonstrations"] for row in rows})
    real = {(case[1], case[3]): value for case, value in means.items() if case[4] == "mujoco"}
    by_size = [[value for at, value in real.items() if at == (name, size)]
               for name in ("from mujoco", "from learned") for size in sizes]  # fmt: skip
    if len(sizes) > 2 and all(by_size):
        one, two = (np.array([values[0] for values in half]) for half in (by_size[: len(sizes)], by_size[len(sizes) :]))
        rank = spearmanr(one, two).statistic
        text += "Policies from either simulator, judged in the ground truth: mean gap "
        text += f"{np.abs(one - two).mean():.1f} points, largest {np.abs(one - two).max():.1f}; "
        text += f"rank correlation over {len(sizes)} numbers of demonstrations {rank:.2f}.\n\n"
    policy = ("policy", "memory", "demonstrations", "seed")
    twice = grouped([row for row in rows if row["task"] == "push"], lambda row: tuple(row[key] for key in policy))
    pairs = [{row["judged_in"]: 100 * row["success"] for row in own} for own in twice.values()]
    both = np.array([[own["mujoco"], own["learned"]] for own in pairs if len(own) == 2])
    if len(both) > 2:
        apart = np.abs(both[:, 0] - both[:, 1])
        text += f"{len(both)} policies, each judged in both: mean gap {apart.mean():.1f} points, largest "
        text += f"{apart.max():.1f}; rank correlation {spearmanr(both[:, 0], both[:, 1]).statistic:.2f}.\n\n"
    return text


def transfer_plot(contents: list[Row]) -> Figure:
    """Success against demonstrations, one line a backend."""
    figure, axes = plt.subplots(1, len(contents), figsize=(5 * len(contents), 3.6), layout="constrained", squeeze=False)
    for axis, about in zip(axes[0], contents, strict=True):
        arms = grouped(about["rows"], lambda row: (row["policy"], row["memory"], row["judged_in"]))
        for (policy, memory, judge), rows in arms.items():
            sizes = grouped(rows, lambda row: row["demonstrations"])
            means = [100 * np.mean([row["success"] for row in own]) for own in sizes.values()]
            axis.plot(list(sizes), means, "o-", label=f"{policy}, memory={memory}, in {judge}")
        axis.set(xlabel="demonstrations", ylabel="success, %", ylim=(0, 105), title=about["rows"][0]["task"])
        axis.legend(fontsize=7)
    return figure


PART_OF = ("phase", "intervention", "transform", "history")  # what a row of each part of the diagnostics has
REPORTS = {
    "main_job": (score_table, score_plot),
    "tables": (score_table, score_plot),
    "learning_sooner": (steps_table, steps_plot),
    "diagnostics": (mean_table, diagnostics_plot),
    "reference": (reference_table, reference_plot),
    "performance": (mean_table, performance_plot),
    "simulators": (simulators_table, simulators_plot),
    "view_planning": (views_table, views_plot),
    "transfer": (transfer_table, transfer_plot),
    "look_then_act": (look_table, look_plot),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(REPORTS))
    name = parser.parse_args().name
    table, plot = REPORTS[name]
    contents = read(HERE / name / "results")
    text = "\n".join(f"{table(about)}{about['source']}\n" for about in contents)
    plot(contents).savefig(HERE / name / "plot.png", dpi=110)
    (HERE / name / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
