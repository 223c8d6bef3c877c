"""The report of a run's best epoch, and that a resumed run ends with one."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.run_folders import CPU, make_run
from tests.support.scenes import scene_with_images
from torch_utils.checkpoint import load_checkpoint, save_checkpoint
from torch_utils.distributed import Processes
from torch_utils.evaluation.coco_eval import coco_metrics
from torch_utils.evaluation.detection_analysis import analyze_detections
from torch_utils.evaluation.result import Evaluation
from torch_utils.runs.epoch_report import REPORT_FILES, EpochReport, best_without_report
from torch_utils.runs.run import BEST
from torch_utils.training.training_state import LOSS_TERMS, TrainingState

ALONE = Processes(CPU)


@pytest.fixture
def found(tmp_path: Path) -> tuple:
    index, detections = scene_with_images(tmp_path)
    return index, Evaluation(coco_metrics(index, detections), detections)


def test_a_report_says_its_epoch_and_what_the_run_is(tmp_path: Path, found: tuple) -> None:
    index, evaluation = found
    report = EpochReport(tmp_path, index, {"model": "<m>"}, evaluation, 7)
    written = report.write()
    assert {p.name for p in tmp_path.iterdir()} >= set(REPORT_FILES)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["epoch"] == 7
    assert metrics["best_threshold"] == analyze_detections(index, evaluation.detections).threshold
    page = (tmp_path / "report.html").read_text()
    for words in (f"Best epoch of {tmp_path.name}", "&lt;m&gt;", "7, the best so far"):
        assert words in page
    assert set(written.pictures) == {
        "pr_curve", "f1_curve", "precision_curve", "recall_curve", "confusion_matrix", "worst_images",
    }  # fmt: skip
    assert written.pictures["f1_curve"] == (tmp_path / "f1_curve.png").read_bytes()
    assert written.numbers["best threshold/score"] == metrics["best_threshold"]
    assert written.numbers["AP/class 1"] == metrics["classes"][0]["ap"]


def epochs(*maps: float) -> TrainingState:
    state = TrainingState()
    for ap in maps:
        state = state.after(torch.ones(3, len(LOSS_TERMS)), ap, ap)
    return state


@pytest.mark.full
def test_only_the_best_epoch_has_a_report_and_its_checkpoint_the_thresholds(tmp_path: Path, found: tuple) -> None:
    index, evaluation = found
    run = make_run(tmp_path)
    reports = [EpochReport(tmp_path, index, {}, evaluation, epoch) for epoch in (1, 2, 3)]
    for report, maps in zip(reports, ((0.1,), (0.1, 0.2), (0.1, 0.2, 0.15)), strict=True):
        run.record(epochs(*maps), lambda: None, report)
    run.close()
    assert "analysis" not in vars(reports[2]), "nobody asked for it"
    best = load_checkpoint(tmp_path / BEST)
    analysis = analyze_detections(index, evaluation.detections)
    assert best["epoch"] == json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 2
    assert best["best_threshold"] == analysis.threshold
    assert list(best["class_thresholds"]) == list(analysis.classes)
    assert "best_threshold" not in load_checkpoint(tmp_path / "last_model.pth")


def best_model(folder: Path, epoch: int) -> nn.Module:
    model = nn.Linear(2, 2)
    save_checkpoint(
        folder / BEST,
        {"model_state_dict": model.state_dict(), "data": {}, "model_name": "m", "epoch": epoch, "best_map": 0.1},
    )
    return model


def test_a_report_of_another_epoch_than_the_best_is_made_again(tmp_path: Path) -> None:
    """A run that is killed at the best epoch has no report of it yet."""
    path = tmp_path / BEST
    assert best_without_report(path, nn.Linear(2, 2), ALONE) is None  # there is no best epoch
    model = best_model(tmp_path, 5)
    for content, lacks in (
        (None, True), ('{"epoch": 5}', False), ('{"epoch": 4}', True), ("[", True), ("[]", True), ("{}", True),
    ):  # fmt: skip
        (tmp_path / "report.html").touch()
        if content is not None:
            (tmp_path / "metrics.json").write_text(content)
        best = best_without_report(path, model, ALONE)
        assert (best is not None) == lacks, content
        assert not lacks or best["epoch"] == 5
    (tmp_path / "metrics.json").write_text('{"epoch": 5}')
    (tmp_path / "report.html").unlink()
    assert best_without_report(path, model, ALONE) is not None


def test_a_best_model_that_is_of_no_use_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best_model(tmp_path, 5)
    assert best_without_report(tmp_path / BEST, nn.Linear(3, 2), ALONE) is None
    assert "has another model than this run" in caplog.text
    (tmp_path / BEST).write_bytes(b"damaged")
    assert best_without_report(tmp_path / BEST, nn.Linear(2, 2), ALONE) is None
    assert "not a PyTorch checkpoint" in caplog.text
