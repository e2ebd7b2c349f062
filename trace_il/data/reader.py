"""Reading LeRobotDataset v3, written here or by lerobot."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import matplotlib.image
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from .lerobot import IMAGE_PREFIX, ONE_IMAGE, read_info
from .video import decode_video


class DatasetReader:
    """States and actions of a dataset in memory, images on request.

    Raises:
        UserError: missing or half-written files, features a policy cannot use, non-finite values.
    """

    def __init__(self, root: Path | str) -> None:
        try:
            self._open(Path(root))
        except KeyError as error:
            raise UserError(f"{root} lacks {error} in its metadata; it is not a whole LeRobotDataset v3") from error

    def _open(self, root: Path) -> None:
        self.root = root
        self.info = read_info(self.root)
        self.fps = float(self.info["fps"])
        features = self.info["features"]
        for key in ("observation.state", "action"):
            if key not in features:
                raise UserError(f"{root} has no feature {key!r}; it has {sorted(features)}")
        self.state_names = _names(features["observation.state"], "state")
        self.action_names = _names(features["action"], "action")
        self.annotations = tuple(k.removeprefix("annotation.") for k in features if k.startswith("annotation."))
        self.cameras: dict[str, tuple[int, int]] = {}
        for key, feature in features.items():
            if key.startswith(IMAGE_PREFIX) or key == ONE_IMAGE:
                camera = "image" if key == ONE_IMAGE else key.removeprefix(IMAGE_PREFIX)
                self.cameras[camera] = _image_size(feature)
        if any(features[key]["dtype"] == "video" for key in features):
            self.info["video_path"]  # is there, or the dataset is refused here
        tables = [self._read(path) for path in sorted(self.root.glob("meta/episodes/*/*.parquet"))]
        if not tables:
            raise UserError(f"{root} has no meta/episodes/*/*.parquet; the dataset is incomplete, collect it again")
        rows = pa.concat_tables(tables, promote_options="default").sort_by("episode_index").to_pylist()
        self.episodes: list[dict[str, Any]] = rows[: self.info["total_episodes"]]
        self.lengths = np.array([row["length"] for row in self.episodes], dtype=np.int64)
        if len(self.episodes) < self.info["total_episodes"] or self.lengths.sum() != self.info["total_frames"]:
            raise UserError(
                f"{root} is half-written: info.json counts {self.info['total_episodes']} episodes and "
                f"{self.info['total_frames']} frames, the episode table {len(self.episodes)} and {self.lengths.sum()}"
            )
        self._load_columns()

    def __len__(self) -> int:
        return len(self.episodes)

    def _read(self, path: Path, columns: Sequence[str] | None = None, episode: int | None = None) -> pa.Table:
        """Some columns of a file, or all; of one episode, or of all."""
        try:
            chosen = None if episode is None else [("episode_index", "=", episode)]
            return pq.read_table(path, columns=columns and list(columns), filters=chosen)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"cannot read {path} ({error}); the dataset is damaged, collect it again") from error

    def _load_columns(self) -> None:
        files = sorted({(row["data/chunk_index"], row["data/file_index"]) for row in self.episodes})
        self.states: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.labels: dict[str, list[np.ndarray]] = {name: [] for name in self.annotations}
        parts: list[pa.Table] = []
        wanted = ["episode_index", "observation.state", "action", *(f"annotation.{name}" for name in self.labels)]
        for chunk, file in files:
            path = self.root / self.info["data_path"].format(chunk_index=chunk, file_index=file)
            parts.append(self._read(path, wanted))
        table = pa.concat_tables(parts).combine_chunks() if parts else None
        for number, row in enumerate(self.episodes):
            assert table is not None
            episode = table.slice(row["dataset_from_index"], row["length"])
            if len(episode) != row["length"] or set(episode["episode_index"].to_pylist()) != {row["episode_index"]}:
                raise UserError(f"{self.root} is half-written: rows of episode {row['episode_index']} are missing")
            for key, store in (("observation.state", self.states), ("action", self.actions)):
                values = np.stack(episode[key].to_numpy()).astype(np.float32).reshape(row["length"], -1)
                if not np.isfinite(values).all():
                    step, channel = np.argwhere(~np.isfinite(values))[0]
                    raise UserError(f"{self.root}: {key}[{channel}] is not finite at step {step} of episode {number}")
                store.append(values)
            for name, labels in self.labels.items():
                labels.append(np.asarray(episode[f"annotation.{name}"].to_numpy(), dtype=np.int64))

    def frames(self, episode: int, camera: str) -> np.ndarray:
        """All frames of one episode and camera, decoded, uint8 (T, H, W, 3)."""
        row, key = self.episodes[episode], IMAGE_PREFIX + camera
        if key not in self.info["features"]:
            key = ONE_IMAGE
        if self.info["features"][key]["dtype"] == "image":
            return self._png_frames(row, key)
        place = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
        path = self.root / self.info["video_path"].format(video_key=key, **place)
        if not path.exists():
            raise UserError(f"{path} is missing; the dataset is incomplete, collect it again")
        start = round(row[f"videos/{key}/from_timestamp"] * self.fps)
        try:
            return decode_video(path, start, row["length"])
        except (av.FFmpegError, ValueError) as error:
            raise UserError(
                f"cannot read the video {path} ({error}); the dataset is damaged, collect it again"
            ) from error

    def _png_frames(self, row: dict[str, Any], key: str) -> np.ndarray:
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        table = self._read(self.root / self.info["data_path"].format(**place), [key], row["episode_index"])
        pictures = table[key].to_pylist()
        decoded = [matplotlib.image.imread(io.BytesIO(p["bytes"]), format="png")[..., :3] for p in pictures]
        return (np.stack(decoded) * 255).round().astype(np.uint8)


def _image_size(feature: dict[str, Any]) -> tuple[int, int]:
    """(height, width) of a camera; datasets list their axes as height, width, channels or channels first."""
    shape, names = list(feature["shape"]), feature.get("names")
    if isinstance(names, list) and {"height", "width"} <= set(names):
        return shape[names.index("height")], shape[names.index("width")]
    return (shape[1], shape[2]) if shape[0] == 3 and shape[2] != 3 else (shape[0], shape[1])


def _names(feature: dict[str, Any], kind: str) -> tuple[str, ...]:
    names = feature.get("names")
    if isinstance(names, dict):  # lerobot also writes {"motors": [...]}
        names = next(iter(names.values()))
    if not names or len(names) != feature["shape"][0]:
        names = [f"{kind}_{i}" for i in range(feature["shape"][0])]
    return tuple(str(n) for n in names)
