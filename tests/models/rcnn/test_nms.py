import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.rcnn import nms as ours
from models.rcnn.nms import batched_nms, nms_cpu, nms_fixed_point, rounded_down
from tests.conftest import HANG, ROOT, examples
from tests.support.nms_cases import chain, crowded, kept_by_torchvision

SETS = st.lists(
    st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 9)] * 2, st.booleans()), min_size=5, max_size=5),
    min_size=1,
    max_size=3,
)
THRESHOLDS = st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0])


def block_of(sets: list) -> tuple[Tensor, Tensor]:
    rows = torch.tensor(sets, dtype=torch.float32)
    return torch.cat([rows[..., :2], rows[..., :2] + rows[..., 2:4]], 2), rows[..., 4] > 0


@examples(200)
@given(SETS, THRESHOLDS)
def test_all_ways_keep_what_torchvision_keeps(sets: list, threshold: float) -> None:
    boxes, valid = block_of(sets)
    wanted = kept_by_torchvision(boxes, valid, threshold)
    for way in (nms_cpu, nms_fixed_point, batched_nms):
        assert torch.equal(way(boxes, valid, threshold), wanted), way


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 100])
def test_a_long_chain_comes_to_its_end(count: int) -> None:
    boxes, valid = chain(count)[None], torch.ones(1, count, dtype=torch.bool)
    kept = nms_fixed_point(boxes, valid, 0.3)
    assert torch.equal(kept, kept_by_torchvision(boxes, valid, 0.3))
    assert kept.sum() == (count + 1) // 2


def test_crowded_sets_in_one_piece_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, valid = crowded(150, 6)
    wanted = kept_by_torchvision(boxes, valid, 0.5)
    assert torch.equal(nms_fixed_point(boxes, valid, 0.5), wanted)
    monkeypatch.setattr(ours, "_MOST_PAIRS", 150 * 150 * 2)
    assert torch.equal(nms_fixed_point(boxes, valid, 0.5), wanted)


def test_no_boxes() -> None:
    for shape in ((0, 5), (3, 0)):
        valid = torch.zeros(shape, dtype=torch.bool)
        for way in (nms_cpu, nms_fixed_point):
            assert way(torch.zeros(*shape, 4), valid, 0.5).shape == shape


@given(st.floats(0, 1))
def test_a_threshold_is_rounded_down(threshold: float) -> None:
    rounded = rounded_down(threshold)
    assert rounded <= threshold
    assert float(torch.tensor(rounded)) == rounded
    assert float(torch.nextafter(torch.tensor(rounded), torch.tensor(2.0))) > threshold


def test_triton_that_does_not_work_is_told_once_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It can be imported without a C compiler, and ended every step."""
    kernel = pytest.importorskip("models.rcnn.nms_triton", exc_type=ImportError)
    calls = []

    def fail(*given: object) -> Tensor:
        calls.append(given)
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    monkeypatch.setattr(kernel, "batched_nms_triton", fail)
    ours._works.cache_clear()
    assert [ours._triton(count, torch.device("cpu")) for count in (10, 20, 10**6)] == [None] * 3
    ours._works.cache_clear()
    assert len(calls) == 1
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "slower: Failed to find C compiler. Please specify via CC environment variable."
    )


KERNEL = """
import torch
from models.rcnn.nms import rounded_down
from models.rcnn.nms_triton import batched_nms_triton
from tests.support.nms_cases import chain, crowded, kept_by_torchvision

cases = [crowded(40, 3), (chain(33)[None], torch.ones(1, 33, dtype=torch.bool)), crowded(1, 2)]
cases.append((torch.zeros(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)))
many = crowded(150, 3)  # of three tiles to a side, and in some there is nothing
many[1][1, 70:] = many[1][2, :130] = False
cases += [crowded(65, 1), (chain(150)[None], torch.ones(1, 150, dtype=torch.bool)), many]
for boxes, valid in cases:
    for threshold in (0.3, 0.7):
        kept = batched_nms_triton(boxes, valid, rounded_down(threshold))
        assert torch.equal(kept, kept_by_torchvision(boxes, valid, threshold)), (boxes.shape, threshold)
print("equal")
"""


@pytest.mark.full
def test_the_kernel_keeps_what_torchvision_keeps() -> None:
    """In Triton's interpreter, which shows what the kernel computes, not that a GPU's compiler takes it."""
    pytest.importorskip("triton")
    command = [sys.executable, "-c", KERNEL]  # a process of its own: Triton asks for the interpreter when imported
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=HANG
    )
    assert done.stdout == "equal\n", done.stderr
