"""Per-episode statistics of dataset features and their aggregation, as LeRobotDataset v3 stores them."""

from typing import Any

import numpy as np

Stats = dict[str, np.ndarray]


def episode_statistics(values: np.ndarray) -> Stats:
    """min, max, mean, population std and count over the first axis of (T, ...) values."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": flat.min(0),
        "max": flat.max(0),
        "mean": flat.mean(0),
        "std": flat.std(0),
        "count": np.array([len(values)], dtype=np.int64),
    }


def image_statistics(frames: np.ndarray, every: int = 10) -> Stats:
    """The same over frames and pixels, a channel each, in [0, 1], with shape (3, 1, 1); every 10th frame."""
    sample = frames[::every]
    stats = episode_statistics(sample.reshape(-1, 3) / 255.0)
    count = np.array([len(sample)], dtype=np.int64)
    return {name: count if name == "count" else value.reshape(3, 1, 1) for name, value in stats.items()}


def aggregate(stats: list[Stats]) -> Stats:
    """Statistics of the union of disjoint samples (weighted parallel mean and variance)."""
    count = np.array([s["count"][0] for s in stats], dtype=np.float64)
    weight = (count / count.sum()).reshape([-1] + [1] * stats[0]["mean"].ndim)
    mean = (weight * np.stack([s["mean"] for s in stats])).sum(0)
    spread = np.stack([s["std"] ** 2 + (s["mean"] - mean) ** 2 for s in stats])
    return {
        "min": np.stack([s["min"] for s in stats]).min(0),
        "max": np.stack([s["max"] for s in stats]).max(0),
        "mean": mean,
        "std": np.sqrt((weight * spread).sum(0)),
        "count": np.array([int(count.sum())], dtype=np.int64),
    }


def to_lists(stats: dict[str, Stats]) -> dict[str, Any]:
    """JSON-compatible nested lists."""
    return {key: {name: value.tolist() for name, value in s.items()} for key, s in stats.items()}
