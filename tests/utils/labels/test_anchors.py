from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from models.building.backbone_spec import ANCHOR_SIZES, ASPECT_RATIOS
from models.create_fasterrcnn_model import create_model
from tests.conftest import examples
from utils.labels.anchors import AnchorGrid, Anchors, fit_grid, network_boxes
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index
from utils.loading.size_rule import SizeRule

PYRAMID = AnchorGrid(tuple(map(float, ANCHOR_SIZES)), ASPECT_RATIOS, (4, 8, 16, 32, 64), split_by_level=True)
SINGLE = replace(PYRAMID, strides=(32,), split_by_level=False)


def random_boxes(seed: int, count: int, low: float = 8, high: float = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 320, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(low, high, (count, 2))], 1)


@pytest.mark.parametrize(
    ("name", "grid"), [("fasterrcnn_mini_darknet_nano_head", SINGLE), ("fasterrcnn_resnet50_fpn", PYRAMID)]
)
def test_overlaps_are_those_with_the_detectors_own_anchors(name: str, grid: AnchorGrid) -> None:
    side = 640
    generator = create_model[name](3, pretrained=False).rpn.anchor_generator
    maps = [torch.zeros(1, 1, side // stride, side // stride) for stride in grid.strides]
    anchors = generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)[0].numpy()
    boxes = random_boxes(0, 60)
    expected = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(anchors)).max(1).values.numpy()
    # torchvision rounds anchors to whole pixels
    np.testing.assert_allclose(grid.best_iou(boxes), expected, atol=0.02)


def test_centered_overlap_of_known_shapes() -> None:
    assert Anchors().best_iou(np.array([[64.0, 64.0], [16.0, 16.0]])) == pytest.approx([1, 0.25])


@examples(20)
@given(st.integers(0, 50), st.floats(6, 40), st.floats(1.2, 8))
def test_a_fit_is_never_worse(seed: int, low: float, spread: float) -> None:
    boxes = random_boxes(seed, 40, low, low * spread)
    for grid in (SINGLE, PYRAMID):
        fitted = fit_grid(grid, boxes)
        assert fitted.best_iou(boxes).mean() >= grid.best_iou(boxes).mean() - 1e-3  # sizes are rounded
        assert len(fitted.sizes) == len(grid.sizes)
        assert list(fitted.sizes) == sorted(fitted.sizes)


def test_a_fit_finds_small_wide_objects() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 600, (500, 2))
    boxes = np.concatenate([corners, corners + rng.normal([60, 12], [6, 1], (500, 2))], 1)
    assert SINGLE.recall(boxes, 0.5) < 0.1
    fitted = fit_grid(replace(SINGLE, strides=(8,)), boxes)
    assert fitted.recall(boxes, 0.5) > 0.95
    assert min(fitted.ratios) < 0.4


def test_no_boxes_leave_the_anchors_as_they_are() -> None:
    assert fit_grid(PYRAMID, np.empty((0, 4))) == PYRAMID
    assert PYRAMID.recall(np.empty((0, 4)), 0.5) == 0


def test_boxes_are_those_that_the_network_sees(make_data) -> None:
    data_set = make_data()
    index = open_index(load_data_config(data_set.yaml), "train", "pascal_voc")
    height, width = map(int, index.sizes[0])
    boxes = network_boxes(index, SizeRule(2 * height, square=True).network_size)
    np.testing.assert_allclose(boxes, index.boxes * [2 * height / width, 2, 2 * height / width, 2], rtol=1e-6)
