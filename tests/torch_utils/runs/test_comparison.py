"""Runs side by side."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.run_folders import write_run
from torch_utils.runs.comparison import Comparison, compare_runs
from torch_utils.runs.run_history import read_run


def two_runs(folder: Path) -> Comparison:
    write_run(
        folder / "a", opt_yaml="lr: 0.1\nmodel: m\nname: a\nnew: 1\n",
        metrics_json='{"best_threshold": 0.6, "at_best_threshold": {"f1": 0.5}}',
        train_log="Epoch: [0] Total time: 0:00:15\n",
    )  # fmt: skip
    write_run(
        folder / "b", "1,0.1,0.2,2,1,1,1,1\n2,0.2,0.9,1.25,1,1,1,1\n3,0.15,0.2,1,1,1,1,1\n",
        opt_yaml="lr: 0.2\nmodel: m\nname: b\n",
    )  # fmt: skip
    return compare_runs({str(folder / name): read_run(folder / name) for name in "ab"})


def cells(comparison: Comparison) -> dict[str, tuple]:
    return {row.name: row.cells for row in (*comparison.results, *comparison.options)}


def test_numbers_and_options_that_differ(tmp_path: Path) -> None:
    comparison = two_runs(tmp_path)
    said = cells(comparison)
    assert said["epochs"] == ("2", "3")
    assert said["best epoch"] == ("2", "2")
    assert said["mAP, IoU 0.50:0.95"] == ("0.3000", "0.2000")
    assert said["mAP, IoU 0.50"] == ("0.4000", "0.9000")  # of the best epoch
    assert said["last mAP, IoU 0.50:0.95"] == ("0.3000", "0.1500")
    assert said["last training loss"] == ("1.0000", "1.0000")
    assert said["training time per epoch, s"] == ("15", None)
    assert said["best threshold"] == ("0.6000", None)
    assert {row.name: row.cells for row in comparison.options} == {"lr": ("0.1", "0.2")}
    best = {row.name: set(row.best) for row in comparison.results if row.best}
    assert best == {"mAP, IoU 0.50:0.95": {0}, "mAP, IoU 0.50": {1}}


def test_the_text_is_a_table(tmp_path: Path) -> None:
    lines = two_runs(tmp_path).lines()
    assert lines[1].split() == ["a", "b"]
    assert re.search(r"^mAP, IoU 0.50:0.95 +0\.3000 \* +0\.2000$", "\n".join(lines), re.MULTILINE)
    assert re.search(r"^training time per epoch, s +15 +-$", "\n".join(lines), re.MULTILINE)
    assert re.search(r"^lr +0\.1 +0\.2$", "\n".join(lines), re.MULTILINE)


def test_what_only_newer_runs_measure(tmp_path: Path) -> None:
    head = "epoch,map,map_05,train loss,val loss,train map\n"
    (write_run(tmp_path / "a") / "results.csv").write_text(f"{head}1,0.1,0.2,2,3,0.4\n2,0.2,0.3,1,2.5,0.6\n")
    write_run(tmp_path / "b")
    comparison = compare_runs({name: read_run(tmp_path / name) for name in "ab"})
    assert cells(comparison)["last validation loss"] == ("2.5000", None)
    assert {"compare_val_loss.png", "compare_train_map.png"} <= set(comparison.plots())


def test_one_run_without_any_number(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "1,nan,nan,nan,,,,\n")
    comparison = compare_runs({"a": read_run(tmp_path / "a")})
    assert cells(comparison)["best epoch"] == (None,)
    assert comparison.plots() == {}
    assert "Comparison of 1 run" in comparison.page({})


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / parent / "res_1") for parent in "ab"] + [write_run(tmp_path / "c" / "res_2")]
    comparison = compare_runs({str(path): read_run(path) for path in paths})
    assert comparison.names == [str(paths[0]), str(paths[1]), "res_2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["res_1", "res_2"], ["res_1", "res_2"]),
        (["fasterrcnn_resnet50_lr_1", "fasterrcnn_resnet50_lr_12"], ["…1", "…12"]),
        (["fasterrcnn_resnet50", "fasterrcnn_nano"], ["…resnet50", "…nano"]),
        (["fasterrcnn_resnet50_fpn"], ["fasterrcnn_resnet50_fpn"]),
    ],
)
def test_names_are_short_where_they_differ_at_the_end(names: list[str], expected: list[str]) -> None:
    """A legend cuts long names, which then were all the same."""
    assert Comparison([], names).short_names == expected


def test_curves_are_pictures_whatever_the_names_and_numbers(tmp_path: Path) -> None:
    """Matplotlib reads $...$ as a formula; a value of 1e308 is beyond its axes."""
    runs = {}
    for number in range(12):
        path = write_run(tmp_path / f"$a^{{$ <b>{number}", f"1,0.{number},0.5,1e308,,,,\n2,0.5,0.5,{number},,,,\n")
        runs[str(path)] = read_run(path)
    comparison = compare_runs(runs)
    plots = comparison.plots()
    assert list(plots) == ["compare_map.png", "compare_map_05.png", "compare_train_loss.png"]
    for data in plots.values():
        assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).std() > 5
    page = comparison.page(plots)
    assert "<b>0" not in page
    assert "&lt;b&gt;0" in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert len(re.findall("data:image/png", page)) == 3


def test_metrics_of_strangers_are_not_trusted(tmp_path: Path) -> None:
    for number, content in enumerate(
        ('{"best_threshold": "x"}', '{"best_threshold": true}', '{"at_best_threshold": 1}')
    ):
        run = read_run(write_run(tmp_path / str(number), metrics_json=content))
        said = cells(compare_runs({"a": run}))
        assert (said["best threshold"], said["F1 at best threshold"]) == ((None,), (None,))
