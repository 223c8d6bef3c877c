"""From losses to weights: accumulation, clipping, steps that are left out, and the same in several processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support.processes import run_two
from tests.support.toy_training import CPU, Toy, make_updater, toy_batch, train
from torch_utils.distributed import Processes
from torch_utils.training.ema import MovingAverage
from torch_utils.training.optimization import Schedule
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS
from torch_utils.training.update import Updater
from utils.errors import UserError
from utils.loading.batch import Batch


class Steep(Toy):
    """A finite loss without a finite gradient."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().forward(batch)
        root = (self.layers[0].bias.sum() * 0).sqrt()  # 0, of infinite slope
        return {**terms, LOSS_TERMS[0]: terms[LOSS_TERMS[0]] + root}


def same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **({"rtol": 0, "atol": 0} | tolerance), msg=name)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulated_batches_train_as_one_large_batch(name: str, clip: float | None) -> None:
    """The last update of an epoch has fewer batches, and still is a mean over them."""
    one, parts = Toy(), Toy()
    numbers = list(range(14))
    large = train(make_updater(one, name, clip=clip), [toy_batch(*numbers[i : i + 4]) for i in range(0, 14, 4)])
    small = [toy_batch(*numbers[i : i + 2]) for i in range(0, 14, 2)]
    losses = train(make_updater(parts, name, clip=clip, accumulate=2), small)
    same(one, parts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses[:6].unflatten(0, (3, 2)).mean(1), large[:3], rtol=1e-5, atol=1e-6)
    assert not torch.equal(one.layers[0].weight, Toy().layers[0].weight)


@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_clipping_shortens_the_gradient_and_not_its_scaled_form(scale: float) -> None:
    model = Toy()
    updater = make_updater(model, clip=0.01)
    if scale > 1:
        updater.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    batch = toy_batch(1, 2)
    updater.start(0)
    with updater.batch_of(model, last=True):
        loss = sum(model(batch).values())
        updater.precision.scaler.scale(loss).backward()
    updater.finish(0, loss.detach())
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [0, 2])
def test_a_step_without_a_finite_loss_changes_nothing(name: str, fused: bool, bad: int, caplog) -> None:
    """Weights, momenta, average and batch norm statistics; the fused kind is what a GPU has."""
    caplog.set_level("WARNING")
    batches = [toy_batch(i, i + 10) for i in range(4)]
    batches[bad] = toy_batch(7, 1000 + bad)
    model = Toy(norm=True)
    updater = make_updater(model, name, fused, average=MovingAverage(model, 0.9))
    states = []
    real = updater.finish

    def finish(update: int, losses: Tensor) -> Tensor:
        def state() -> list[Tensor]:
            kept = updater.optimizer.state_dict()["state"].values()
            values = [t for s in kept for t in s.values() if t is not None]
            statistics = [t for k, t in model.state_dict().items() if "num_batches" not in k]
            averages = [t for k, t in updater.average.model.state_dict().items() if "num_batches" not in k]
            return [t.clone() for t in [*statistics, *averages, *values]]

        found = real(update, losses)
        states.append(state())
        return found

    updater.finish = finish
    first = [t.clone() for k, t in model.state_dict().items() if "num_batches" not in k]
    losses = train(updater, batches, epochs=1)
    assert losses.shape == (3, 4)
    assert losses.isfinite().all()
    before, after = (states[bad - 1], states[bad]) if bad else (first, states[0][: len(first)])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(states[3][0], states[bad][0])
    assert all(t.isfinite().all() for t in states[3])
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the loss is not finite in epoch 0, step {bad}: loss_classifier nan, ")
    assert record.getMessage().endswith(f"images: 7.jpg, {1000 + bad}.jpg; the step is left out")


def test_a_fused_run_with_a_bad_first_step_is_as_one_without_it() -> None:
    """torch's fused SGD leaves the momentum unset when its very first step is left out."""
    models = Toy(), Toy()
    for model, first in zip(models, ([toy_batch(1000)], []), strict=True):
        updater = make_updater(model, fused=True)
        updater.schedule = Schedule(0.05, 1, 1)
        train(updater, [*first, toy_batch(1), toy_batch(2)], epochs=1)
    same(*models, rtol=1e-6, atol=1e-7)


def test_fused_steps_take_gradients_and_states_of_other_strides() -> None:
    """Weights of 1 x 1 convolutions and their gradients differ in strides where the input is channels-last."""
    model = nn.Conv2d(3, 4, 3)
    updater = make_updater(model, fused=True)
    old = updater.optimizer.state_dict()
    model.to(memory_format=torch.channels_last)
    updater.optimizer.load_state_dict(old)
    updater = Updater(model, updater.optimizer, updater.schedule, Precision(CPU), Processes(CPU))
    updater.start(0)
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    model.weight.grad = model.weight.grad.contiguous()
    expected = model.weight.detach().clone() - updater.optimizer.param_groups[0]["lr"] * 1.9 * model.weight.grad
    updater.finish(0, torch.zeros(1))
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-4, atol=1e-6)
    assert updater.optimizer.state[model.weight]["momentum_buffer"].stride() == model.weight.stride()


def test_a_bad_batch_spoils_the_update_that_it_is_part_of() -> None:
    model = Toy()
    batches = [toy_batch(1), toy_batch(1000), toy_batch(2), toy_batch(3)]
    losses = train(make_updater(model, accumulate=2), batches, epochs=1)
    assert losses.isfinite().all()
    assert len(losses) == 2
    other = Toy()
    updater = make_updater(other, accumulate=2)
    updater.schedule = Schedule(updater.schedule.at(1), 1, 1)  # whose one step is the second of the other run
    train(updater, batches[2:], epochs=1)
    same(model, other)


def test_float16_gradients_beyond_their_scale_are_no_fault(caplog) -> None:
    caplog.set_level("WARNING")
    model = Toy()
    updater = make_updater(model)
    updater.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    losses = train(updater, [toy_batch(i) for i in range(4)], epochs=1, limit=0)
    assert len(losses) == 4
    assert not caplog.records
    assert updater.precision.scaler.get_scale() < 2.0**127


def test_float16_gradients_that_no_scale_makes_finite_are_a_fault(caplog) -> None:
    caplog.set_level("WARNING")
    updater = make_updater(Steep())
    updater.precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = train(updater, [toy_batch(i) for i in range(6)], epochs=1)
    assert len(losses) == 2
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"the gradient of the loss is not finite in epoch 0, step {step}" for step in (2, 3, 4, 5)
    ]


def test_too_many_in_a_row_end_the_run_and_say_how_to_go_on() -> None:
    bad, good = toy_batch(1000), toy_batch(1)
    train(make_updater(Toy()), [bad, bad, good, bad], epochs=2, limit=3)
    with pytest.raises(UserError, match=r"1000\.jpg, as in 3 steps before it") as raised:
        train(make_updater(Toy()), [bad, bad, good, bad, bad], epochs=2, limit=3)
    assert str(raised.value).startswith("the loss is not finite in epoch 1, step 1: loss_classifier nan")
    assert str(raised.value).endswith("(--max-bad-steps 3). Go on.")
    with pytest.raises(UserError, match=r"images: 1000.jpg \(--max-bad-steps 0\)"):
        train(make_updater(Toy()), [bad], limit=0)


def test_a_gradient_that_is_not_finite_is_told_apart(caplog) -> None:
    model = Steep()
    assert train(make_updater(model), [toy_batch(1)], epochs=1).shape == (0, 4)
    assert "the gradient of the loss is not finite in epoch 0, step 0" in caplog.text
    same(model, Steep())


TWO = """
import logging
from tests.support.toy_training import CPU, INDEX, ReadyBatches, Toy, toy_batch
from torch_utils.engine import train_one_epoch
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.optimization import Schedule, make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.update import Updater
from torch.nn.parallel import DistributedDataParallel

logging.basicConfig(level=logging.WARNING, format="%(message)s")


def run_toy(batches, **options):
    model = Toy()
    optimizer = make_optimizer(model, "SGD", 0.05)
    updater = Updater(model, optimizer, Schedule(0.05, 4, 3), Precision(CPU), processes, **options)
    guard = NonFiniteGuard(INDEX, processes, 1, "Go on.")
    network, batches = DistributedDataParallel(model), ReadyBatches(batches)
    return model, torch.cat([train_one_epoch(network, updater, batches, e, guard=guard).counted for e in range(3)])

"""


@pytest.mark.full
def test_two_processes_train_as_one_with_all_their_images(tmp_path: Path) -> None:
    """Two of batch 2, and two of batch 1 that accumulate 2, against one of batch 4."""
    model = Toy()
    updater = make_updater(model)
    expected = train(updater, [toy_batch(*range(i, i + 4)) for i in range(0, 16, 4)])
    torch.save({"model": model.state_dict(), "losses": expected}, tmp_path / "one.pth")
    done = run_two(
        tmp_path,
        TWO + f"one = torch.load({str(tmp_path / 'one.pth')!r})\n"
        "shares = [range(i + processes.rank, i + 4, 2) for i in range(0, 16, 4)]\n"
        "for size, accumulate in ((2, 1), (1, 2)):\n"
        "    batches = [toy_batch(*share[k : k + size]) for share in shares for k in range(0, 2, size)]\n"
        "    model, losses = run_toy(batches, accumulate=accumulate)\n"
        "    losses = losses.unflatten(0, (12, accumulate)).mean(1)\n"
        "    torch.testing.assert_close(losses, one['losses'], rtol=1e-5, atol=1e-6)\n"
        "    for name, value in model.state_dict().items():\n"
        "        torch.testing.assert_close(value, one['model'][name], rtol=1e-5, atol=1e-6)\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


def test_all_processes_leave_out_what_is_bad_in_one_and_end_together(tmp_path: Path) -> None:
    done = run_two(
        tmp_path,
        TWO + "import os\n"
        "bad = [toy_batch(processes.rank), toy_batch(1000 * processes.rank), toy_batch(7)]\n"
        "model, losses = run_toy(bad)\n"
        "assert losses.shape == (6, 4), losses.shape\n"
        "weights = torch.cat([p.flatten() for p in model.parameters()]).detach()\n"
        "everyone = all_gather(processes, weights)\n"
        "assert torch.equal(everyone[0], everyone[1]) and weights.isfinite().all()\n"
        "try:\n"
        "    run_toy([toy_batch(1000 * processes.rank)])\n"
        "except UserError as error:\n"
        "    os.write(1, f'told {error}\\n'.encode())\n"
        "except SystemExit as left:\n"
        "    os.write(1, f'left {left.code}\\n'.encode())\n"
        "cleanup()\n",
    )
    lines = sorted(done.stdout.splitlines())
    assert lines[0] == "left 2", done.stderr
    assert lines[1].startswith("told the loss is not finite in epoch 1, step 0: loss_classifier nan")
    assert "images: 1000.jpg, as in 1 steps before it" in lines[1]


NO_CHANCE = """
from models.building.build_options import BuildOptions
from models.create_fasterrcnn_model import create_model
from models.rcnn import sampling
from tests.support.training_runs import first_ones

# as many of every image, whatever its batch: a mean over batches then is one over images
sampling.random_priorities = first_ones


def run_detector(batches, processes, accumulate=1):
    torch.manual_seed(0)
    model = create_model["fasterrcnn_nano"](3, pretrained=False, options=BuildOptions(freeze=0, rois_per_image=8))
    optimizer = make_optimizer(model, "SGD", 0.001)
    updater = Updater(model, optimizer, Schedule(0.001, 2, 2), Precision(CPU), processes, accumulate=accumulate)
    network = DistributedDataParallel(model) if processes.several else model
    guard = NonFiniteGuard(INDEX, processes, 0, "")
    return train_one_epoch(network, updater, ReadyBatches(batches), 0, guard=guard).counted

"""


def test_two_processes_give_a_detectors_losses_of_one(tmp_path: Path) -> None:
    done = run_two(
        tmp_path,
        TWO + NO_CHANCE + "whole = [toy_batch(0, 1, 2, 3), toy_batch(4, 5, 6, 7)]\n"
        "shares = [toy_batch(*range(i + processes.rank, i + 4, 2)) for i in (0, 4)]\n"
        "one, two = run_detector(whole, Processes(CPU)), run_detector(shares, processes)\n"
        "torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)\n"
        "assert (one > 0).all()\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr
