"""What a run saves and how it goes on, below the scripts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import Processes
from torch_utils.optimization import make_optimizer
from torch_utils.precision import Precision
from torch_utils.run import LAST, Run, restore
from torch_utils.training_state import LOSS_TERMS, TrainingState
from utils.errors import UserError

CPU = torch.device("cpu")
ABOUT = {"model_name": "m", "data": {"CLASSES": ["__background__", "x"]}, "options": {}}


def make_run(folder: Path, precision: Precision | None = None) -> Run:
    model = nn.Linear(2, 2)
    return Run(
        folder, Processes(CPU), model, make_optimizer(model, "SGD", 0.1), precision or Precision(CPU), about=ABOUT,
        first_epoch=0, wandb=False,
    )  # fmt: skip


def one_epoch() -> TrainingState:
    return TrainingState().after(torch.ones(3, len(LOSS_TERMS)), 0.0, 0.0)


def test_the_scale_of_half_precision_gradients_is_resumed(tmp_path: Path) -> None:
    """Fault of the predecessor: the gradient scaler was not stored."""
    half = Precision(CPU, torch.float16)
    half.scaler.scale(torch.ones(()))  # it makes its scale on first use
    half.scaler.update(new_scale=123.0)
    run = make_run(tmp_path, half)
    run.save(TrainingState())
    fresh = Precision(CPU, torch.float16)
    restore(load_checkpoint(tmp_path / LAST), make_optimizer(run.model, "SGD", 0.1), fresh, Processes(CPU))
    assert fresh.scaler.get_scale() == 123.0
    run.close()


def test_a_first_map_of_zero_makes_a_best_model(tmp_path: Path) -> None:
    """Fault of the predecessor: best_model.pth was not written while the mAP was 0."""
    run = make_run(tmp_path)
    run.record(one_epoch(), lambda: None)
    run.close()
    assert load_checkpoint(tmp_path / "best_model.pth")["epoch"] == 1


def test_results_are_logged_before_the_checkpoint_says_that_the_epoch_is_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / LAST).mkdir()  # the checkpoint cannot be written, as if the run was killed there
    with pytest.raises(OSError, match=LAST):
        run.record(one_epoch(), lambda: None)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2
    run.close()


def test_what_killed_runs_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{LAST}.123.tmp").write_bytes(b"half")
    make_run(tmp_path).close()
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise UserError("a.jpg: no such file")

    run = make_run(tmp_path)
    run.record(one_epoch(), fail)
    run.close()
    assert "could not be drawn: a.jpg: no such file" in caplog.text


def test_another_optimizer_than_the_saved_one_is_refused(tmp_path: Path) -> None:
    """Fault of the predecessor: --optimizer on resuming ended in a traceback."""
    run = make_run(tmp_path)
    run.save(TrainingState())
    run.close()
    checkpoint = load_checkpoint(tmp_path / LAST)
    with pytest.raises(UserError, match="--optimizer AdamW: the run to resume has the state of SGD: drop --optimizer"):
        restore(checkpoint, make_optimizer(run.model, "AdamW", 0.1), Precision(CPU), Processes(CPU))
    other = make_optimizer(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "SGD", 0.1)
    with pytest.raises(UserError, match="the run's state is damaged, or does not fit its model"):
        restore(checkpoint, other, Precision(CPU), Processes(CPU))


@pytest.mark.parametrize("damage", [{"rng": 5}, {"rng": [1]}, {"history": 5}, {"optimizer_state_dict": {}}], ids=str)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: dict) -> None:
    run = make_run(tmp_path)
    run.save(TrainingState())
    run.close()
    checkpoint = load_checkpoint(tmp_path / LAST) | damage
    with pytest.raises(UserError, match="the run's state is damaged, or does not fit its model"):
        restore(checkpoint, make_optimizer(run.model, "SGD", 0.1), Precision(CPU), Processes(CPU))
