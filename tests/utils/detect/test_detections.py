import numpy as np
import pytest
import torch

from utils.detect.detections import Detections

FOUND = Detections(
    np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0.9, 0.5, 0.1], np.float32), np.array([1, 2, 1])
)


def test_filter_by_score_and_class() -> None:
    assert FOUND.filtered(0.5).labels.tolist() == [1, 2]
    assert FOUND.filtered(0.05, (1,)).scores.tolist() == FOUND.scores[[0, 2]].tolist()
    assert len(FOUND.filtered(0.95)) == 0
    assert len(FOUND) == 3


def test_relabel_drops_negative() -> None:
    relabeled = FOUND.relabeled(np.array([-1, -1, 5]))
    assert relabeled.labels.tolist() == [5]
    assert relabeled.boxes.tolist() == FOUND.boxes[1:2].tolist()


def test_from_output() -> None:
    output = {"boxes": torch.ones(2, 4), "scores": torch.ones(2), "labels": torch.tensor([1, 2]), "more": None}
    assert Detections.from_output(output).labels.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_from_output_of_half_floats(dtype: torch.dtype) -> None:
    """Outputs of torchvision's detector under autocast; NumPy has no bfloat16."""
    output = {"boxes": torch.full((2, 4), 1.5, dtype=dtype), "scores": torch.ones(2).to(dtype), "labels": torch.ones(2)}
    found = Detections.from_output(output)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.boxes.tolist() == [[1.5] * 4] * 2
