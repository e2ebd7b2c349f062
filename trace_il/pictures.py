"""Rollout -> PNG strip and MP4, for papers and READMEs."""

from pathlib import Path
from typing import Any

import numpy as np

from .data.video import encode_video
from .files import atomic_write
from .rollout import Rollout

PHASES = ("before the cue", "cue", "shared segment", "branch")
PHASE_COLORS = ((90, 90, 100), (255, 170, 40), (110, 130, 160), (60, 170, 90))


def colormap(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] -> uint8 RGB (viridis)."""
    import matplotlib

    return (255 * matplotlib.colormaps["viridis"](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)


def outcome(result: Rollout) -> str:
    """What came of a rollout, as far as its environment tells."""
    data = result.recording
    known = data.info[-1] if data is not None else {}
    parts = [f"cue {result.cue}"] if result.cue >= 0 else []
    if data is not None and result.branch_correct is not None:
        parts.append({-1: "branch not reached", 0: "wrong branch", 1: "correct branch"}[result.branch_correct])
    if "progress" in known or "is_success" in known:
        parts.append(f"progress {100 * result.progress:.0f} %")
    if "is_success" in known:
        parts.append("success" if result.success else "no success")
    return ", ".join([f"seed {result.seed}", *parts])


def save_strip(path: Path, result: Rollout, spec: dict[str, Any], columns: int = 10) -> None:
    """Frames of all cameras over time above the routing, write and read maps, with phase bands.

    The frames shown are spread over the episode, with more of them while the cue is in view.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    data = result.recording
    assert data is not None
    images, every = np.stack(data.images), spec["tick_every"]
    length, cameras = images.shape[:2]
    phase = np.array([i.get("phase", -1) for i in data.info])
    shown = np.linspace(0, length - 1, columns).round().astype(int)
    cue = np.flatnonzero(phase == 1)
    if 0 < len(cue) < length / 2:  # the middle of the cue must be seen
        shown[np.abs(shown - cue[len(cue) // 2]).argmin()] = cue[len(cue) // 2]
    maps = {"routing": data.routing, "write strength": data.write_strength, "read weights": data.read_weights}
    figure, axes = plt.subplots(
        cameras + 4,
        1,
        figsize=(12, 1.25 * cameras + 3.6),
        height_ratios=[1.2] * cameras + [0.25, 0.8, 0.8, 0.8],
        layout="constrained",
    )
    for index, camera in enumerate(spec["cameras"]):
        axes[index].imshow(np.concatenate(list(images[shown, index]), axis=1), interpolation="nearest")
        axes[index].set_ylabel(camera, fontsize=8)
        axes[index].set_xticks([])
        axes[index].set_yticks([])
    width = images.shape[3]
    axes[0].set_xticks((np.arange(columns) + 0.5) * width, [f"step {s}" for s in shown], fontsize=8)
    axes[0].xaxis.tick_top()
    band = axes[cameras]
    for value, (name, color) in enumerate(zip(PHASES, PHASE_COLORS, strict=True)):
        steps = np.flatnonzero(phase == value)
        for run in np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1):
            if len(run):
                band.axvspan(run[0], run[-1] + 1, color=[c / 255 for c in color])
                if len(run) > length / 20:
                    band.text(run[0] + len(run) / 2, 0.5, name, ha="center", va="center", fontsize=8, color="white")
    band.set_visible(bool((phase >= 0).any()))
    band.set_xlim(0, length)
    band.set_xticks([])
    band.set_yticks([])
    for axis, (name, rows) in zip(axes[cameras + 1 :], maps.items(), strict=True):
        values = np.stack(rows).T
        picture = axis.imshow(
            values, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0,
            extent=(0, len(rows) * every, values.shape[0] - 0.5, -0.5),
        )  # fmt: skip
        axis.set_xlim(0, length)
        axis.set_ylabel(f"{name}\nslot", fontsize=8)
        axis.set_yticks(range(values.shape[0]))
        axis.tick_params(labelsize=7)
        figure.colorbar(picture, ax=axis, pad=0.005, aspect=8).ax.tick_params(labelsize=6)
    axes[-1].set_xlabel("control step", fontsize=8)
    figure.suptitle(outcome(result), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_video(path: Path, result: Rollout, spec: dict[str, Any], side: int = 192) -> None:
    """MP4 with all cameras side by side, enlarged to about `side` pixels, at the control rate."""
    data = result.recording
    assert data is not None
    images = np.stack(data.images)
    factor = max(1, side // images.shape[2])
    tiles = np.concatenate([images[:, c] for c in range(images.shape[1])], axis=2)
    atomic_write(path, encode_video(tiles.repeat(factor, 1).repeat(factor, 2), spec["control_hz"], crf=20))
