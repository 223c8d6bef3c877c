"""--batch auto: the search, and that nothing remembers it. A GPU's memory is played by a hook that counts images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from models.building.build_options import BuildOptions
from models.create_fasterrcnn_model import create_model
from models.rcnn.detector import FasterRCNN
from tests.support.processes import run_two
from tests.support.training_runs import FAST, assert_equal_content, run_folder
from torch_utils.checkpoint import load_checkpoint, rng_state
from torch_utils.distributed import Processes
from torch_utils.training import batch_size
from torch_utils.training.batch_size import LargestSample, find_batch, largest_that_fits
from torch_utils.training.precision import Precision
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions
from utils.errors import UserError

CPU = torch.device("cpu")
SAMPLE = LargestSample(40, 60, boxes=3)


@pytest.mark.parametrize(
    ("room", "most", "found"),
    [
        (0, 9, 0),
        (1, 9, 1),
        (3, 9, 3),
        (5, 64, 5),
        (64, 64, 64),
        (999, 100, 100),
        (999, 1, 1),
        (27, 99, 26),
        (31, 99, 30),
    ],
)
def test_the_search(room: int, most: int, found: int) -> None:
    tried = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= room

    assert largest_that_fits(fits, most) == found
    assert max(tried) <= most
    assert len(tried) == len(set(tried)) <= 11


def test_the_largest_sample() -> None:
    before = torch.get_rng_state()
    batch = LargestSample(40, 60, boxes=3).batch(2)
    assert torch.equal(before, torch.get_rng_state())
    assert batch.images.shape == (2, 64, 64, 3)
    assert batch.sizes.tolist() == [[40, 60]] * 2
    assert (batch.boxes.shape, batch.counts.tolist()) == ((6, 4), [3, 3])
    sides = batch.boxes[:, 2:] - batch.boxes[:, :2]
    assert (sides > 0).all()
    assert (batch.boxes >= 0).all()
    assert (batch.boxes <= torch.tensor([60, 40, 60, 40])).all()


def full_above(images: int, tried: list[int]) -> Callable:
    """A hook that finds the memory full for larger batches, in the middle of a step."""

    def hook(module: torch.nn.Module, inputs: tuple, _output: object) -> None:
        tried.append(len(inputs[0]))
        if len(inputs[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    return hook


def resnet() -> FasterRCNN:
    """With batch norms that are trained."""
    torch.manual_seed(0)
    return create_model["fasterrcnn_resnet18"](
        3, pretrained=False, options=BuildOptions(freeze=0, norm="batch", rois_per_image=8, proposals=20, head_width=64)
    )


@pytest.mark.parametrize(("images", "found"), [pytest.param(100, 3, marks=pytest.mark.full), (2, 2)])
def test_weights_statistics_and_random_numbers_are_what_they_were(images: int, found: int) -> None:
    model = resnet().eval()
    tried: list[int] = []
    hook = model.backbone.register_forward_hook(full_above(3, tried))
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, rng_state()
    arguments = {"images": images, "optimizer": "AdamW", "ema": True}
    assert find_batch(model, SAMPLE, Precision(CPU), Processes(CPU), **arguments) == found
    assert max(tried) == (4 if images == 100 else 2)
    assert tried.count(2) == 2, "the second step has the optimizer's state beside it"
    assert_equal_content(dict(model.state_dict()), state, "model")
    assert_equal_content(rng_state(), random, "random numbers")
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    hook.remove()


def test_processes_agree_on_what_fits_into_all_of_them(tmp_path: Path) -> None:
    """And all their batches together have no more than the training's images."""
    done = run_two(
        tmp_path,
        "from torch_utils.training import batch_size\n"
        "from torch_utils.training.precision import Precision\n"
        "batch_size._Trial.fits = lambda self, images: images <= 5 - 2 * processes.rank\n"
        "sample, precision = batch_size.LargestSample(40, 60, boxes=3), Precision(processes.device)\n"
        "for images, found in ((100, 3), (5, 2), (1, 1)):\n"
        "    arguments = {'images': images, 'optimizer': 'SGD', 'ema': False}\n"
        "    assert batch_size.find_batch(torch.nn.Linear(1, 1), sample, precision, processes, **arguments) == found\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


def test_without_room_for_one_image_there_is_nothing_to_find() -> None:
    model = resnet()
    model.backbone.register_forward_hook(full_above(0, []))
    arguments = {"images": 9, "optimizer": "SGD", "ema": False}
    with pytest.raises(UserError, match="--batch auto: not even one image of 60 x 40 px fits into 85% of the free mem"):
        find_batch(model, SAMPLE, Precision(CPU), Processes(CPU), **arguments)


def test_other_errors_of_a_step_are_not_taken_for_full_memory() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes")

    model = resnet()
    model.backbone.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="shapes"):
        find_batch(model, SAMPLE, Precision(CPU), Processes(CPU), images=9, optimizer="SGD", ema=False)


@pytest.mark.full
def test_a_run_with_the_batch_that_was_found_is_one_with_that_number(
    make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_data()

    def trained(batch: object, name: str) -> dict:
        argv = ("--data", data.yaml, *FAST, "--epochs", 1, "--batch", batch, "--name", name)
        train.main(parse_options(TrainOptions, "", list(map(str, argv))))
        return load_checkpoint(run_folder(tmp_path, name) / "last_model.pth")

    with pytest.raises(UserError, match="--batch auto tries a GPU's memory"):
        trained("auto", "none")
    expected = trained(3, "number")
    monkeypatch.setattr(train, "_check_machine", lambda *_: None)
    monkeypatch.setattr(batch_size._Trial, "fits", lambda self, images: self._train(images) or images <= 3)
    caplog.clear()
    found = trained("auto", "auto")
    assert found["options"]["batch"] == 3
    assert "batch: 3\n" in (run_folder(tmp_path, "auto") / "opt.yaml").read_text()
    assert "Batch (--batch auto): 3 images a process" in (run_folder(tmp_path, "auto") / "train.log").read_text()
    assert_equal_content(found, expected, "checkpoint")
