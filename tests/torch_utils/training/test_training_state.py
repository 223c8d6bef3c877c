import numpy as np
import pytest
import torch

from torch_utils.training.training_state import LOSS_TERMS, EpochProgress, TrainingState


def losses(value: float, steps: int = 3) -> torch.Tensor:
    return torch.full((steps, 4), value)


def run(*maps: float) -> TrainingState:
    state = TrainingState()
    for ap in maps:
        state = state.after(losses(1.0), ap, ap * 2)
    return state


def test_train_loss_is_the_mean_of_the_epoch() -> None:
    """Fault of the predecessor: "train loss" in results.csv was the last iteration's."""
    state = TrainingState().after(torch.tensor([[1.0, 2, 3, 4], [3, 2, 1, 0]]), 0.5, 0.75)
    (row,) = state.history
    assert row == {
        "map": 0.5, "map_05": 0.75, "train_loss": 8.0,
        **dict(zip(LOSS_TERMS, (2.0, 2.0, 2.0, 2.0), strict=True)),
    }  # fmt: skip
    assert state.iteration_losses.tolist() == [10.0, 6.0]


def test_what_an_epoch_measured_beside_its_map_is_in_its_row() -> None:
    val_losses = dict(zip(LOSS_TERMS, (1.0, 2.0, 3.0, 4.0), strict=True))
    state = TrainingState().after(losses(1.0), 0.1, 0.2, val_losses=val_losses, train_maps=(0.3, 0.6))
    (row,) = state.history
    assert {key: row[key] for key in row if key.startswith("val_")} == {
        "val_loss": 10.0, "val_loss_classifier": 1.0, "val_loss_box_reg": 2.0, "val_loss_objectness": 3.0,
        "val_loss_rpn_box_reg": 4.0,
    }  # fmt: skip
    assert (row["train_map"], row["train_map_05"]) == (0.3, 0.6)
    assert TrainingState.from_checkpoint(state.as_checkpoint()).history == state.history


@pytest.mark.parametrize(
    ("maps", "best", "waited"),
    [
        ((0.1, 0.2, 0.3), 0.3, 0),
        ((0.1, 0.1, 0.1), 0.1, 2),
        ((0.0, 0.0, 0.0), 0.0, 2),
        ((0.3, 0.2, 0.1, 0.4), 0.4, 0),
        ((0.1, float("nan"), float("nan")), 0.1, 2),
        ((float("nan"), float("nan")), float("-inf"), 1),
        ((-1.0, -1.0, 0.0), 0.0, 0),
    ],
)
def test_improvement(maps: tuple, best: float, waited: int) -> None:
    """Fault of the predecessor: a constant or NaN mAP never triggered early stopping."""
    state = run(*maps)
    assert state.best_map == best
    assert state.epochs_without_improvement == waited


def test_the_first_epoch_is_the_best_so_far_even_at_zero() -> None:
    """Fault of the predecessor: best_model.pth was not written while mAP was 0."""
    assert not TrainingState().improved
    assert run(0.0).improved
    assert run(float("nan")).improved
    assert not run(0.0, 0.0).improved


def test_comes_back_from_a_checkpoint() -> None:
    state = run(0.1, 0.3, 0.2)
    again = TrainingState.from_checkpoint(state.as_checkpoint())
    assert (again.epoch, again.best_map, again.epochs_without_improvement) == (3, 0.3, 1)
    assert again.history == state.history
    assert torch.equal(again.iteration_losses, state.iteration_losses)


def test_a_predecessors_checkpoint_tells_what_it_knows() -> None:
    checkpoint = {
        "epoch": 3, "train_loss_list": [3.0, 2.0, 1.0], "train_loss_list_epoch": [3.0, 2.0, 1.0],
        "val_map": [0.1, float(np.float64(0.3)), 0.2], "val_map_05": [0.2, 0.6, 0.4],
    }  # fmt: skip
    state = TrainingState.from_checkpoint(checkpoint)
    assert (state.epoch, state.best_map) == (3, 0.3)
    assert state.history[1] == {"map": 0.3, "map_05": 0.6, "train_loss": 2.0}
    assert state.iteration_losses.tolist() == [3.0, 2.0, 1.0]
    assert state.after(losses(1.0), 0.4, 0.8).improved


def test_an_epoch_that_is_not_saved_is_no_improvement() -> None:
    """Fault: its mAP stayed the best, and a later epoch, better than any that was saved, was not kept as the best."""
    state = run(0.1).after(losses(1.0), 0.5, 0.5, kept=False)
    assert (state.best_map, state.improved) == (0.1, False)
    assert state.after(losses(1.0), 0.3, 0.3).improved


def test_a_part_of_an_epoch_is_kept_and_grows() -> None:
    part = EpochProgress().joined(4, losses(1.0, 2), torch.tensor([False, True])).joined(
        2, losses(3.0, 1), torch.tensor([False])
    )  # fmt: skip
    assert part.images == 6
    assert part.counted.tolist() == [[1] * 4, [3] * 4]
    checkpoint = TrainingState(progress=part).as_checkpoint()
    found = TrainingState.from_checkpoint(checkpoint).progress
    assert found.images == 6
    assert torch.equal(found.losses, part.losses)
    assert torch.equal(found.skipped, part.skipped)
    assert TrainingState(progress=part).after(losses(1.0), 0.1, 0.1).progress.images == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"images": 2.5}, {"images": -1}, {"images": True}, {"images": 10**30}, {"images": float("nan")},
        {"left_out": torch.zeros(1)}, {"left_out": [False]}, {"left_out": torch.zeros(1, 1, dtype=torch.bool)},
        {"losses": torch.zeros(1, 3)}, {"losses": torch.zeros(2, 4)}, {"losses": torch.zeros(1, 4).double()},
        {"losses": None}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_part_of_an_epoch_is_refused(damage: dict) -> None:
    """Fault: it failed with a traceback after the rest of the epoch, or counted for a whole one."""
    good = {"images": 2, "losses": losses(1.0, 1), "left_out": torch.tensor([False])}
    TrainingState.from_checkpoint({"epoch": 1, "epoch_under_way": good})
    with pytest.raises((ValueError, TypeError, LookupError)):  # restore() makes one line of each
        TrainingState.from_checkpoint({"epoch": 1, "epoch_under_way": {**good, **damage}})
