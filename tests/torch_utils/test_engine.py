"""The loops, where scripts do not show them."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import DetectionDataset, make_loader
from models.create_fasterrcnn_model import create_model
from models.rcnn.detector import FasterRCNN
from tests.conftest import write_data_set
from tests.support.processes import run_two
from tests.support.toy_training import INDEX, ReadyBatches, Toy, make_updater, toy_batch, train
from torch_utils.distributed import Processes
from torch_utils.engine import evaluate
from torch_utils.evaluation.result import Evaluation
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import LOSS_TERMS
from utils.errors import UserError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.batch import Batch
from utils.loading.samplers import EvalBatchSampler
from utils.loading.size_rule import SizeRule

CPU, RULE = torch.device("cpu"), SizeRule(64)


@pytest.fixture
def index(make_data: Callable) -> LabelIndex:
    """Of four images, the second of which cannot be decoded."""
    data = make_data()
    index = open_index(load_data_config(data.yaml), "valid", "pascal_voc")
    (data.root / "valid/images/valid_1.jpg").write_bytes(b"broken")
    return index


@pytest.fixture
def model() -> FasterRCNN:
    torch.manual_seed(0)
    return create_model["fasterrcnn_nano"](3, pretrained=False, box_score_thresh=0.0)


def evaluation(
    model: FasterRCNN, index: LabelIndex, batch: int, images: list[int] | None = None, **wishes
) -> Evaluation:
    batches = EvalBatchSampler(index, RULE, batch, images=images)
    loader = make_loader(DetectionDataset(index, RULE), batches, 0, CPU)
    return evaluate(model, loader, index, precision=Precision(CPU), processes=Processes(CPU), **wishes)


def test_losses_come_from_the_same_pass_and_change_nothing(
    index: LabelIndex, model: FasterRCNN, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    passes, before = [], torch.get_rng_state()
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    plain, found = evaluation(model, index, 2), evaluation(model, index, 2, losses=True)
    assert len(passes) == 4, "two batches each"
    assert torch.equal(torch.get_rng_state(), before)
    assert plain.losses is None
    assert plain.metrics == found.metrics
    assert list(plain.detections) == list(found.detections) == [0, 2, 3]
    for image, one in plain.detections.items():
        for key in ("boxes", "labels", "scores"):
            assert np.array_equal(getattr(one, key), getattr(found.detections[image], key))
    assert tuple(found.losses) == LOSS_TERMS
    assert f"Test:  loss: {sum(found.losses.values()):.4f}  loss_classifier: " in caplog.text


def test_the_loss_is_a_mean_over_the_images_that_can_be_decoded(index: LabelIndex, model: FasterRCNN) -> None:
    whole = evaluation(model, index, 3, losses=True).losses
    parts = [evaluation(model, index, 1, [image], losses=True).losses for image in (0, 2, 3)]
    for name in LOSS_TERMS:
        assert whole[name] == pytest.approx(np.mean([part[name] for part in parts]), rel=1e-4)
    assert parts[0] != parts[1]


def test_a_sample_is_told_apart_and_none_of_it_may_be_readable(
    index: LabelIndex, model: FasterRCNN, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = evaluation(model, index, 2, [0, 3], sample=True)
    assert list(found.detections) == [0, 3]
    assert f"Train sample:  mAP: {found.metrics.ap:.4f}  mAP at IoU 0.50: " in caplog.text
    assert "Train sample:  [0/1]  eta: " in caplog.text
    assert "Test:" not in caplog.text
    assert "Average Precision" not in caplog.text
    assert evaluation(model, index, 2, [1], sample=True).metrics.ap == -1
    with pytest.raises(UserError, match="can be decoded"):
        evaluation(model, index, 2, [1])


def test_two_processes_measure_what_one_does(tmp_path: Path, model: FasterRCNN) -> None:
    data = write_data_set(tmp_path, images=5, size=(64, 80), splits=("train", "valid"))
    index = open_index(load_data_config(data.yaml), "valid", "pascal_voc")
    expected = evaluation(model, index, 2, losses=True)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    done = run_two(
        tmp_path,
        "from pathlib import Path\n"
        "import pytest\n"
        "from datasets import DetectionDataset, make_loader\n"
        "from models.create_fasterrcnn_model import create_model\n"
        "from torch_utils.engine import evaluate\n"
        "from torch_utils.training.precision import Precision\n"
        "from utils.labels.data_config import load_data_config\n"
        "from utils.labels.index import open_index\n"
        "from utils.loading.samplers import EvalBatchSampler\n"
        "from utils.loading.size_rule import SizeRule\n"
        "CPU, RULE = torch.device('cpu'), SizeRule(64)\n"
        f"index = open_index(load_data_config(Path({str(data.yaml)!r})), 'valid', 'pascal_voc')\n"
        "model = create_model['fasterrcnn_nano'](3, pretrained=False, box_score_thresh=0.0)\n"
        f"model.load_state_dict(torch.load({str(tmp_path / 'model.pth')!r}))\n"
        "batches = EvalBatchSampler(index, RULE, 2, rank=processes.rank, world_size=2)\n"
        "loader = make_loader(DetectionDataset(index, RULE), batches, 0, CPU)\n"
        "found = evaluate(model, loader, index, precision=Precision(CPU), processes=processes, losses=True)\n"
        f"assert found.losses == pytest.approx({dict(expected.losses)!r}, rel=1e-6), found.losses\n"
        f"assert found.metrics.ap == pytest.approx({expected.metrics.ap!r}, abs=1e-9)\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_every_process_evaluates_the_network_that_is_saved(tmp_path: Path) -> None:
    """Each process has batch norm statistics of its own after a step; only the main one's are saved."""
    data = write_data_set(tmp_path, images=1, size=(32, 32), splits=("train", "valid"))
    done = run_two(
        tmp_path,
        "from pathlib import Path\n"
        "from tests.support.toy_training import ReadyBatches\n"
        "from torch_utils.engine import evaluate\n"
        "from torch_utils.training.precision import Precision\n"
        "from utils.labels.data_config import load_data_config\n"
        "from utils.labels.index import open_index\n"
        f"index = open_index(load_data_config(Path({str(data.yaml)!r})), 'valid', 'pascal_voc')\n"
        "norm = torch.nn.BatchNorm1d(2)\n"
        "norm.running_var += processes.rank\n"
        "try:\n"
        "    evaluate(norm, ReadyBatches(), index, precision=Precision(torch.device('cpu')), processes=processes)\n"
        "except UserError as error:\n"
        "    assert str(error).endswith('none of the 1 images can be decoded')\n"
        "assert norm.running_var.tolist() == [1, 1]\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


NEARLY_RIGHT = """
from pathlib import Path
from datasets import DetectionDataset, make_loader
from utils.loading.samplers import EvalBatchSampler
from torch_utils.engine import evaluate
from torch_utils.training.precision import Precision
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index
from utils.loading.size_rule import SizeRule


class NearlyRight(torch.nn.Module):
    # knows the boxes, and is wrong by chance about places, labels and scores
    def forward(self, batch):
        parts = zip(batch.boxes.split(batch.counts.tolist()), batch.labels.split(batch.counts.tolist()))
        return [self.guess(*part, int(i)) for part, i in zip(parts, batch.image_ids)]

    def guess(self, boxes, labels, seed):
        random = torch.Generator().manual_seed(seed)
        boxes, labels = boxes.repeat(2, 1), labels.repeat(2)
        scores, shift, chance = torch.rand(3, len(boxes), generator=random)
        scores, labels = scores.sort(descending=True).values, torch.where(chance < 0.2, 3 - labels, labels)
        return {"boxes": boxes + 4 * shift[:, None], "labels": labels, "scores": scores}


def measured(index, processes):
    rule = SizeRule(64)
    batches = EvalBatchSampler(index, rule, 2, rank=processes.rank, world_size=processes.world_size)
    loader = make_loader(DetectionDataset(index, rule), batches, 0, processes.device)
    return evaluate(NearlyRight(), loader, index, precision=Precision(processes.device), processes=processes).metrics

"""


@pytest.mark.full
def test_an_odd_number_of_images_has_one_map_whatever_the_processes(tmp_path: Path) -> None:
    data = write_data_set(tmp_path, images=7, size=(64, 80), splits=("valid",))
    done = run_two(
        tmp_path,
        NEARLY_RIGHT + f"index = open_index(load_data_config(Path({str(data.yaml)!r})), 'valid', 'pascal_voc')\n"
        "one, two = measured(index, Processes(processes.device)), measured(index, processes)\n"
        "assert 0.1 < one.ap < 0.9, one.ap\n"
        "assert abs(one.ap - two.ap) < 1e-9\n"
        "assert one.table() == two.table()\n"
        "cleanup()\n",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            r"the memory of the GPU is full \(CUDA",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "machine is full"),
    ],
)
def test_full_memory_has_a_step_a_batch_and_a_way_out(error: Exception, message: str) -> None:
    class Full(Toy):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            if 5 in batch.image_ids:
                raise error
            return super().forward(batch)

    with pytest.raises(UserError, match=message) as raised:
        train(make_updater(Full()), [toy_batch(1, 2), toy_batch(4, 5)])
    assert str(raised.value).startswith("epoch 0, step 1, 2 images of 64 x 64 px: ")
    assert "lower --batch (--accumulate makes up for it) or --imgsz, or add --amp" in str(raised.value)


def test_full_memory_in_an_evaluation_too() -> None:
    class Full(torch.nn.Module):
        def forward(self, batch: Batch) -> list:
            raise MemoryError

    with pytest.raises(
        UserError, match="evaluation, step 0, 1 image of 64 x 64 px: the memory of this machine is full"
    ):
        evaluate(Full(), ReadyBatches([toy_batch(1)]), INDEX, precision=Precision(CPU), processes=Processes(CPU))


def test_other_errors_of_a_step_are_our_own() -> None:
    class Broken(Toy):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        train(make_updater(Broken()), [toy_batch(1, 2)])


def test_a_line_has_images_per_second_and_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(make_updater(Toy()), [toy_batch(1, 2), toy_batch(4, 5)])
    assert re.search(r"data: \S+ \(\d+ %\)  images/s: \d+\.\d  mem: \d+$", caplog.records[0].getMessage())
