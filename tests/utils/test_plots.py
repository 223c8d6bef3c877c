from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.plots import plot_training

ROW = {
    "map": 0.1, "map_05": 0.3, "train_loss": 2.0, "loss_classifier": 0.5, "loss_box_reg": 0.5, "loss_objectness": 0.5,
    "loss_rpn_box_reg": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("epochs", [1, 3])
def test_all_files_are_pictures(tmp_path: Path, epochs: int) -> None:
    plot_training(tmp_path, [ROW] * epochs, np.linspace(2, 1, 7 * epochs))
    assert {p.name for p in tmp_path.iterdir()} == {
        "map.png", "train_loss_iter.png", "train_loss_epoch.png", "train_loss_cls.png", "train_loss_bbox_reg.png",
        "train_loss_obj.png", "train_loss_rpn_bbox.png",
    }  # fmt: skip
    for path in tmp_path.iterdir():
        assert cv2.imread(str(path)).std() > 5


def test_a_run_of_the_predecessor_has_gaps(tmp_path: Path) -> None:
    plot_training(tmp_path, [{"map": 0.1, "map_05": 0.2}, ROW, {**ROW, "map": float("nan")}], np.empty(0))
    assert (tmp_path / "map.png").is_file()
