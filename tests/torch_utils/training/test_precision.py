"""Number formats: what is asked for is what is computed in, and what needs float32 has it."""

import pytest
import torch
import torchvision
from torch import Tensor

from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from tests.support.toy_training import toy_batch
from torch_utils.training.precision import Precision, pick_precision
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("wish", [{"amp": True}, {"wish": "bf16"}, {"amp": True, "wish": "bf16"}], ids=str)
def test_amp_computes_in_half_precision(wish: dict) -> None:
    """Fault of the predecessor: --amp never ran in half precision."""
    precision = pick_precision(CPU, **wish)
    layer = torch.nn.Linear(4, 4)
    with precision.autocast():
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    assert not precision.scaler.is_enabled()


@pytest.mark.parametrize("wish", [None, "fp32"])
def test_without_amp_it_does_not(wish: str | None) -> None:
    with pick_precision(CPU, wish).autocast():
        assert torch.nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("wish", "amp", "message"),
    [
        ("fp16", False, "--precision fp16 needs a GPU"),
        ("tf32", False, "--precision tf32 needs a GPU of the Ampere generation or later, not cpu"),
        ("fp32", True, "--amp contradicts --precision fp32, since it is bf16 on cpu"),
        ("fp16", True, "--amp contradicts --precision fp16"),
    ],
)
def test_what_the_device_cannot_do_is_refused(wish: str, amp: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pick_precision(CPU, wish, amp=amp)


@pytest.mark.parametrize(
    ("bf16", "capability", "wish", "amp", "dtype"),
    [
        (True, (9, 0), None, True, torch.bfloat16),
        (False, (7, 5), None, True, torch.float16),
        (True, (9, 0), "fp16", False, torch.float16),
        (True, (9, 0), "tf32", False, torch.float32),
        (True, (9, 0), "fp32", False, torch.float32),
        (False, (7, 5), "bf16", False, None),
        (False, (7, 5), "tf32", False, None),
    ],
)
def test_formats_of_gpus(monkeypatch: pytest.MonkeyPatch, bf16, capability, wish, amp, dtype) -> None:
    """What is asked of a GPU, which these tests need not have."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    before = torch.get_float32_matmul_precision()
    try:
        if dtype is None:
            with pytest.raises(UserError, match=f"--precision {wish}"):
                pick_precision(torch.device("cuda"), wish, amp=amp)
            return
        precision = pick_precision(torch.device("cuda"), wish, amp=amp)
        assert precision.dtype == dtype
        if wish in ("fp32", "tf32"):
            assert torch.backends.cudnn.allow_tf32 == (wish == "tf32")
            assert torch.get_float32_matmul_precision() == ("high" if wish == "tf32" else "highest")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", ["fasterrcnn_nano", "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_regions_boxes_suppression_and_losses_are_float32_inside_autocast(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch.manual_seed(0)
    model = create_model[name](3, pretrained=False, options=RANDOM)
    seen: dict[str, set] = {}

    def watch(owner: object, attribute: str) -> None:
        real = getattr(owner, attribute)

        def watched(*args, **kwargs):
            given = [a for arg in args for a in (arg if isinstance(arg, (list, tuple)) else [arg])]
            result = real(*args, **kwargs)
            results = result if isinstance(result, (list, tuple)) else [result]
            floats = [t for t in (*given, *results) if isinstance(t, Tensor) and t.is_floating_point()]
            assert floats, attribute
            seen.setdefault(attribute, set()).update(t.dtype for t in floats)
            return result

        monkeypatch.setattr(owner, attribute, watched)

    for coder in (model.rpn.box_coder, model.roi_heads.box_coder):
        watch(coder, "decode_single")
        watch(coder, "encode_single")
    watch(torchvision.ops.boxes, "batched_nms")
    watch(model.roi_heads.box_roi_pool, "map_levels")
    watch(model.roi_heads, "losses_per_proposal")
    watch(torch.nn.functional, "binary_cross_entropy_with_logits")
    pooled: list[torch.dtype] = []
    model.roi_heads.box_roi_pool.register_forward_hook(lambda module, given, result: pooled.append(result.dtype))
    features: list[torch.dtype] = []
    model.rpn.head.register_forward_pre_hook(lambda module, given: features.append(given[0][0].dtype))
    for training in (True, False):
        model.train(training)
        with Precision(CPU, torch.bfloat16).autocast():
            found = model(toy_batch(2))
        results = found.values() if training else [t for d in found for t in (d["boxes"], d["scores"])]
        assert {t.dtype for t in results} == {torch.float32}
    assert set(features) == {torch.bfloat16}
    assert set(pooled) == {torch.float32}
    watched = {
        "decode_single",
        "encode_single",
        "batched_nms",
        "losses_per_proposal",
        "binary_cross_entropy_with_logits",
    }
    assert set(seen) >= watched
    assert {dtype for dtypes in seen.values() for dtype in dtypes} == {torch.float32}, seen
