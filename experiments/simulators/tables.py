"""Tables and plots of the simulators' results; called by ../report.py."""

from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
from common import Row, grouped, markdown
from matplotlib.figure import Figure

COLORS = [plt.get_cmap("tab20")(number) for number in (*range(0, 20, 2), *range(1, 20, 2))]
COLUMNS = (
    ("mse", "MSE, m^2", "{:.2e}"),
    ("mse_median", "median", "{:.2e}"),
    ("mse_10", "frame 10", "{:.1e}"),
    ("transport", "transport, m", "{:.3f}"),
    ("diverged", "diverged", "{:.2f}"),
    ("gap_error", "gap error, mm", "{:.1f}"),
    ("apart_gap_error", "surfaces pushed apart, mm", "{:.1f}"),
    ("penetration", "penetration, mm", "{:.1f}"),
    ("apart_penetration", "surfaces pushed apart, mm", "{:.1f}"),
    ("impact_frames_median", "impact, frames", "{:.1f}"),
    ("missed_impact", "impact missed", "{:.2f}"),
    ("momentum_drift", "momentum drift", "{:.1e}"),
    ("angular_momentum_drift", "angular", "{:.1e}"),
    ("kinetic_energy_error", "energy error", "{:.3f}"),
    ("equivariance_float32", "equivariance of a frame, m", "{:.0e}"),
    ("equivariance_float64", "in float64, m", "{:.0e}"),
    ("equivariance_floor", "ground truth's own, rms of the last frame, m", "{:.0e}"),
)
OURS, BASELINES = "EqCollide-style", ("GNS", "MeshGraphNets", "EGNN", "SEGNO")


def _cell(rows: list[Row], key: str, form: str) -> str:
    scale = 1e3 if form == "{:.1f}" and key.endswith(("gap_error", "penetration")) else 1.0
    values = [scale * row[key] for row in rows if row.get(key) is not None]
    if not values:
        return ""
    each = f" ({', '.join(form.format(value) for value in values)})" if len(values) > 1 and key == "mse" else ""
    return form.format(np.mean(values)) + each


def _growth(rows: list[Row]) -> str:
    """Exponents b of ms ~ n^b, a least-squares fit in the logarithms, of the time for all scenes of a frame."""
    lines = []
    for (sim, device), own in grouped(rows, itemgetter("sim", "device")).items():
        cells = []
        for key in ("bodies", "points", "batch"):
            # All that share what is varied: two bodies of the usual density, one scene.
            usual = [row for row in own if row["bodies"] == 2 and row["batch"] == 1]
            points = usual[0]["points"] if usual else 0
            if key == "bodies":
                chosen = [row for row in own if row["batch"] == 1 and (row["bodies"] != 2 or row["points"] == points)]
            elif key == "points":
                chosen = usual
            else:
                chosen = [row for row in own if row["batch"] > 1 or row in usual[:1]]
            sizes = np.log([row[key] for row in chosen])
            times = np.log([row["ms_per_scene_frame"] * row["batch"] for row in chosen])
            cells.append(f"{np.polyfit(sizes, times, 1)[0]:.2f}" if len(set(sizes)) > 1 else "")
        lines.append([sim, device, *cells])
    return markdown(["exponent of growth with", "device", "bodies", "points", "batch"], lines)


def _verdict(rows: list[Row]) -> str:
    """By how much the error of ours is below that of the best learned baseline, on each test."""
    lines = []
    for (dim, times, test), block in grouped(rows, itemgetter("dim", "times", "test")).items():
        errors = {sim: np.mean([row["mse"] for row in own]) for sim, own in grouped(block, itemgetter("sim")).items()}
        known = {sim: error for sim, error in errors.items() if sim in BASELINES}
        if OURS in errors and known:
            best = min(known, key=lambda sim: known[sim])
            below = 100 * (1 - errors[OURS] / known[best])
            lines.append(
                [f"{dim}D", str(times), test, f"{errors[OURS]:.2e}", f"{best}, {known[best]:.2e}", f"{below:.1f}"]
            )
    header = ["", "times the steps", "test", f"{OURS}, MSE, m^2", "best learned baseline", "below it by %"]
    return f"{markdown(header, lines)}\n\n" if lines else ""


def simulators_table(about: Row) -> str:
    """A block for each test (mean over seeds, each seed's MSE); costs and learning curves are one table each."""
    rows = about["rows"]
    if rows and "pace" in rows[0]:
        lines = [[row["pace"], f"{1e3 * row['cpu_seconds_per_step']:.0f}"] for row in rows]
        return f"{markdown(['trained with', 'core ms a step'], lines)}\n\n"
    if rows and "ms_per_scene_frame" in rows[0] and "test" not in rows[0]:
        keys = ("sim", "dim", "device", "bodies", "batch", "points")
        numbers = ("ms_per_scene_frame", "simulated_seconds_per_second", "times_mujoco", "peak_mib")
        lines = []
        for row in rows:
            cells = ["" if row[key] is None else f"{row[key]:.3g}" for key in numbers]
            lines.append([*(f"{row[key]}" for key in keys), *cells])
        table = markdown([key.replace("_", " ") for key in (*keys, *numbers)], lines)
        return f"{table}\n\n{_growth(rows)}\n\n"
    if rows and "test" not in rows[0]:  # learning curves
        runs = grouped(rows, itemgetter("sim", "dim", "seed", "times")).items()
        lines = [[*map(str, case), f"{own[-1]['step']}", f"{min(row['mse'] for row in own):.2e}"] for case, own in runs]
        header = ["simulator", "dim", "seed", "times", "steps", "least validation MSE, m^2"]
        return f"{markdown(header, lines)}\n\n"
    text = _verdict(rows)
    for (dim, times), own in grouped(rows, itemgetter("dim", "times")).items():
        for test, block in grouped(own, itemgetter("test")).items():
            lines = []
            for sim, members in grouped(block, itemgetter("sim")).items():
                cells = [_cell(members, key, form) for key, _, form in COLUMNS]
                seconds = np.mean([row["cpu_seconds"] for row in members])
                steps = np.mean([row["steps"] for row in members])
                lines.append([sim, f"{members[0]['parameters']}", f"{seconds:.0f}", f"{steps:.0f}", *cells])
            more = f", {times} times the steps" if times > 1 else ""
            header = ["simulator", "parameters", "training, core s", "steps", *(label for _, label, _ in COLUMNS)]
            scenes = f"{block[0]['scenes']} scenes, {block[0]['rejected']} drawn anew"
            text += f"**{dim}D, {test}{more}** ({scenes})\n\n{markdown(header, lines)}\n\n"
    return text


def simulators_plot(contents: list[Row]) -> Figure:
    """By dimension: error of each simulator on each test, and validation error over training."""
    rows = [row for about in contents for row in about["rows"] if "pace" not in row]
    dims = sorted({row["dim"] for row in rows})
    sims = list(dict.fromkeys(row["sim"] for row in rows if "test" in row))  # one colour in all panels
    figure, axes = plt.subplots(2, len(dims), figsize=(7.5 * len(dims), 8), layout="constrained", squeeze=False)
    for column, dim in enumerate(dims):
        judged = [row for row in rows if row["dim"] == dim and row.get("times") == 1 and "test" in row]
        tests = list(dict.fromkeys(row["test"] for row in judged))
        axis = axes[0, column]
        for sim, members in grouped(judged, itemgetter("sim")).items():
            index = sims.index(sim)
            for place, test in enumerate(tests):
                values = [row["mse"] for row in members if row["test"] == test]
                x = place + (index - 5) * 0.07
                axis.plot([x] * len(values), values, "o", color=COLORS[index % 20], markersize=4,
                          label=sim if place == 0 else None)  # fmt: skip
        axis.set_yscale("log")
        axis.set_xticks(range(len(tests)), tests, rotation=30, ha="right", fontsize=8)
        axis.set(ylabel="rollout MSE, m^2", title=f"{dim}D")
        axis.legend(fontsize=6, ncols=2)
        axis = axes[1, column]
        seconds = {(row["sim"], row["seed"]): (row["cpu_seconds"], row["steps"]) for row in judged}
        curves = [row for row in rows if row["dim"] == dim and row.get("times") == 1 and "step" in row]
        for (sim, seed), members in grouped(curves, itemgetter("sim", "seed")).items():
            taken, steps = seconds.get((sim, seed), (0.0, 0))
            if steps:
                axis.plot([row["step"] * taken / steps for row in members], [row["mse"] for row in members],
                          color=COLORS[sims.index(sim) % 20], label=sim if seed == 0 else None)  # fmt: skip
        axis.set(yscale="log", xlabel="training, core s", ylabel="validation rollout MSE, m^2")
        axis.legend(fontsize=6)
    return figure
