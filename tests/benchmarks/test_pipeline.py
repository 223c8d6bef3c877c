import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from benchmarks import pipeline
from benchmarks.common.table import Cell, interleaved, print_rows
from benchmarks.detector import CLASSES, unsure_model
from benchmarks.pipeline import MAX_WAITING, Training, VideoDetection, cells_of, parse, row_of
from tests.conftest import DataSet
from tests.support.videos import pictures, write_video
from torch_utils.training.precision import Precision
from utils.errors import UserError
from utils.labels.data_config import load_data_config

CPU = torch.device("cpu")
SIZE = 64  # px
TINY = ("--models", "fasterrcnn_nano", "--size", SIZE, "--batch", 2, "--images", 6, "--workers", 1, "--device", "cpu")
ROW = re.compile(
    r"\| fasterrcnn_nano \| 64x64 \| 2 \| fp32 \| (\w+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| \**[\d.]+ %\** \|"
)


def set_options(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline.py", *map(str, words)])


@pytest.fixture
def training(make_data: Callable[..., DataSet]) -> Iterator[Training]:
    config = load_data_config(make_data(images=4).yaml)
    torch.manual_seed(0)
    model = unsure_model("fasterrcnn_nano", len(config.classes), min_size=SIZE, max_size=SIZE)
    wanted = {"size": SIZE, "batch": 2, "workers": 0, "precision": Precision(CPU), "lr": 0.01, "images": 10}
    with closing(Training(model, config, **wanted)) as made:
        yield made


@pytest.mark.full
def test_files_to_steps_and_boxes(make_data, tmp_path, monkeypatch, capsys) -> None:
    video = write_video(tmp_path / "video.mp4", pictures(4))
    set_options(monkeypatch, "--data", make_data(images=4).yaml, "--video", video, "--seconds", 600, *TINY)
    monkeypatch.setattr(pipeline, "interleaved", lambda steps, device, _: interleaved(steps, device, 0.0))
    pipeline.main()
    printed = capsys.readouterr().out
    rows = ROW.findall(printed)
    assert [work for work, *_ in rows] == ["train", "detect"]
    assert all(float(rate) > 0 for _, *rates in rows for rate in rates)
    assert "Without" not in printed


@pytest.mark.parametrize(("given", "works"), [("--data", ["train"]), ("--video", ["detect"])])
def test_what_is_not_given_is_not_measured(given: str, works: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_options(monkeypatch, given, "somewhere", *TINY)
    assert [cell.work for cell in cells_of(parse())] == works


def test_nothing_to_measure_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    set_options(monkeypatch, *TINY)
    with pytest.raises(SystemExit, match="2"):
        pipeline.main()
    assert "give --data, --video or both" in capsys.readouterr().err


def test_models_are_measured_in_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    set_options(monkeypatch, "--data", "somewhere", "--device", "cuda")
    found = [(cell.model, cell.precision) for cell in cells_of(parse())]
    assert found == [("fasterrcnn_mini_darknet_nano_head", "fp32"), ("fasterrcnn_resnet50_fpn", "bf16")]
    set_options(monkeypatch, "--data", "somewhere", "--device", "cpu", "--precision", "fp32", "bf16")
    assert [cell.precision for cell in cells_of(parse())] == ["fp32", "bf16"]


def test_rows_without_time_are_counted(capsys: pytest.CaptureFixture) -> None:
    cells = [Cell(name, "64x64", 2, "fp32", "train") for name in "abc"]
    end = time.perf_counter() + 0.02
    print_rows(cells, lambda cell, seconds: time.sleep(0.03) or f"{cell} | 1 |", CPU, end=end)
    assert capsys.readouterr().out == (
        "| a | 64x64 | 2 | fp32 | train | 1 |\n\nNo time for the last 2 of 3 rows: --seconds\n"
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nmore"), UserError("too large")])
def test_a_row_that_fails_leaves_the_others(capsys: pytest.CaptureFixture, error: Exception) -> None:
    def row(cell: Cell, seconds: float) -> str:
        if cell.model == "a":
            raise error
        return f"{cell} | 1 |"

    cells = [Cell(name, "64x64", 2, "fp32", "train") for name in "ab"]
    print_rows(cells, row, CPU, end=time.perf_counter() + 9)
    assert capsys.readouterr().out == (
        f"| a | 64x64 | 2 | fp32 | train | {type(error).__name__}: {str(error).splitlines()[0]} |\n"
        "| b | 64x64 | 2 | fp32 | train | 1 |\n"
    )


class Half:
    """Ours waits for data for a share of its 4 ms, and in the first pass for 100 s."""

    def __init__(self, share: float) -> None:
        self.images, self.data_wait_seconds, self.calls, self.share = 8, 0.0, [], share

    def stock(self) -> None:
        self.calls.append("stock")
        time.sleep(0.008)

    def ours(self) -> None:
        self.calls.append("ours")
        started = time.perf_counter()
        time.sleep(0.004)
        self.data_wait_seconds += (time.perf_counter() - started) * self.share if len(self.calls) > 2 else 100

    def close(self) -> None:
        self.calls.append("closed")


@pytest.mark.parametrize("share", [MAX_WAITING / 2, MAX_WAITING * 2])
def test_waiting_is_marked_where_it_is_too_much(share: float) -> None:
    workload = Half(share)
    row = row_of(Cell("some", "64x64", 2, "fp32", "train"), 0.0, make=lambda cell: workload, device=CPU)
    *_, waits = row.strip("| ").split(" | ")
    assert float(waits.strip("* %")) == pytest.approx(100 * share, abs=1)
    assert waits.startswith("**") == (share > MAX_WAITING)
    assert workload.calls == ["stock", "ours"] * 2 + ["closed"]


@pytest.mark.full
def test_both_ways_train_on_the_same_images(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten samples of four images: each at least twice. Stock sees the same sizes, and trains its own weights."""
    seen: dict[str, list[int]] = {"stock": [], "ours": []}
    sizes = set()
    twin, model = training.stock_model, training.model
    to_batch = twin.transform.batch_images

    def batch_images(images: list[torch.Tensor], size_divisible: int) -> torch.Tensor:
        sizes.update(image.shape for image in images)
        return to_batch(images, size_divisible)

    monkeypatch.setattr(twin.transform, "batch_images", batch_images)
    twin.register_forward_pre_hook(lambda _, given: seen["stock"].extend(int(t["image_id"]) for t in given[1]))
    model.register_forward_pre_hook(lambda _, given: seen["ours"].extend(given[0].image_ids.tolist()))
    before = [p.clone() for p in model.parameters()]
    assert all(map(torch.equal, twin.parameters(), before))
    training.stock()
    assert all(map(torch.equal, model.parameters(), before))
    assert not all(map(torch.equal, twin.parameters(), before))
    training.ours()
    assert not all(map(torch.equal, model.parameters(), before))
    for numbers in seen.values():
        assert len(numbers) == training.images == 10
        assert {numbers.count(i) for i in range(4)} <= {2, 3}
    assert sizes == {(3, SIZE, SIZE)}
    assert training.data_wait_seconds > 0


def test_a_video_is_detected_in_the_precision_asked_for(tmp_path: Path) -> None:
    """Autocast is a setting of each thread, and applies to every frame of both."""
    video = write_video(tmp_path / "video.mp4", pictures(5))
    model = unsure_model("fasterrcnn_nano", CLASSES, min_size=SIZE, max_size=SIZE)
    watching = VideoDetection(model, video, size=SIZE, batch=2, precision=Precision(CPU, torch.bfloat16))
    seen: list[tuple[int, bool]] = []
    model.backbone.register_forward_pre_hook(
        lambda _, given: seen.append((len(given[0]), torch.is_autocast_enabled("cpu")))
    )
    watching.stock()
    assert seen == [(1, True)] * 5
    seen.clear()
    watching.ours()
    assert seen == [(2, True), (2, True), (1, True)]
    assert watching.images == 5
    assert watching.data_wait_seconds > 0
