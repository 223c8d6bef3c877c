"""inference.py as users run it."""

import csv
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import inference
from models.create_fasterrcnn_model import create_model
from tests.conftest import CLASSES, ROOT, full_among, run_script, squares
from tests.support.checkpoints import write_checkpoint
from torch_utils.checkpoint import save_checkpoint
from utils.cli.flags import parse_options
from utils.cli.options import InferenceOptions
from utils.cli.script import Interrupted
from utils.detect.torch_detector import TorchDetector
from utils.errors import UserError
from utils.inference import image_results
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint of random weights that finds many boxes, trained, as it says, at 64 px."""
    return write_checkpoint(tmp_path / "model.pth")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three images of different sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (name, size) in enumerate({"a.v1.jpg": (60, 90), "a.v2.jpg": (200, 300), "b [1] ü.PNG": (90, 60)}.items()):
        image, _, _ = squares(np.random.default_rng(i), *size, 3)
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, image[:, :, ::-1])[1].tobytes())
    return folder


def test_one_image_with_weights_alone(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    done = run("inference.py", "--weights", weights, "--input", pictures / "a.v2.jpg")
    assert done.returncode == 0, done.stderr
    drawn = cv2.imread(str(tmp_path / "outputs/inference/res_1/a.v2.jpg"))
    assert drawn.shape == (200, 300, 3)
    assert not np.array_equal(drawn, cv2.imread(str(pictures / "a.v2.jpg")))
    assert "at 64 px (longer side at most 1333)" in done.stdout
    assert "\n1 image, " in done.stdout
    run("inference.py", "--weights", weights, "--input", pictures / "a.v2.jpg")
    assert (tmp_path / "outputs/inference/res_2/a.v2.jpg").is_file()


def test_a_folder_with_table_and_json(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    """Faults of the predecessor: every image had id 1, boxes in resized pixels, no score; names were cut at the first
    dot, so that results overwrote each other."""
    done = run("inference.py", "--weights", weights, "--input", pictures, "--table", "--log-json", "-o", "out")
    assert done.returncode == 0, done.stderr
    names = ["a.v1.jpg", "a.v2.jpg", "b [1] ü.PNG"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*names, "boxes.csv", "log.json"])
    content = json.loads((tmp_path / "out/log.json").read_text(encoding="utf-8"))
    assert [i["file_name"] for i in content["images"]] == names
    assert [i["id"] for i in content["images"]] == [1, 2, 3]
    assert [(i["height"], i["width"]) for i in content["images"]] == [(60, 90), (200, 300), (90, 60)]
    large = [a for a in content["annotations"] if a["image_id"] == 2]
    assert max(a["bbox"][0] + a["bbox"][2] for a in large) > 96  # in pixels of the image, not of the network
    assert all(a["bbox"][0] + a["bbox"][2] <= 300.01 for a in large)
    assert all(0.3 <= a["score"] <= 1 for a in content["annotations"])
    assert {c["name"]: c["id"] for c in content["categories"]} == {"red": 1, "green": 2}
    rows = list(csv.DictReader((tmp_path / "out/boxes.csv").open(encoding="utf-8")))
    assert len(rows) == len(content["annotations"])
    assert {row["image"] for row in rows} == set(names)
    assert float(rows[0]["xmax"]) - float(rows[0]["xmin"]) == pytest.approx(float(rows[0]["width"]), abs=0.02)


def test_threshold_and_classes_filter_everything(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    """Fault of the predecessor: wrong ids with --classes."""
    done = run("inference.py", "-w", weights, "-i", pictures, "--log-json", "--classes", 2, "-th", 0.35, "-o", "out")
    assert done.returncode == 0, done.stderr
    annotations = json.loads((tmp_path / "out/log.json").read_text(encoding="utf-8"))["annotations"]
    assert annotations
    assert {a["category_id"] for a in annotations} == {2}
    assert min(a["score"] for a in annotations) >= 0.35
    run("inference.py", "-w", weights, "-i", pictures / "b [1] ü.PNG", "-th", 1, "-o", "none")
    nothing_drawn, original = (cv2.imread(str(f / "b [1] ü.PNG")) for f in (tmp_path / "none", pictures))
    np.testing.assert_array_equal(nothing_drawn, original)


def test_the_threshold_of_the_checkpoint(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    """It is proposed where none is typed, and used when asked for; the default stays."""
    picture = pictures / "a.v2.jpg"
    refused = run("inference.py", "-w", weights, "-i", picture, "--threshold", "best")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert f"--threshold best: {weights} stores no best threshold" in refused.stderr

    save_checkpoint(weights, {**torch.load(weights, weights_only=True), "best_threshold": 0.45})
    scores = {}
    for words in ((), ("-th", "best"), ("-th", "0.46")):
        done = run("inference.py", "-w", weights, "-i", picture, "--log-json", "-o", f"out{len(scores)}", *words)
        assert done.returncode == 0, done.stderr
        proposal = "Score threshold: 0.3; validation's best mean F1 is at 0.450: --threshold best"
        assert (proposal in done.stdout) == (not words)
        found = json.loads((tmp_path / f"out{len(scores)}/log.json").read_text())["annotations"]
        scores[words] = [row["score"] for row in found]
    assert 0.3 <= min(scores[()]) < 0.45 <= min(scores["-th", "best"])
    assert scores["-th", "best"] == [score for score in scores[()] if score >= 0.45]
    assert scores["-th", "0.46"] == [score for score in scores[()] if score >= 0.46]


def test_a_pattern_and_no_labels(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    for name, more in (("labels", ()), ("bare", ("--no-labels",))):
        done = run("inference.py", "-w", weights, "-i", str(pictures / "a.*.jpg"), "-o", name, *more)
        assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "bare").iterdir()) == ["a.v1.jpg", "a.v2.jpg"]
    one, other = (cv2.imread(str(tmp_path / name / "a.v2.jpg")) for name in ("labels", "bare"))
    assert not np.array_equal(one, other)


def test_imgsz_changes_what_the_network_sees(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    for name, more in (("own", ()), ("large", ("--imgsz", 128)), ("square", ("--imgsz", 128, "--square-img"))):
        done = run("inference.py", "-w", weights, "-i", pictures / "a.v2.jpg", "--table", "-o", name, *more)
        assert done.returncode == 0, done.stderr
    tables = {(tmp_path / name / "boxes.csv").read_text() for name in ("own", "large", "square")}
    assert len(tables) == 3


def test_a_predecessors_file_says_that_its_size_is_unknown(weights: Path, pictures: Path, run) -> None:
    checkpoint = torch.load(weights, weights_only=True)
    old = {key: checkpoint[key] for key in ("model_name", "model_state_dict", "data")}
    torch.save(old, weights)
    done = run("inference.py", "-w", weights, "-i", pictures / "a.v1.jpg")
    assert done.returncode == 0, done.stderr
    assert "does not store its training size" in done.stdout


def test_an_unreadable_image_is_named_and_the_others_are_done(
    weights: Path, pictures: Path, run, tmp_path: Path
) -> None:
    (pictures / "a.v1.jpg").write_bytes(b"broken")
    done = run("inference.py", "-w", weights, "-i", pictures, "-o", "out")
    assert done.returncode == 2
    assert "1 of 3 images could not be read: " in done.stderr
    assert "a.v1.jpg: cannot be read as an image" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.v2.jpg", "b [1] ü.PNG"]


def test_a_missing_input_track_and_other_mistakes_are_one_line(weights: Path, pictures: Path, run) -> None:
    """Faults of the predecessor: a missing input raised AttributeError; --track on images crashed."""
    (pictures / "empty").mkdir()
    (pictures / "file").touch()
    image = pictures / "a.v1.jpg"
    for arguments, message in (
        (("-i", pictures / "a.v3.jpg"), "no such file or folder; did you mean"),
        (("-i", pictures / "empty"), "no images in this folder"),
        (("-i", image, "--track"), "use inference_video.py --track"),
        (("-i", image, "--classes", 7), "--classes 7: no such class; the classes are 1 red, 2 green"),
        (("-i", image, "-o", pictures), "holds the input images"),
        (("-i", image, "-o", pictures / "file"), "file: a file of that name is in the way"),
        (("-i", image, "--show"), "--show needs a display"),
        (("-i", image, "--mpl-show"), "--mpl-show needs a display"),
        ((), "data_configs/test_image_config.yaml: no such file"),  # the default's, in this folder
    ):
        done = run("inference.py", "-w", weights, *arguments, DISPLAY="", WAYLAND_DISPLAY="")
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for model, message in (("fasterrcnn_nano", "no published COCO weights"), ("fasterrcnn_nana", "did you mean")):
        done = run("inference.py", "--model", model, "--input", image)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_names_of_another_yaml(weights: Path, pictures: Path, make_data, run, tmp_path: Path) -> None:
    data = make_data()
    data.rewrite(CLASSES=["__background__", "rot", "grün"])
    done = run("inference.py", "-w", weights, "-i", pictures, "--data", data.yaml, "--table", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert ",rot," in (tmp_path / "out/boxes.csv").read_text(encoding="utf-8")
    data.rewrite(CLASSES=["__background__", "rot"], NC=2)
    done = run("inference.py", "-w", weights, "-i", pictures, "--data", data.yaml)
    assert (done.returncode, "CLASSES has 2 entries, the model 3" in done.stderr) == (2, True)


def test_without_arguments_it_is_the_coco_model_on_the_example(tmp_path: Path) -> None:
    done = run_script(ROOT, "inference.py", TORCH_HOME=str(tmp_path))
    assert done.returncode == 2
    for part in ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "https://download.pytorch.org", "weights"):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("name", "file", "rule"),
    [
        pytest.param(
            "fasterrcnn_mobilenetv3_large_fpn",
            "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
            "800 px (longer side at most 1333)",
            marks=pytest.mark.full,
        ),
        (
            "fasterrcnn_mobilenetv3_large_320_fpn",
            "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
            "320 px (longer side at most 640)",
        ),
    ],
)
def test_coco_weights_from_the_hubs_cache_detect_cocos_classes_as_torchvision_does(
    pictures: Path, run, tmp_path: Path, name: str, file: str, rule: str
) -> None:
    """The file is one that we made: torchvision's own net with weights that find something."""
    from torchvision.models import detection

    torch.manual_seed(0)
    theirs = getattr(detection, name.replace("mobilenetv3", "mobilenet_v3"))(weights=None, weights_backbone=None)
    theirs.load_state_dict(create_model[name](91, pretrained=False).state_dict(), strict=False)
    with torch.no_grad():
        theirs.roi_heads.box_predictor.cls_score.bias[[1, 18]] = 6.0  # person, dog
        theirs.rpn.head.cls_logits.bias += 5  # above the model's own threshold of 0.05
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / file)

    image = pictures / "a.v2.jpg"
    done = run(
        "inference.py", "--model", name, "-i", image, "--log-json", "-o", "out", "-d", "cpu", TORCH_HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert rule in done.stderr + done.stdout
    found = json.loads((tmp_path / "out/log.json").read_text())
    names = {c["id"]: c["name"] for c in found["categories"]}
    assert {names[a["category_id"]] for a in found["annotations"]} <= {"person", "dog"}
    assert found["annotations"]

    rgb = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    with torch.inference_mode():
        (expected,) = theirs.eval()([torch.from_numpy(rgb).permute(2, 0, 1) / 255])
    ours = sorted(a["score"] for a in found["annotations"])
    kept = sorted(s for s in expected["scores"].tolist() if s >= 0.3)
    assert len(ours) == pytest.approx(len(kept), abs=2)  # images are resized in 8 bits here, in floats there
    assert ours[-1] == pytest.approx(kept[-1], abs=0.02)


def test_full_memory_names_the_image(
    weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TorchDetector, "detect", fail)
    argv = ["--weights", str(weights), "--input", str(pictures / "a.v2.jpg"), "--device", "cpu"]
    with pytest.raises(UserError, match=r"a\.v2\.jpg: the memory of the GPU is full .*: lower --imgsz"):
        inference.main(parse_options(InferenceOptions, "", argv))


def test_labels_crops_and_thresholds_of_classes_in_a_tree(weights: Path, pictures: Path, run, tmp_path: Path) -> None:
    """Auto-labeling: what is written can be trained on at once."""
    (pictures / "deep").mkdir()
    (pictures / "a.v1.jpg").rename(pictures / "deep/a.v1.jpg")
    done = run(
        "inference.py", "-w", weights, "-i", pictures, "-R", "-o", "out", "--save-yolo", "--save-voc", "--save-crops",
        "--class-thresholds", "green=1", "red=0.4", "--no-pictures", "--log-json", "--batch", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Score thresholds: red 0.400, green 1.000" in done.stdout
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["crops", "labels_voc", "labels_yolo", "log.json"]
    names = ["a.v2", "b [1] ü", "deep/a.v1"]
    for folder, suffix in (("labels_yolo", ".txt"), ("labels_voc", ".xml")):
        written = sorted(p for p in (out / folder).rglob("*") if p.is_file())
        assert [p.relative_to(out / folder).as_posix() for p in written] == [name + suffix for name in names]
    annotations = json.loads((out / "log.json").read_text(encoding="utf-8"))["annotations"]
    assert {a["category_id"] for a in annotations} == {1}
    assert min(a["score"] for a in annotations) >= 0.4
    assert [p.name for p in (out / "crops").iterdir()] == ["red"]
    assert len([p for p in (out / "crops").rglob("*") if p.is_file()]) == len(annotations)
    config = {"CLASSES": CLASSES, "TRAIN_DIR_IMAGES": str(pictures), "TRAIN_DIR_LABELS": str(out / "labels_yolo")}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(config))
    index = open_index(load_data_config(tmp_path / "new.yaml"), "train", "yolo")
    assert (len(index), len(index.boxes)) == (3, len(annotations))


def detect_in_here(weights: Path, pictures: Path, *words: str) -> None:
    argv = ["-w", str(weights), "-i", str(pictures), "-o", "out", "-d", "cpu", "--log-json", *words]
    inference.main(parse_options(InferenceOptions, "", argv))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_disk_that_is_full_leaves_what_was_done(
    weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fault: it was a traceback, and half a picture was left."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/a.v2.jpg").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        detect_in_here(weights, pictures)
    assert error.value.filename == str(Path("out/a.v2.jpg"))  # run_script makes one line of it
    logged = json.loads(Path("out/log.json").read_text(encoding="utf-8"))["images"]
    assert sorted([*(image["file_name"] for image in logged), "log.json"]) == sorted(
        p.name for p in Path("out").iterdir()
    )
    assert len(logged) in (1, 2)


def test_a_signal_leaves_the_tables_of_what_was_done(
    weights: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fault: SIGTERM, as of schedulers, left pictures without a table."""
    real = image_results.write_image

    def write(path: Path, rgb: np.ndarray) -> None:
        real(path, rgb)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_results, "write_image", write)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # which would end pytest
    try:
        with pytest.raises(Interrupted, match=r"stopped by SIGTERM\. \d of 3 images are in out") as stopped:
            detect_in_here(weights, pictures, "--table", "-b", "1")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    logged = json.loads(Path("out/log.json").read_text(encoding="utf-8"))["images"]
    pictures_there = {p.name for p in Path("out").iterdir()} - {"boxes.csv", "log.json"}
    assert {image["file_name"] for image in logged} == pictures_there
    assert logged
    assert Path("out/boxes.csv").is_file()


SIZES = ((1, 500), (500, 1), (1, 1), (4320, 7680), (1280, 720))


@pytest.mark.parametrize("size", full_among(SIZES, SIZES[1:]))
def test_images_of_odd_sizes(size: tuple[int, int], weights: Path, run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "odd.png"), np.full((*size, 3), 90, np.uint8))
    done = run("inference.py", "-w", weights, "-i", tmp_path / "odd.png", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "out/odd.png")).shape == (*size, 3)
