"""Views as a lesson for the encoder of a policy."""

import numpy as np
import pytest
import torch

from envs.view_planning.lattice import MOVES, path_nodes, random_walk
from envs.view_planning.tasks import Place
from trace_il.encoders import Encoder
from trace_il.views.batch import pose_features
from trace_il.views.distill import Record
from trace_il.views.pretext import PairData, Pretext


@pytest.fixture(scope="module")
def data() -> PairData:
    """Random walks in three rooms, of which the last validates."""
    places, rng = [Place("train", index, 32) for index in range(3)], np.random.default_rng(0)
    records: list[list[Record]] = [[] for _ in places]
    for place, own in zip(places, records, strict=True):
        for start in rng.choice(np.flatnonzero(place.from_starts[int(place.room.starts[0])] >= 0), 150):
            moves = tuple(map(int, random_walk(place.table, int(start), 4, rng)))
            if moves:
                end = int(path_nodes(place.table, int(start), moves)[-1])
                own.append(Record("navigate", place.index, int(start), end, moves))
    return PairData(places, [*records[0], *records[1]], (places, records[2]), 64, 60, 0)


def test_pairs_are_what_the_rooms_say(data):
    batch = data.batch(data.train, np.random.default_rng(0))
    assert batch.pair.shape == (64, 2) and batch.images.dtype == torch.uint8
    assert (batch.move[:32] >= 0).all() and (batch.move[32:] == -1).any() and batch.move.max() < MOVES
    place = data.train.places[0]
    start = int(place.room.starts[0])
    move = int(np.flatnonzero(place.table[start] != start)[0])
    after = int(place.table[start, move])
    alone = PairData(
        [place], [Record("navigate", 0, start, after, (move,))] * 8, ([place], data.validation.paths), 8, 1, 0
    )
    pairs = alone.batch(alone.train, np.random.default_rng(0))
    assert (pairs.move == move).all() and len(pairs.images) == 2
    assert np.array_equal(pairs.images.numpy(), place.views(np.array([start, after])))
    assert np.allclose(pairs.where, pose_features(place.metric[after], place.metric[start]))


def test_a_mirror_and_other_colours_keep_what_is_asked(data):
    batch = data.batch(data.train, np.random.default_rng(0))
    for seed in range(4):
        varied = data.varied(batch, np.random.default_rng(seed))
        assert torch.equal(varied.where.abs(), batch.where.abs()) and torch.equal(varied.pair, batch.pair)
        assert torch.equal(varied.move < 0, batch.move < 0)
        same = varied.images.sort(-1).values
        assert torch.equal(same, batch.images.sort(-1).values) or torch.equal(
            same.flip(2), batch.images.sort(-1).values
        )


def test_an_encoder_learns_from_views_how_the_camera_moved(data):
    torch.manual_seed(0)
    encoder = Encoder(3, (32, 32), 17)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    module = Pretext(encoder, 2e-3, 120)
    training = module.configure_optimizers()
    optimizer, schedule = training["optimizer"], training["lr_scheduler"]["scheduler"]
    for step in range(120):
        rng = np.random.default_rng(step)
        loss, _ = module.loss(data.varied(data.batch(data.train, rng), rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        figures = module.loss(data.batch(data.validation, np.random.default_rng(0)))[1]
    assert figures["inverse_accuracy"] > 0.3  # in a room that it has not seen; chance is 0.1
    changed = {
        name.split(".")[0] for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"trunk"}
