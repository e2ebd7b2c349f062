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

HERE = Path(__file__).resolve().parent
FIGURES = (
    ("progress", "stage progress %", 1),
    ("branch_accuracy", "branch accuracy %", 100),
    ("success", "success %", 100),
)


def groups(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Rows by task and memory, over seeds."""
    out: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        out.setdefault((row["task"], row["memory"]), []).append(row)
    return out


def table(rows: list[dict], about: dict) -> str:
    lines = ["| task | memory | seeds | " + " | ".join(label for _, label, _ in FIGURES) + " |", "| --- " * 6 + "|"]
    for (task, memory), members in groups(rows).items():
        cells = []
        for key, _, scale in FIGURES:
            values = np.array([scale * row[key] for row in members])
            cells.append(f"{values.mean():.1f} ({', '.join(f'{v:.0f}' for v in values)})")
        lines.append(f"| {task} | {memory} | {len(members)} | " + " | ".join(cells) + " |")
    source = f"Mean over seeds (each seed), {members[0]['episodes']} closed-loop episodes a seed. "
    source += f"`{about['command']}`, commit {about['commit'][:10]}, {about['date']}, {about['hardware']}."
    return "\n".join([*lines, "", source, ""])


def plot(rows: list[dict], path: Path) -> None:
    members = groups(rows)
    tasks, memories = (list(dict.fromkeys(key[i] for key in members)) for i in (0, 1))
    figure, axes = plt.subplots(1, len(FIGURES), figsize=(4 * len(FIGURES), 3), layout="constrained")
    for axis, (key, label, scale) in zip(axes, FIGURES, strict=True):
        for index, memory in enumerate(memories):
            for place, task in enumerate(tasks):
                values = [scale * row[key] for row in members.get((task, memory), [])]
                x = place + (index - (len(memories) - 1) / 2) * 0.25
                axis.bar(
                    x, np.mean(values) if values else 0, 0.22, color=f"C{index}", label=memory if place == 0 else None
                )
                axis.plot([x] * len(values), values, "k.", markersize=4)
        axis.set_xticks(range(len(tasks)), tasks)
        axis.set_title(label, fontsize=10)
        axis.set_ylim(0, 105)
    axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["main_job"])
    folder = HERE / parser.parse_args().name
    contents = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    text = [table(content["rows"], content) for content in contents]
    plot([row for content in contents for row in content["rows"]], folder / "plot.png")
    (folder / "table.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
