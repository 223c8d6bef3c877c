import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from models.rcnn import matching
from models.rcnn.boxes import iou
from models.rcnn.matching import match_boxes
from models.rcnn.structures import GroundTruth
from tests.conftest import examples

SIDE = st.integers(0, 6)  # small whole numbers: many equal overlaps


def box_lists(least: int, most: int):
    box = st.tuples(SIDE, SIDE, st.integers(1, 5), st.integers(1, 5))
    return st.lists(box, min_size=least, max_size=most)


def boxes_of(rows: list) -> torch.Tensor:
    corners = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1)


@examples(200)
@given(
    st.lists(box_lists(0, 5), min_size=1, max_size=4), box_lists(1, 12), st.booleans(), st.sampled_from([0.3, 0.5, 0.7])
)
def test_matches_are_torchvisions(objects: list, others: list, low_quality: bool, low: float) -> None:
    boxes, truth = boxes_of(others), [boxes_of(rows) for rows in objects]
    rule = Matcher(0.7, low, allow_low_quality_matches=low_quality)
    targets = [{"boxes": each, "labels": torch.ones(len(each), dtype=torch.int64)} for each in truth]
    found = match_boxes(boxes, GroundTruth.of_targets(targets), rule)
    for own, each in zip(found, truth, strict=True):
        expected = rule(box_iou(each, boxes)) if len(each) else torch.full((len(boxes),), rule.BELOW_LOW_THRESHOLD)
        assert torch.equal(own, expected)
    if len(truth) > 1:
        before, matching._MOST_PAIRS = matching._MOST_PAIRS, 1
        try:
            assert torch.equal(match_boxes(boxes, GroundTruth.of_targets(targets), rule), found), (
                "one image after the other"
            )
        finally:
            matching._MOST_PAIRS = before


def test_overlaps_are_torchvisions_to_the_bit() -> None:
    torch.manual_seed(0)
    ones, others = (
        torch.cat([low, low + torch.rand(n, 2) * 300], 1)
        for n, low in ((40, torch.rand(40, 2) * 300), (70, torch.rand(70, 2) * 300))
    )
    assert torch.equal(iou(ones, others), box_iou(ones, others))
    assert torch.equal(iou(ones[None].expand(2, -1, -1), others)[1], box_iou(ones, others))
