import csv
from pathlib import Path

from tests.utils.test_plots import ROW
from utils.training_log import TrainingLog

VALIDATION = {
    "val_loss": 2.5, "val_loss_classifier": 1.0, "val_loss_box_reg": 0.75, "val_loss_objectness": 0.5,
    "val_loss_rpn_box_reg": 0.25,
}  # fmt: skip


def test_results_have_their_columns_and_gaps_where_a_row_is_of_an_older_version(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, {}, first_epoch=0, wandb=False)
    log.write_epoch([ROW, {**ROW, **VALIDATION}, {**ROW, **VALIDATION, "train_map": 0.2, "train_map_05": 0.4}])
    log.close()
    head, *rows = csv.reader((tmp_path / "results.csv").open())
    assert head == [
        "epoch", "map", "map_05", "train loss", "train cls loss", "train box reg loss", "train obj loss",
        "train rpn loss", "val loss", "val cls loss", "val box reg loss", "val obj loss", "val rpn loss", "train map",
        "train map_05",
    ]  # fmt: skip
    old = ["0.1", "0.3", "2.0", "0.5", "0.5", "0.5", "0.5"]
    new = ["2.5", "1.0", "0.75", "0.5", "0.25"]
    assert rows == [["1", *old, *[""] * 7], ["2", *old, *new, "", ""], ["3", *old, *new, "0.2", "0.4"]]
