"""Contract of every model name, big ones too: `pytest -m slow tests/models/test_every_model.py`, some minutes."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.every_model import CLASSES, two_images
from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model

_PROTOBUF = 2e9  # bytes that an ONNX file can have


class _Maps(nn.Module):
    """A backbone as ONNX has it: a tuple of maps."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        return (maps,) if isinstance(maps, Tensor) else tuple(maps.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(create_model))
def test_trains_and_detects_at_320_and_its_maps_are_as_declared(name: str) -> None:
    torch.manual_seed(0)
    model = create_model[name](CLASSES, pretrained=False, options=RANDOM).train()
    losses = model(two_images(320))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.inference_mode():
        maps = _Maps(model.eval().backbone)(torch.zeros(1, 3, 320, 320))
        assert len(model(two_images(320))) == 2
    assert {m.shape[1] for m in maps} == {model.spec.out_channels}
    for m, stride in zip(maps, model.spec.levels, strict=True):  # squeezenets do not pad: 19 cells of 16 px
        assert 0 <= 320 / stride - m.shape[-1] <= 1
    del model, losses
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(create_model))
def test_the_backbone_goes_to_onnx(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    build = create_model[name]
    with torch.device("meta"):
        if 4 * sum(p.numel() for p in build(CLASSES, pretrained=False).backbone.parameters()) > _PROTOBUF:
            pytest.skip("more than an ONNX file without external data can hold")
    torch.manual_seed(0)
    backbone = _Maps(build(CLASSES, pretrained=False, options=RANDOM).backbone).eval()
    images = torch.randn(1, 3, 96, 128)
    torch.onnx.export(backbone, (images,), tmp_path / "net.onnx", dynamo=False, opset_version=18)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.inference_mode():
        for theirs, ours in zip(found, backbone(images), strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-3 * max(1.0, ours.abs().max().item()))
