import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT

from trace_il.build import agent_spec, build_agent, fit_statistics
from trace_il.config import ACTConfig, TraceConfig, TrainConfig
from trace_il.data.cache import FrameCache
from trace_il.data.collect import CollectSpec, collect
from trace_il.data.datamodule import EpisodeDataModule
from trace_il.data.episodes import EpisodeDataset
from trace_il.data.lerobot import DatasetSpec, DatasetWriter, EncodedEpisode
from trace_il.data.reader import DatasetReader
from trace_il.data.statistics import aggregate, episode_statistics, image_statistics
from trace_il.data.video import decode_video, encode_video
from trace_il.env_config import CorridorConfig
from trace_il.errors import UserError
from trace_il.files import atomic_write, replacing
from trace_il.learn import BranchTemplates

SPEC = CollectSpec("Corridor-v0", {"delay": 15})


def make_episode(length: int, seed: int = 0) -> tuple[EncodedEpisode, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, length)[:, None, None, None] + rng.integers(0, 30, (1, 8, 8, 3)).repeat(4, 1).repeat(
        4, 2
    )
    frames = smooth.astype(np.uint8)
    episode = EncodedEpisode(
        rng.normal(size=(length, 2)).astype(np.float32),
        rng.normal(size=(length, 3)).astype(np.float32),
        {"cam": encode_video(frames, 10)},
        {"cam": image_statistics(frames)},
        {"cue": np.full(length, seed)},
        f"task {seed % 2}",
    )
    return episode, frames


def make_dataset(root: Path, lengths: tuple[int, ...] = (7, 12, 5)) -> list[tuple[EncodedEpisode, np.ndarray]]:
    writer = DatasetWriter(root, DatasetSpec(10, {"cam": (32, 32)}, ("a", "b"), ("u", "v", "w"), ("cue",)))
    episodes = [make_episode(length, seed) for seed, length in enumerate(lengths)]
    for episode, _ in episodes:
        writer.append(episode)
    return episodes


def test_round_trip(tmp_path):
    episodes = make_dataset(tmp_path / "d")
    reader = DatasetReader(tmp_path / "d")
    assert len(reader) == 3 and reader.cameras == {"cam": (32, 32)} and reader.action_names == ("u", "v", "w")
    for number, (episode, frames) in enumerate(episodes):
        np.testing.assert_array_equal(reader.states[number], episode.states)
        np.testing.assert_array_equal(reader.actions[number], episode.actions)
        np.testing.assert_array_equal(reader.labels["cue"][number], episode.annotations["cue"])
        decoded = reader.frames(number, "cam")
        assert decoded.shape == frames.shape
        assert np.abs(decoded.astype(int) - frames).mean() < 4  # the codec is lossy


def test_files_follow_lerobot_v3(tmp_path):
    root = tmp_path / "d"
    make_dataset(root)
    info = json.loads((root / "meta/info.json").read_text())
    assert list(info)[:7] == [
        "codebase_version",
        "fps",
        "features",
        "total_episodes",
        "total_frames",
        "total_tasks",
        "chunks_size",
    ]
    assert (info["codebase_version"], info["total_frames"], info["splits"]) == ("v3.0", 24, {"train": "0:3"})
    assert list(info["features"])[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    table = pq.read_table(root / "data/chunk-000/file-001.parquet")
    assert table["index"].to_pylist() == list(range(7, 19))
    assert table["timestamp"].to_pylist() == pytest.approx([i / 10 for i in range(12)])
    assert pa.types.is_fixed_size_list(table.schema.field("observation.state").type)
    tasks = pq.read_schema(root / "meta/tasks.parquet")
    assert json.loads(tasks.metadata[b"pandas"])["index_columns"] == ["task"]
    row = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
    assert (row["dataset_from_index"], row["dataset_to_index"], row["tasks"]) == (7, 19, ["task 1"])
    assert np.array(row["stats/observation.images.cam/mean"]).shape == (3, 1, 1)
    stats = json.loads((root / "meta/stats.json").read_text())
    states = np.concatenate([make_episode(n, s)[0].states for s, n in enumerate((7, 12, 5))])
    np.testing.assert_allclose(stats["observation.state"]["std"], states.std(0), rtol=1e-5)


def test_reads_several_episodes_a_file_as_lerobot_writes(tmp_path):
    """lerobot concatenates episodes in one parquet and one video file; a frame is found by from_timestamp."""
    root = tmp_path / "d"
    episodes = make_dataset(root)
    together = np.concatenate([frames for _, frames in episodes])
    tables = [pq.read_table(root / f"data/chunk-000/file-{i:03d}.parquet") for i in range(3)]
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "videos")
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
    video = root / "videos/observation.images.cam/chunk-000/file-000.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(encode_video(together, 10))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    rows, start = pq.read_table(path).to_pylist(), 0
    for row in rows:
        row["data/file_index"] = row["videos/observation.images.cam/file_index"] = 0
        row["videos/observation.images.cam/from_timestamp"] = start / 10
        start += row["length"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    reader = DatasetReader(root)
    for number, (episode, frames) in enumerate(episodes):
        np.testing.assert_array_equal(reader.states[number], episode.states)
        assert np.abs(reader.frames(number, "cam").astype(int) - frames).mean() < 4


def test_reads_the_name_of_an_only_camera(tmp_path):
    root = tmp_path / "d"
    frames = make_dataset(root)[1][1]
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace("observation.images.cam", "observation.image"))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    names = [name.replace("observation.images.cam", "observation.image") for name in table.column_names]
    pq.write_table(table.rename_columns(names), path)
    (root / "videos/observation.images.cam").rename(root / "videos/observation.image")
    reader = DatasetReader(root)
    assert reader.cameras == {"image": (32, 32)}
    assert np.abs(reader.frames(1, "image").astype(float) - frames).mean() < 5


@pytest.mark.parametrize(
    ("shape", "names", "size"),
    [
        ([24, 32, 3], ["height", "width", "channels"], (24, 32)),
        ([3, 24, 32], ["channels", "height", "width"], (24, 32)),
        ([3, 24, 32], None, (24, 32)),
        ([24, 32, 3], None, (24, 32)),
    ],
)
def test_reads_image_sizes_in_either_order_of_axes(tmp_path, shape, names, size):
    root = tmp_path / "d"
    make_dataset(root)
    info = json.loads((root / "meta/info.json").read_text())
    for key, feature in info["features"].items():
        if key.startswith("observation.images."):
            feature |= {"shape": shape, "names": names}
    (root / "meta/info.json").write_text(json.dumps(info))
    assert set(DatasetReader(root).cameras.values()) == {size}


def test_a_run_does_not_go_on_with_other_episodes(tmp_path):
    for name, lengths in (("one", (7, 12, 5)), ("same", (7, 12, 5)), ("other", (5, 12, 7))):
        make_dataset(tmp_path / name, lengths)
    one, same, other = (EpisodeDataModule(tmp_path / name, 3, 4) for name in ("one", "same", "other"))
    same.load_state_dict(one.state_dict())
    same.load_state_dict({"episodes": 3})  # of an older version
    with pytest.raises(UserError, match="has other episodes than this run was begun with"):
        other.load_state_dict(one.state_dict())


def test_statistics_aggregate_like_the_whole():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) for n in (5, 9, 2)]
    whole, merged = episode_statistics(np.concatenate(parts)), aggregate([episode_statistics(p) for p in parts])
    for name, value in whole.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-12)


def test_video_codec(tmp_path):
    _, frames = make_episode(20)
    path = tmp_path / "v.mp4"
    path.write_bytes(encode_video(frames, 10))
    whole = decode_video(path)
    for start in (0, 5, 10, 13):  # with a key frame each ten frames
        assert np.array_equal(decode_video(path, start, 3), whole[start : start + 3])
    with pytest.raises(ValueError, match="even height"):
        encode_video(frames[:, :31], 10)
    with pytest.raises(ValueError, match="expected 30"):
        decode_video(path, 0, 30)


def test_files_are_whole_and_nothing_is_left_of_killed_writers(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    code = "import os, sys, pathlib; from trace_il.files import replacing\n"
    code += "with replacing(pathlib.Path(sys.argv[1])) as t: t.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT).returncode == -9
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        atomic_write(tmp_path / "other", b"")  # leaves the files of living processes alone
        assert temporary.exists()
    assert path.read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 2


def test_cache_is_rebuilt_when_the_dataset_changes(tmp_path):
    root = tmp_path / "d"
    make_dataset(root)
    built: list[int] = []

    def progress(numbers: range) -> range:
        built.append(len(numbers))
        return numbers

    reader = DatasetReader(root)
    cache = FrameCache(reader, progress=progress)
    np.testing.assert_array_equal(cache.episode(1)[:, 0], reader.frames(1, "cam"))
    FrameCache(reader, progress=progress)
    FrameCache(reader, 2, progress)
    assert built == [3]  # the others were read from disk
    shutil.rmtree(root / "cache")
    np.testing.assert_array_equal(FrameCache(reader, 2, progress).episode(1), cache.episode(1))
    np.testing.assert_array_equal(FrameCache(reader, 3, progress).episode(2), cache.episode(2))
    assert built == [3, 2, 3]  # more than were there
    built[1:] = []
    writer = DatasetWriter(root, DatasetSpec(10, {"cam": (32, 32)}, ("a", "b"), ("u", "v", "w"), ("cue",)))
    writer.append(make_episode(6, 9)[0])
    cache = FrameCache(DatasetReader(root), progress=progress)
    assert built == [3, 4] and cache.episode(3).shape == (6, 1, 32, 32, 3)
    (root / "cache/frames.json").unlink()
    with ThreadPoolExecutor(2) as pool:  # runs that begin together build it once
        for other in pool.map(lambda _: FrameCache(DatasetReader(root), progress=progress), range(2)):
            np.testing.assert_array_equal(other.episode(3), cache.episode(3))
    assert built == [3, 4, 4]
    (root / "cache/frames.json").unlink()  # as after a kill between frames and record
    FrameCache(DatasetReader(root), progress=progress)
    assert built == [3, 4, 4, 4]
    (root / "cache/frames.u8").write_bytes(b"cut short")
    assert FrameCache(DatasetReader(root), progress=progress).episode(3).shape == (6, 1, 32, 32, 3)
    (root / "cache/frames.json").write_text("[")
    FrameCache(DatasetReader(root), progress=progress)
    assert built == [3, 4, 4, 4, 4, 4]


def test_batches_pad_and_mask(tmp_path):
    make_dataset(tmp_path / "d")
    reader = DatasetReader(tmp_path / "d")
    batch = EpisodeDataset(reader, FrameCache(reader), tick_every=3, chunk=4).batch([0, 1])
    assert batch.images.shape == (2, 4, 1, 32, 32, 3) and batch.states.shape == (2, 12, 2)
    assert batch.valid.tolist() == [[True, True, True, False], [True] * 4]
    np.testing.assert_array_equal(batch.actions[0, 2, 0], reader.actions[0][6])
    assert batch.is_pad[0, 2].tolist() == [False, True, True, True]
    assert (batch.states[0, 7:] == batch.states[0, 6]).all()  # standing still adds nothing to the signature
    assert (batch.images[0, 3] == batch.images[0, 2]).all()


def test_training_begins_episodes_at_every_control_step_of_a_tick(tmp_path):
    make_dataset(tmp_path / "d", (7, 12, 9, 8, 6, 6))
    data = EpisodeDataModule(tmp_path / "d", tick_every=3, chunk=4, batch_size=2, steps_per_epoch=30, together=2)
    reader, frames = data.dataset, data.episodes.cache.episode(1)
    batch = data.episodes.batch([0, 1], [0, 2])
    np.testing.assert_array_equal(batch.images[1, :3], frames[2::3][:3])
    np.testing.assert_array_equal(batch.states[1, :10], reader.states[1][2:])
    np.testing.assert_array_equal(batch.actions[1, 1], reader.actions[1][5:9])
    assert data.episodes.batch([4], [2]).valid.sum() == 2 and data.episodes.batch([4], [9]).valid.sum() == 1
    order = data.train_order(0)
    assert order == data.train_order(0) != data.train_order(1)
    assert {offset for step in order for _, offset in step} == {0, 1, 2}
    # Episodes that show one scene begin alike, so that nothing but the cue tells them apart.
    assert all(first[1] == second[1] for first, second in order if first[0] // 2 == second[0] // 2)
    # Of two processes each sees whole scenes, and together all that one process would.
    halves = [data.train_order(0, rank, 2) for rank in (0, 1)]
    shown = [number for half in halves for step in half for number, _ in step]
    assert all(first[0] // 2 == second[0] // 2 for half in halves for first, second in half)
    assert sorted(set(shown)) == data.train_numbers


def test_statistics_standardise_targets_over_train_episodes(tmp_path):
    """Also those relative to the state, at each step of the chunk; what lies behind the end does not count."""
    writer = DatasetWriter(tmp_path / "d", DatasetSpec(10, {"cam": (32, 32)}, ("a", "b"), ("b", "c", "a"), ("cue",)))
    for number in range(6):
        episode = make_episode(12 + number, number)[0]
        episode.actions[:, 0] += 5 * episode.states[:, 1]
        episode.actions[:, 1] = 400.1  # constant: not to be scaled up, however large
        writer.append(episode)
    config = TrainConfig(env=CorridorConfig(), memory=TraceConfig(), policy=ACTConfig(chunk=4, actions_per_query=2))
    config.agent.tick_every, config.agent.relative = 3, ["a", "b*"]
    data = EpisodeDataModule(tmp_path / "d", 3, 4)
    spec = agent_spec(config, data, (-1.0,) * 3, (1.0,) * 3)
    assert spec.relative == (True, False, True)
    agent = build_agent(config, spec)
    fit_statistics(agent, data)
    batch = data.episodes.batch(data.train_numbers)
    change = batch.actions - batch.states[:, ::3, None, [1, 0, 0]] * torch.tensor([1.0, 0.0, 1.0])
    targets = agent.targets(batch.actions, batch.states[:, ::3])
    assert not torch.allclose(targets, agent.standardize_action(batch.actions))
    torch.testing.assert_close(targets, agent.standardize_action(change))
    for step in range(4):
        real = targets[..., step, :][~batch.is_pad[..., step]]
        torch.testing.assert_close(real.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(real.std(0, correction=0), torch.tensor([1.0, 0, 1]), atol=1e-5, rtol=0)


def test_templates_tell_what_chunks_act_for_at_every_branch(tmp_path):
    spec = CollectSpec("Corridor-v0", {"delay": 15, "branches": 2})
    list(collect(tmp_path / "d", spec, 16))
    config = TrainConfig(env=CorridorConfig(), memory=TraceConfig(), policy=ACTConfig(chunk=20))
    config.agent.tick_every = 2
    data = EpisodeDataModule(tmp_path / "d", 2, 20, holdout=0.25, together=4)
    agent = build_agent(config, agent_spec(config, data, (-1.0,) * 2, (1.0,) * 2))
    fit_statistics(agent, data)
    templates = BranchTemplates(agent, data)
    assert templates.usable and len(templates.offsets) == 2
    batch = data.episodes.batch(data.held_out_numbers)
    chunks = agent.targets(batch.actions, batch.states[:, ::2])
    assert batch.cue.tolist() == [0, 1, 2, 3] and templates.correct(chunks, batch) == (4, 4)
    for other in ([2, 3, 0, 1], [1, 0, 3, 2]):  # the first lamp is mistaken, or the second
        assert templates.correct(chunks[other], batch) == (0, 4)


def test_scenes_are_held_out_whole(tmp_path):
    list(collect(tmp_path / "d", CollectSpec("Corridor-v0", {"delay": 15, "cue_values": 4}), 10, workers=1))
    data = EpisodeDataModule(tmp_path / "d", 2, 20, holdout=0.1, together=4)
    assert data.train_numbers == list(range(8)) and data.held_out_numbers == [8, 9]
    grown = EpisodeDataModule(tmp_path / "d", 2, 20, episodes=len(data.dataset) - 4, together=4)
    with pytest.raises(UserError, match="now has"):  # a run that goes on must find the episodes that it began with
        data.load_state_dict(grown.state_dict())
    data = EpisodeDataModule(tmp_path / "d", 2, 20, holdout=0.3, together=4)
    assert data.train_numbers == list(range(4)) and data.held_out_numbers == [4, 5, 6, 7, 8, 9]


def test_video_of_small_frames_has_the_same_bytes_every_time():
    env = gymnasium.make("Corridor-v0", delay=15)
    frames = [env.reset(seed=1)[0]["pixels"]["top"]]
    for _ in range(40):
        frames.append(env.step(np.array([0.5, 0.1], np.float32))[0]["pixels"]["top"])
    rng, around = np.random.default_rng(0), []
    videos = set()
    for _ in range(300):  # other memory around the encoder each time
        around = [*around[-50:], np.full(rng.integers(1, 20000), rng.integers(256), np.uint8)]
        videos.add(encode_video(np.stack(frames), 10))
    assert len(videos) == 1


def _edit_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_bad_datasets_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"meta/info\.json is missing"):
        DatasetReader(tmp_path / "nothing")
    root = tmp_path / "d"
    make_dataset(root)
    _edit_info(root, total_frames=99)
    with pytest.raises(UserError, match="half-written"):
        DatasetReader(root)
    _edit_info(root, total_frames=24, codebase_version="v2.1")
    with pytest.raises(UserError, match=r"v2\.1, expected v3.*convert_dataset_v21_to_v30"):
        DatasetReader(root)
    _edit_info(root, codebase_version="v3.0")
    file = root / "data/chunk-000/file-001.parquet"
    good = file.read_bytes()
    file.write_bytes(good[:200])
    with pytest.raises(UserError, match="cannot read"):
        DatasetReader(root)
    table = pq.read_table(pa.BufferReader(good))
    values = np.stack(table["action"].to_numpy())
    values[4, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", column), file)
    with pytest.raises(UserError, match=r"action\[1\] is not finite at step 4 of episode 1"):
        DatasetReader(root)
    file.write_bytes(good)
    DatasetReader(root)
    info = json.loads((root / "meta/info.json").read_text())
    for damaged, message in (
        ({k: v for k, v in info.items() if k != "video_path"}, "lacks 'video_path'"),
        ([], "is not a LeRobotDataset info file"),
    ):
        (root / "meta/info.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match=message):
            DatasetReader(root)
