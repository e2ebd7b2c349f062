"""What the Lightning trainer of a run adds to Lightning's own."""

import lightning.pytorch as pl
import pytest
import torch

from trace_il.learn import shifted
from trace_il.trainer import StopAtBranchAccuracy, trim_metrics


@pytest.mark.parametrize("text", ["", "epoch,st", "epoch,step,a\n0,2,1.5\n1,5,"])
def test_metrics_that_were_not_written_to_their_end_are_left_out(tmp_path, monkeypatch, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text.removesuffix(","))
    monkeypatch.setattr("trace_il.trainer.read_checkpoint", lambda _: {"global_step": 6})
    trim_metrics(path, tmp_path)
    assert (path.read_text() if path.exists() else "") == ("epoch,step,a\n0,2,1.5\n" if "a" in text else "")


def test_pictures_are_moved_alike_in_a_batch():
    images = torch.randint(0, 256, (2, 5, 3, 16, 20, 3), dtype=torch.uint8)
    assert torch.equal(shifted(images, 0), images)
    padded = torch.nn.functional.pad(images.double().movedim(-1, -3).flatten(0, 2), (3, 3, 3, 3), mode="replicate")
    padded = padded.unflatten(0, (2, 5, 3)).movedim(-3, -1)
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        moved = shifted(images, 3)
        torch.manual_seed(seed)
        assert torch.equal(shifted(images, 3), moved)
        for camera in range(3):  # one place of the padded picture for all episodes and ticks
            places = [
                (y, x)
                for y in range(7)
                for x in range(7)
                if torch.equal(padded[:, :, camera, y : y + 16, x : x + 20], moved[:, :, camera].double())
            ]
            assert len(places) == 1
            seen.add((camera, *places[0]))
    assert len(seen) > 15


class Learner(pl.LightningModule):
    """Says after each epoch that its held-out branch accuracy is the next one of a list."""

    accuracies = (0.3, 0.5, 0.9, 0.4, 0.4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.log("val/branch_accuracy", self.accuracies[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_training_stops_once_held_out_branches_are_decided_and_stays_stopped(tmp_path):
    def fit(threshold: float, from_last: bool) -> int:
        stop, keep = StopAtBranchAccuracy(threshold, 5), pl.callbacks.ModelCheckpoint(tmp_path, "last", monitor=None)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=5, callbacks=[stop, keep], logger=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        data = torch.utils.data.DataLoader(torch.ones(2, 1))
        trainer.fit(Learner(), data, data, ckpt_path=tmp_path / "last.ckpt" if from_last else None)
        return trainer.current_epoch

    assert fit(0.95, from_last=False) == 5
    (tmp_path / "last.ckpt").unlink()
    assert fit(0.9, from_last=False) == 3
    assert fit(0.9, from_last=True) == 3
