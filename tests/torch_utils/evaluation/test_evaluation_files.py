"""Files of write_evaluation, for any class name, number of classes and thread."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.conftest import full_among
from tests.support.scenes import NOTHING, detections_of, index_of, one_box, scene_with_images, with_pictures
from torch_utils.evaluation.coco_eval import coco_metrics
from torch_utils.evaluation.detection_analysis import analyze_detections
from torch_utils.evaluation.evaluation_files import ground_truth_file, write_coco_results, write_evaluation
from utils.detect.detections import Detections

FILES = {
    "metrics.json", "report.html", "worst_images.jpg", "pr_curve.png", "f1_curve.png", "precision_curve.png",
    "recall_curve.png", "confusion_matrix.png",
}  # fmt: skip


@pytest.mark.parametrize("classes", full_among([1, 3, 80], {1, 80}))
def test_all_files_are_there(tmp_path: Path, classes: int) -> None:
    index, detections = scene_with_images(tmp_path, classes)
    (tmp_path / "out").mkdir()
    metrics = coco_metrics(index, detections)
    analysis = write_evaluation(tmp_path / "out", index, detections, metrics, numbers={"more": 1})
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    for path in (tmp_path / "out").glob("*.[jp][pn]g"):
        assert cv2.imread(str(path)).std() > 5, path
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert list(written["stats"].values()) == list(metrics.stats)
    assert written["best_threshold"] == analysis.threshold
    assert written["more"] == 1
    assert np.array(written["confusion_matrix"]["rows_truth_columns_found"]).shape == (classes + 1,) * 2


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    index, detections = scene_with_images(tmp_path)
    write_evaluation(tmp_path, index, detections, coco_metrics(index, detections), title="<T>", info={"model": "<m>"})
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "default-src 'none'" in page
    assert "&lt;T&gt;" in page
    assert "&lt;m&gt;" in page
    for words in (
        "COCO metrics",
        "class 1",
        "precision over recall",
        "confusion matrix",
        "poor localization",
        "Worst images",
    ):
        assert words in page
    assert len(re.findall("data:image/jpeg", page)) == len(analyze_detections(index, detections).worst)


def test_names_from_files_do_no_harm(tmp_path: Path) -> None:
    """Matplotlib reads $...$ as a formula and hides what begins with "_"; HTML reads markup."""
    names = ("__background__", "$a^{$", "<b>bold", "_under " + "long " * 30)
    index = replace(with_pictures(tmp_path / "images", one_box(), ["$x_{<i>.jpg"]), classes=names)
    detections = {0: replace(detections_of((100, 100, 160, 160))[0], labels=np.array([3]))}  # a missed "$a^{$"
    write_evaluation(tmp_path, index, detections, coco_metrics(index, detections))
    page = (tmp_path / "report.html").read_text()
    assert "<b>bold" not in page
    assert "<i>" not in page
    assert "$x_{&lt;i&gt;.jpg: 1 missed, 1 background" in page


@pytest.mark.parametrize("detections", [detections_of((10, 10, 60, 60)), {0: NOTHING}])
def test_perfect_and_empty_results(tmp_path: Path, detections: dict[int, Detections]) -> None:
    index = with_pictures(tmp_path / "images", one_box())
    (tmp_path / "worst_images.jpg").write_bytes(b"of an earlier epoch")
    write_evaluation(tmp_path, index, detections, coco_metrics(index, detections))
    is_perfect = len(detections[0]) == 1
    assert (tmp_path / "worst_images.jpg").exists() != is_perfect
    assert ("No image has an error" in (tmp_path / "report.html").read_text()) == is_perfect


def test_no_ground_truth_at_all(tmp_path: Path) -> None:
    index = with_pictures(tmp_path / "images", index_of([(np.empty((0, 4)), np.empty(0), np.empty(0))]))
    detections = detections_of((1, 1, 99, 99))
    write_evaluation(tmp_path, index, detections, coco_metrics(index, detections))
    assert {p.name for p in tmp_path.iterdir()} >= FILES
    assert json.loads((tmp_path / "metrics.json").read_text())["at_best_threshold"]["f1"] is None


@pytest.mark.full
def test_two_threads_at_once_and_no_pyplot(tmp_path: Path) -> None:
    index, detections = scene_with_images(tmp_path)
    folders = [tmp_path / "a", tmp_path / "b"]
    metrics, start = coco_metrics(index, detections), threading.Barrier(2)

    def write(folder: Path) -> None:
        folder.mkdir()
        start.wait()
        write_evaluation(folder, index, detections, metrics)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, folders))
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    sources = (Path(__file__).parents[3] / "torch_utils" / "evaluation").glob("eval_*.py")
    assert not any("pyplot" in path.read_text().replace("Not pyplot", "") for path in sources)


def test_results_file_of_images_that_could_not_be_decoded(tmp_path: Path) -> None:
    box, label, seen = np.array([[10.5, 10, 60.25, 60]]), np.array([1]), np.array([False])
    index = index_of([(box, label, seen), (box, label, seen)])
    path = tmp_path / "found.json"
    write_coco_results(path, index, {1: detections_of((10.5, 10, 60.25, 60))[0]})
    assert json.loads(path.read_text()) == [
        {"image_id": 2, "category_id": 1, "bbox": [10.5, 10.0, 49.75, 50.0], "score": pytest.approx(0.9)}
    ]
    truth = COCO(ground_truth_file(path))
    assert [a["image_id"] for a in truth.loadAnns(truth.getAnnIds())] == [2]
    assert ground_truth_file(path).name == "found_truth.json"
    assert sorted(truth.imgs) == [1, 2]
