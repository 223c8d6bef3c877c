from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.run_folders import ROW
from utils.visualize.plots import plot_training


@pytest.mark.parametrize("epochs", [1, 3])
def test_all_files_are_pictures(tmp_path: Path, epochs: int) -> None:
    plot_training(tmp_path, [ROW] * epochs, np.linspace(2, 1, 7 * epochs))
    assert {p.name for p in tmp_path.iterdir()} == {
        "map.png", "train_loss_iter.png", "train_loss_epoch.png", "train_loss_cls.png", "train_loss_bbox_reg.png",
        "train_loss_obj.png", "train_loss_rpn_bbox.png",
    }  # fmt: skip
    for path in tmp_path.iterdir():
        assert cv2.imread(str(path)).std() > 5


def test_validation_is_drawn_beside_training_where_it_was_measured(tmp_path: Path) -> None:
    terms = ("loss", *(key for key in ROW if key.startswith("loss_")))
    validation = {f"val_{key}": 0.7 for key in terms}
    for folder, more in (("before", {}), ("now", {**validation, "train_map": 0.2, "train_map_05": 0.5})):
        (tmp_path / folder).mkdir()
        plot_training(tmp_path / folder, [ROW, {**ROW, **more}, {**ROW, **more}], np.empty(0))
    for path in (tmp_path / "now").iterdir():
        same = np.array_equal(cv2.imread(str(path)), cv2.imread(str(tmp_path / "before" / path.name)))
        assert same == (path.name == "train_loss_iter.png"), path.name


def test_a_run_of_the_predecessor_has_gaps(tmp_path: Path) -> None:
    plot_training(tmp_path, [{"map": 0.1, "map_05": 0.2}, ROW, {**ROW, "map": float("nan")}], np.empty(0))
    assert (tmp_path / "map.png").is_file()
