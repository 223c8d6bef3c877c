"""The check of an export: what it lets pass, and what not."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.onnx.models import metadata
from torch_utils.onnx_export import EXACT, HALF, match_detections, serialize_onnx
from utils.detect.detections import Detections
from utils.loading.size_rule import Canvas


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Of (left edge, score, label)."""
    boxes = np.array([[left, 0, left + 10, 10] for left, _, _ in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([r[1] for r in rows], np.float32), np.array([r[2] for r in rows], np.int64))


def test_partners_are_of_one_label_and_near() -> None:
    one = detections((0, 0.9, 1), (20, 0.8, 1), (40, 0.7, 2), (60, 0.6, 1))
    other = detections((20.01, 0.8, 1), (0, 0.9, 1), (40, 0.7, 1), (60.1, 0.6, 1))
    pairs, lonely = match_detections(one, other, EXACT)
    assert sorted(pairs) == [(0, 1), (1, 0)]
    np.testing.assert_allclose(sorted(lonely), [0.6, 0.6, 0.7, 0.7], atol=1e-6)
    assert len(match_detections(one, other, HALF)[0]) == 3
    assert match_detections(detections(), other, EXACT) == ([], pytest.approx([0.8, 0.9, 0.7, 0.6]))


def test_one_box_has_one_partner() -> None:
    pairs, lonely = match_detections(detections((0, 0.5, 1), (0.01, 0.5, 1)), detections((0, 0.5, 1)), EXACT)
    assert (pairs, len(lonely)) == ([(0, 0)], 1)


def test_a_file_beyond_two_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    from models.rcnn.errors import ModelError

    proto = onnx.helper.make_model(onnx.helper.make_graph([], "x", [], []))
    monkeypatch.setattr("torch_utils.onnx_export.MAX_ONNX_BYTES", 10)
    with pytest.raises(ModelError, match=r"too large for an ONNX file, which has at most 2 GiB: --half halves it"):
        serialize_onnx(proto, metadata("x", Canvas(32, 32)))
    with pytest.raises(ModelError, match=r"at most 2 GiB$"):
        serialize_onnx(proto, replace(metadata("x", Canvas(32, 32)), half=True))
