"""LeRobotDataset v3.0 on disk: the format and its writer, without importing lerobot.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet
    videos/{camera key}/chunk-000/file-000.mp4

The writer puts each episode into files of its own and commits it by replacing the metadata, `info.json`
last: what `info.json` does not count is not part of the dataset, so a killed writer leaves whole
episodes only, and the next one continues behind them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..files import atomic_write
from .statistics import Stats, aggregate, episode_statistics, to_lists
from .video import CODEC, PIXEL_FORMAT

CHUNK_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
IMAGE_PREFIX = "observation.images."
ASTRAY = "astray"  # the annotation of steps whose actions are not to be imitated: 1
ONE_IMAGE = "observation.image"  # where there is only one camera, called "image"
DEFAULT_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset holds."""

    fps: float
    cameras: dict[str, tuple[int, int]]  # name -> (height, width)
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    annotations: tuple[str, ...] = ()  # int64 columns "annotation.<name>", never an input of a policy
    robot_type: str = "unknown"


@dataclass
class EncodedEpisode:
    """One episode ready to be written: arrays, MP4 bytes and statistics of images."""

    states: np.ndarray  # (T, D) float32
    actions: np.ndarray  # (T, A) float32
    videos: dict[str, bytes]
    image_stats: dict[str, Stats]
    annotations: dict[str, np.ndarray] = field(default_factory=dict)  # (T,) int64
    task: str = ""


def _parquet_bytes(table: pa.Table, row_group_size: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", row_group_size=row_group_size)
    return sink.getvalue().to_pybytes()


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Task strings as the pandas index, which lerobot expects."""
    column = {
        "field_name": "task_index",
        "name": "task_index",
        "numpy_type": "int64",
        "pandas_type": "int64",
        "metadata": None,
    }
    index = {"field_name": "task", "name": "task", "numpy_type": "object", "pandas_type": "unicode", "metadata": None}
    labels = {
        "field_name": None,
        "name": None,
        "numpy_type": "object",
        "pandas_type": "unicode",
        "metadata": {"encoding": "UTF-8"},
    }
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [labels],
        "columns": [column, index],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()})


class DatasetWriter:
    """Append episodes to a new or existing dataset.

    Raises:
        UserError: `root` holds a dataset with other features, or the frame rate is not a whole number.
    """

    def __init__(self, root: Path, spec: DatasetSpec) -> None:
        self.root, self.spec = Path(root), spec
        if spec.fps != round(spec.fps):
            raise UserError(f"LeRobotDataset needs a whole number of frames a second, got {spec.fps}")
        self.rows: list[dict[str, Any]] = []
        self.stats: list[dict[str, Stats]] = []
        self.tasks: list[str] = []
        self.frames = 0
        if (self.root / "meta/info.json").exists():
            self._continue()

    @property
    def episodes(self) -> int:
        return len(self.rows)

    def append(self, episode: EncodedEpisode) -> None:
        """Write one episode and commit it."""
        number, length = self.episodes, len(episode.states)
        place = {"chunk_index": number // CHUNK_SIZE, "file_index": number % CHUNK_SIZE}
        if episode.task not in self.tasks:
            self.tasks.append(episode.task)
        columns = self._columns(episode, number, self.tasks.index(episode.task))
        atomic_write(self.root / DATA_PATH.format(**place), _parquet_bytes(pa.table(columns), length))
        stats = {
            key: episode_statistics(np.stack(column.to_numpy(zero_copy_only=False))) for key, column in columns.items()
        }
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.task],
            "length": length,
            "data/chunk_index": place["chunk_index"],
            "data/file_index": place["file_index"],
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
        }
        for camera, content in episode.videos.items():
            key = IMAGE_PREFIX + camera
            atomic_write(self.root / VIDEO_PATH.format(video_key=key, **place), content)
            row[f"videos/{key}/chunk_index"] = place["chunk_index"]
            row[f"videos/{key}/file_index"] = place["file_index"]
            row[f"videos/{key}/from_timestamp"] = 0.0
            row[f"videos/{key}/to_timestamp"] = length / self.spec.fps
            stats[key] = episode.image_stats[camera]
        for key, values in to_lists(stats).items():
            row.update({f"stats/{key}/{name}": value for name, value in values.items()})
        row.update({"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.rows.append(row)
        self.stats.append(stats)
        self.frames += length
        self._commit()

    def _columns(self, episode: EncodedEpisode, number: int, task: int) -> dict[str, pa.Array]:
        length = len(episode.states)

        def vectors(values: np.ndarray, width: int) -> pa.Array:
            if values.shape != (length, width) or not np.isfinite(values).all():
                raise UserError(
                    f"episode {number}: expected {length} finite rows of {width} values, got shape {values.shape}"
                )
            flat = pa.array(values.astype(np.float32).ravel())
            return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)

        columns = {
            "observation.state": vectors(episode.states, len(self.spec.state_names)),
            "action": vectors(episode.actions, len(self.spec.action_names)),
        }
        for name in self.spec.annotations:
            columns[f"annotation.{name}"] = pa.array(episode.annotations[name].astype(np.int64))
        step = np.arange(length, dtype=np.int64)
        columns["timestamp"] = pa.array((step / self.spec.fps).astype(np.float32))
        columns["frame_index"] = pa.array(step)
        columns["episode_index"] = pa.array(np.full(length, number, dtype=np.int64))
        columns["index"] = pa.array(step + self.frames)
        columns["task_index"] = pa.array(np.full(length, task, dtype=np.int64))
        return columns

    def _commit(self) -> None:
        atomic_write(self.root / "meta/tasks.parquet", _parquet_bytes(_tasks_table(self.tasks)))
        atomic_write(self.root / EPISODES_PATH, _parquet_bytes(pa.Table.from_pylist(self.rows)))
        total = {key: aggregate([s[key] for s in self.stats]) for key in self.stats[0]}
        atomic_write(self.root / "meta/stats.json", json.dumps(to_lists(total), indent=4).encode())
        info = json.dumps(self._info(), indent=4, ensure_ascii=False)
        atomic_write(self.root / "meta/info.json", info.encode())

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "fps": round(self.spec.fps),
            "features": spec_features(self.spec),
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.spec.cameras else None,
            "robot_type": self.spec.robot_type,
            "splits": {"train": f"0:{self.episodes}"},
        }

    def _continue(self) -> None:
        info = read_info(self.root)
        if info["features"] != json.loads(json.dumps(spec_features(self.spec))):
            raise UserError(f"{self.root} holds a dataset with other features; choose another folder or delete it")
        table = pq.read_table(self.root / EPISODES_PATH)
        self.rows = table.slice(0, info["total_episodes"]).to_pylist()
        self.frames = info["total_frames"]
        tasks = pq.read_table(self.root / "meta/tasks.parquet").to_pydict()
        self.tasks = [task for _, task in sorted(zip(tasks["task_index"], tasks["task"], strict=True))]
        for row in self.rows:
            stats: dict[str, Stats] = {}
            for name, value in row.items():
                if name.startswith("stats/"):
                    key, statistic = name.removeprefix("stats/").rsplit("/", 1)
                    stats.setdefault(key, {})[statistic] = np.array(value)
            self.stats.append(stats)


def spec_features(spec: DatasetSpec) -> dict[str, Any]:
    """The `features` entry of info.json."""
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [len(spec.state_names)], "names": list(spec.state_names)},
        "action": {"dtype": "float32", "shape": [len(spec.action_names)], "names": list(spec.action_names)},
    }
    for camera, (height, width) in spec.cameras.items():
        info = {"video.height": height, "video.width": width, "video.codec": CODEC, "video.pix_fmt": PIXEL_FORMAT}
        info |= {"video.fps": round(spec.fps), "video.channels": 3, "has_audio": False, "video.is_depth_map": False}
        shape, names = [height, width, 3], ["height", "width", "channels"]
        features[IMAGE_PREFIX + camera] = {"dtype": "video", "shape": shape, "names": names, "info": info}
    for name in spec.annotations:
        features[f"annotation.{name}"] = {"dtype": "int64", "shape": [1], "names": None}
    for name, dtype in DEFAULT_FEATURES.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def read_info(root: Path) -> dict[str, Any]:
    """info.json of a v3 dataset.

    Raises:
        UserError: no dataset there, or one of another version, with the way to convert it.
    """
    path = Path(root) / "meta/info.json"
    if not path.exists():
        raise UserError(
            f"no dataset at {root}: meta/info.json is missing; collect one with collect.py or correct the path"
        )
    try:
        info = json.loads(path.read_text())
        version = str(info["codebase_version"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a LeRobotDataset info file ({error!r}); re-create the dataset") from error
    if not version.startswith("v3"):
        module = "lerobot.datasets.v30.convert_dataset_v21_to_v30"
        raise UserError(f"{root} is a LeRobotDataset {version}, expected v3.x; convert it with `python -m {module}`")
    return info
