"""Saving and resuming a run, below the scripts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.run_folders import CPU, make_run
from torch_utils.checkpoint import load_checkpoint
from torch_utils.distributed import Processes
from torch_utils.runs.resume import recipe_of_older_run, restore
from torch_utils.runs.run import LAST
from torch_utils.training.optimization import make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS, TrainingState
from utils.errors import UserError


def one_epoch() -> TrainingState:
    return TrainingState().after(torch.ones(3, len(LOSS_TERMS)), 0.0, 0.0)


def test_the_scale_of_half_precision_gradients_is_resumed(tmp_path: Path) -> None:
    """Fault of the predecessor: the gradient scaler was not stored."""
    half = Precision(CPU, torch.float16)
    half.scaler.scale(torch.ones(()))  # it makes its scale on first use
    half.scaler.update(new_scale=123.0)
    run = make_run(tmp_path, half)
    run.save()
    run.close()
    fresh = Precision(CPU, torch.float16)
    model = nn.Linear(2, 2)
    restore(load_checkpoint(tmp_path / LAST), model, make_optimizer(model, "SGD", 0.1), fresh, Processes(CPU))
    assert fresh.scaler.get_scale() == 123.0


def test_a_first_map_of_zero_makes_a_best_model(tmp_path: Path) -> None:
    """Fault of the predecessor: best_model.pth was not written while the mAP was 0."""
    run = make_run(tmp_path)
    run.record(one_epoch(), lambda: None)
    run.close()
    assert load_checkpoint(tmp_path / "best_model.pth")["epoch"] == 1


def test_results_are_logged_before_the_checkpoint_says_that_the_epoch_is_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / LAST).mkdir()  # the checkpoint cannot be written, as if the run was killed there
    run.record(one_epoch(), lambda: None)
    with pytest.raises(OSError, match=LAST):
        run.close()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


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
    run.save()
    run.close()
    checkpoint, model = load_checkpoint(tmp_path / LAST), nn.Linear(2, 2)
    with pytest.raises(UserError, match="--optimizer AdamW: the run to resume has the state of SGD: drop --optimizer"):
        restore(checkpoint, model, make_optimizer(model, "AdamW", 0.1), Precision(CPU), Processes(CPU))
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    other = make_optimizer(model, "SGD", 0.1)
    with pytest.raises(UserError, match="the run's state is damaged, or does not fit its model"):
        restore(checkpoint, model, other, Precision(CPU), Processes(CPU))


@pytest.mark.parametrize("damage", [{"rng": 5}, {"rng": [1]}, {"history": 5}, {"optimizer_state_dict": {}}], ids=str)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: dict) -> None:
    run = make_run(tmp_path)
    run.save()
    run.close()
    checkpoint, model = load_checkpoint(tmp_path / LAST) | damage, nn.Linear(2, 2)
    with pytest.raises(UserError, match="the run's state is damaged, or does not fit its model"):
        restore(checkpoint, model, make_optimizer(model, "SGD", 0.1), Precision(CPU), Processes(CPU))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_run_of_the_predecessor_or_of_before_decay_all_goes_on_with_its_recipe(tmp_path: Path, name: str) -> None:
    """Their optimizer states are one group in the model's order, with its weight decay."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3).eval())
    parts = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {}
    old = getattr(torch.optim, name)(model.parameters(), lr=0.1, weight_decay=0.003, **parts)
    stepped(model, old)
    checkpoint = {"optimizer_state_dict": old.state_dict(), "epoch": 1, "model_state_dict": model.state_dict()}
    recipe = recipe_of_older_run(checkpoint)
    assert recipe == {"decay_all": True, "weight_decay": 0.003, "lr": 0.1}
    assert recipe_of_older_run(checkpoint | {"options": {"lr": 0.2}}) == {"decay_all": True, "weight_decay": 0.003}
    assert recipe_of_older_run(checkpoint | {"options": {"decay_all": False}}) == {}

    new = make_optimizer(model, name, recipe.pop("lr"), **recipe)
    restore(checkpoint, model, new, Precision(CPU), Processes(CPU))
    assert [group["weight_decay"] for group in new.param_groups] == [0.003]
    for parameter in model.parameters():
        for key, value in old.state[parameter].items():
            assert torch.equal(new.state[parameter][key], value), key
    with pytest.raises(UserError, match=r"in 1 group\(s\), and --decay-all, --weight-decay and --layer-decay make 2"):
        restore(checkpoint, model, make_optimizer(model, name, 0.1), Precision(CPU), Processes(CPU))


def test_a_typed_weight_decay_holds_in_a_resumed_run(tmp_path: Path) -> None:
    """Loading the optimizer's state would put the old one back, as --lr was ignored in the predecessor."""
    run = make_run(tmp_path, weight_decay=0.01)
    run.save()
    run.close()
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, "SGD", 0.1, weight_decay=0.5)
    restore(load_checkpoint(tmp_path / LAST), model, optimizer, Precision(CPU), Processes(CPU))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_run_changes_between_gpu_and_cpu(name: str) -> None:
    """On a GPU the optimizer is the fused kind, whose state must not make the other one fused, nor the reverse."""
    model = nn.Linear(2, 2)
    optimizers = make_optimizer(model, name, 0.1), make_optimizer(model, name, 0.1)
    for group in optimizers[0].param_groups:
        group["fused"] = True
    stepped(model, optimizers[0])
    for source, target, fused in ((0, 1, None), (1, 0, True)):
        checkpoint = {"optimizer_state_dict": optimizers[source].state_dict(), "epoch": 0}
        restore(checkpoint, model, optimizers[target], Precision(CPU), Processes(CPU))
        assert {group["fused"] for group in optimizers[target].param_groups} == {fused}
        stepped(model, optimizers[target])


def test_the_way_on_is_from_what_is_there(tmp_path: Path) -> None:
    """Fault: a message named last_model.pth where there was none."""
    run = make_run(tmp_path)
    with pytest.raises(UserError, match=r"^no data\. Nothing of the run is saved yet$"), run.with_resume_hint():
        raise UserError("no data")
    run = make_run(tmp_path)
    run.save()
    with pytest.raises(UserError, match=r"^no data\. The run is in \S+last_model\.pth: go on with python train"):  # noqa: SIM117
        with run.with_resume_hint():
            raise UserError("no data")
    assert load_checkpoint(tmp_path / LAST, whole_run=True)["epoch"] == 0


def test_what_cannot_be_written_is_told_beside_the_cause(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / LAST).mkdir()
    run.save()
    with pytest.raises(UserError, match=r"no data\. \S+last_model\.pth: cannot be written \(Is a directory\)"):  # noqa: SIM117
        with run.with_resume_hint():
            raise UserError("no data")
    with pytest.raises(BlockingIOError), run.with_resume_hint():  # of no file
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_an_epoch_whose_log_cannot_be_written_is_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(OSError, match=r"results\.csv"):
        run.record(one_epoch(), lambda: None)
    run.close()
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 1
