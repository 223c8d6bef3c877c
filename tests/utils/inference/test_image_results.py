import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import squares
from utils.cli.options import VOC, YOLO, ResultKinds
from utils.detect.detections import Detections
from utils.errors import UserError
from utils.inference.image_results import ImageResults
from utils.labels.readers import READERS

NAMES = ("__background__", "red", "../green")


def found() -> Detections:
    boxes = np.array([[1.5, 2.5, 20.25, 30.5], [40, 8, 90, 60], [5, 5, 5, 9]], np.float32)
    return Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([1, 2, 1]))


def write(folder: Path, kinds: ResultKinds, names: tuple[str, ...] = ("a.jpg", "deep/b.png")) -> ImageResults:
    results = ImageResults(folder, kinds, NAMES, names)
    image, _, _ = squares(np.random.default_rng(0), 60, 90, 2)
    for name in reversed(names):
        results.write(name, image, found())
    results.close()
    return results


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_pictures_alone_keep_the_tree(tmp_path: Path) -> None:
    assert write(tmp_path, ResultKinds()).counts == (2, 6)
    assert files(tmp_path) == ["a.jpg", "deep/b.png"]


def test_nothing_but_what_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, ResultKinds(pictures=False, json=True))
    assert files(tmp_path) == ["log.json"]


def test_tables_have_the_images_in_their_order(tmp_path: Path) -> None:
    """They are written in whatever order threads finish."""
    write(tmp_path, ResultKinds(table=True, json=True))
    images = json.loads((tmp_path / "log.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.jpg", "deep/b.png"]


@pytest.mark.parametrize(("form", "suffix"), [(YOLO, ".txt"), (VOC, ".xml")])
def test_labels_are_read_back(tmp_path: Path, form: str, suffix: str) -> None:
    write(tmp_path, ResultKinds(pictures=False, labels=(form,)))
    (folder,) = tmp_path.iterdir()
    assert files(folder) == [f"a{suffix}", f"deep/b{suffix}"]
    numbers = {name: number for number, name in enumerate(NAMES)}
    read = READERS[form].read(folder / f"deep/b{suffix}", (60, 90), numbers)
    np.testing.assert_allclose(read.boxes, found().boxes[:2], atol=1e-4)  # the third has no area
    assert (read.labels, read.notes) == ([1, 2], [])


def test_crops_are_cut_at_their_boxes_and_stay_in_the_folder(tmp_path: Path) -> None:
    """Names of classes come from checkpoints of strangers; a box without area has no picture."""
    write(tmp_path / "out", ResultKinds(pictures=False, crops=True))
    assert files(tmp_path) == [
        "out/crops/__green/a_2.jpg", "out/crops/__green/deep/b_2.png",
        "out/crops/red/a_1.jpg", "out/crops/red/deep/b_1.png",
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / "out/crops/red/a_1.jpg")).shape == (29, 20, 3)


def test_labels_of_one_name_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a\.jpg and A\.png would have label files of the same name: rename one of them"
    ):
        ImageResults(tmp_path, ResultKinds(labels=(YOLO,)), NAMES, ("a.jpg", "A.png"))
