"""export.py, and what runs its files: inference.py, eval.py and the doors of old names."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import eval as eval_script
import export as export_script
import inference
from models.rcnn.errors import ModelError
from tests.conftest import ROOT
from tests.support.exports import export, lively_checkpoint
from torch_utils.onnx_export import to_onnx
from utils.cli.flags import parse_options
from utils.cli.options import EvalOptions, ExportOptions, InferenceOptions
from utils.errors import UserError
from utils.images.image_files import DamagedImageError
from utils.labels.index import LabelIndex

PICTURE = ROOT / "example_test_data" / "image_1.jpg"
IMAGE_DOOR, VIDEO_DOORS = "onnx_inference_image.py", ("onnx_inference_video.py", "onnx_video_inference.py")


def door(name: str, *words: object) -> int:
    """The exit code of a script that is run in this process."""
    sys.argv = [str(ROOT / name), *map(str, words)]
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return left.value.code


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)


def test_images_through_the_file_and_its_old_door(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Fault of the predecessor: its ONNX image scripts crashed with --log-json."""
    file = export(tmp_path, square=True)
    words = ["-i", str(PICTURE), "--log-json", "-d", "cpu", "-th", "0.1"]
    for name, weights in (("torch", tmp_path / "model.pth"), ("onnx", file)):
        inference.main(parse_options(InferenceOptions, "", [*words, "-w", str(weights), "-o", name]))
    assert door(IMAGE_DOOR, "-w", file, "--imgsz", 128, *words, "-o", "door") == 0
    torch, onnx, through_door = (
        json.loads((tmp_path / name / "log.json").read_text())["annotations"] for name in ("torch", "onnx", "door")
    )
    assert through_door == onnx
    assert len(onnx) == len(torch) > 20
    for one, other in zip(torch, onnx, strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert one["category_id"] == other["category_id"]
    assert "onnxruntime's CPUExecutionProvider" in capsys.readouterr().out


def test_the_doors_want_an_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in (IMAGE_DOOR, *VIDEO_DOORS):
        assert door(name, "--help") == 0
        assert f"usage: {name} " in capsys.readouterr().out
        assert door(name, "-mw", "none.onnx", "--input", PICTURE.parent / "none") == 2
        assert "none.onnx: no such ONNX file" in capsys.readouterr().err
        for words in ((), ("--weights", "model.pth")):
            assert door(name, "--input", "x", *words) == 2
            assert "expected a file that ends in .onnx: export.py converts a checkpoint" in capsys.readouterr().err


def test_evaluation_of_the_file_is_that_of_the_checkpoint(tmp_path: Path, make_data) -> None:
    data = make_data(images=6)
    export(tmp_path, square=True)
    found = {}
    for name, batch in (("model.pth", 3), ("model.onnx", 4)):
        words = ["--data", str(data.yaml), "-w", name, "-d", "cpu", "-b", str(batch), "-j", "0", "-o", f"of {name}"]
        eval_script.main(parse_options(EvalOptions, "", words))
        found[name] = json.loads((tmp_path / f"of {name}" / "metrics.json").read_text())["stats"]
    assert found["model.pth"] == pytest.approx(found["model.onnx"], abs=1e-4)
    with pytest.raises(UserError, match=r"--tta does not work with .*: drop one of them"):
        eval_script.main(parse_options(EvalOptions, "", [*words, "--tta"]))


def test_an_image_that_cannot_be_decoded_does_not_count(
    tmp_path: Path, make_data, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, real = make_data(images=4), LabelIndex.pixels

    def pixels(index: LabelIndex, i: int) -> np.ndarray:
        if i == broken:
            raise DamagedImageError(f"{index.path(i)}: cannot be decoded")
        return real(index, i)

    monkeypatch.setattr(LabelIndex, "pixels", pixels)
    words = ["--data", str(data.yaml), "-w", str(export(tmp_path)), "-d", "cpu", "-b", "2", "--save-json", "f.json"]
    seen, results = {}, {}
    for broken in (None, 1):
        eval_script.main(parse_options(EvalOptions, "", [*words, "-o", f"out{broken}"]))
        seen[broken] = "valid_1.jpg: cannot be decoded" in capsys.readouterr().out
        results[broken] = json.loads(Path("f.json").read_text()), json.loads(Path("f_truth.json").read_text())
    assert seen == {None: False, 1: True}
    (all_rows, all_truth), (rows, truth) = results[None], results[1]
    assert rows == [row for row in all_rows if row["image_id"] != 2]
    assert 0 < len(rows) < len(all_rows)
    boxes, boxes_of_all = ([(a["image_id"], a["bbox"]) for a in t["annotations"]] for t in (truth, all_truth))
    assert boxes == [box for box in boxes_of_all if box[0] != 2]
    assert len(boxes) < len(boxes_of_all)


@pytest.mark.full
def test_a_file_that_finds_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(model, *args, **kwargs):
        proto = to_onnx(model, *args, **kwargs)
        model.roi_heads.box_predictor.bbox_pred.weight.data.mul_(1.5)
        return proto

    monkeypatch.setattr(export_script, "to_onnx", spoilt)
    (tmp_path / "model.onnx").write_bytes(b"of before")
    with pytest.raises(UserError, match=r"was not written: its detections differ from PyTorch's; .*: .* unmatched"):
        export(tmp_path, "--no-simplify")
    assert (tmp_path / "model.onnx").read_bytes() == b"of before"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "model.pth"), "expected a file name that ends in .onnx"),
        (("--out", "nowhere/model.onnx"), "there is no folder nowhere"),
        (("--dynamic", "--width", 640), "drop it, or drop --width and --height"),
        (("--width", 100), "expected multiples of 32"),
        (("--dynamic", "--batch", 2), "requires batch 1, not 2"),
        (("--check", "none.jpg"), "none.jpg: no such file"),
        (("--device", "cuda:99"), "use --device cpu"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_anything_is_done(tmp_path: Path, words: tuple, message: str) -> None:
    with pytest.raises((UserError, ModelError), match=message):
        export(tmp_path, *words)


@pytest.mark.full
def test_weights_and_model_exclude_each_other() -> None:
    for words in ((), ("--weights", "model.pth", "--model", "fasterrcnn_resnet50_fpn")):
        with pytest.raises(UserError, match="one of both"):
            parse_options(ExportOptions, "", ["--out", "model.onnx", *words]).check()


@pytest.mark.full
def test_a_bare_name_goes_to_weights_and_sizes_are_those_asked_for(tmp_path: Path) -> None:
    from utils.detect.onnx_file import read_onnx
    from utils.loading.size_rule import Canvas

    export(tmp_path, "--out", "small.onnx", "--width", 160, "--height", 96, "--batch", 2, square=True)
    _, metadata = read_onnx(tmp_path / "weights" / "small.onnx")
    assert metadata.size_rule == Canvas(96, 160)
    assert (metadata.batch, metadata.threshold, metadata.half) == (2, 0.4, False)
    assert lively_checkpoint(tmp_path).is_file()
