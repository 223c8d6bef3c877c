"""What a training run left in its folder, read again; runs of the predecessor too, and other people's."""

import csv
import io
import json
import re
import reprlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torch_utils.runs.training_log import COLUMNS, OPTIONS, RESULTS
from utils.errors import DataError
from utils.files import file_size
from utils.safe_yaml import parse_yaml, read_yaml

_METRICS, _LOG = "metrics.json", "train.log"
_NEEDED = ("epoch", "map", "map_05", "train loss")  # columns of results.csv
_MOST_BYTES = 1 << 24  # of a file; results.csv has 150 bytes an epoch
_MOST_EPOCHS = 100_000
_LARGEST = 1e12  # of a number; what is larger is taken for infinite
_EPOCH_TIME = re.compile(r"^Epoch: \[\d+\] Total time: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)\b", re.MULTILINE)


@dataclass(frozen=True)
class RunHistory:
    """N epochs of a run."""

    name: str  # of its folder
    epochs: np.ndarray  # (N,) int64, as results.csv numbers them
    columns: Mapping[str, np.ndarray]  # history key, as "map" -> (N,) float64, NaN where there is no number
    options: Mapping[str, Any]  # of train.py, by name; empty where it is not known
    metrics: Mapping[str, Any]  # of the best epoch, the content of metrics.json; empty where there is none
    epoch_seconds: float | None  # of the training in an epoch, the median; None where it is not known

    @property
    def best(self) -> int | None:
        """The row of the best mAP; None where no epoch has one."""
        maps = self.columns["map"]
        return None if np.isnan(maps).all() else int(np.nanargmax(maps))


def read_run(folder: Path) -> RunHistory:
    """Read results.csv, and opt.yaml, metrics.json and train.log where they are there.

    Raises:
        DataError: there is no results.csv, or a file is damaged or too large.
    """
    path = folder / RESULTS
    if not path.is_file():
        what = "has no results.csv: expected the folder of a run" if folder.is_dir() else "there is no such folder"
        raise DataError(f"{folder}: {what}, as outputs/training/res_1")
    epochs, columns = _results(path)
    metrics = _metrics(folder / _METRICS) if (folder / _METRICS).is_file() else {}
    options = _options(folder / OPTIONS) if (folder / OPTIONS).is_file() else {}
    seconds = _epoch_seconds(folder / _LOG) if (folder / _LOG).is_file() else None
    return RunHistory(folder.resolve().name, epochs, columns, options, metrics, seconds)


def _results(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        head = [name.strip() for name in next(rows, [])]
        lacking = [name for name in _NEEDED if name not in head]
        if lacking:
            raise DataError(f"{path}: lacks the column {', '.join(lacking)}: expected the results.csv of a run")
        values = [[_number(path, rows.line_num, head, row, k) for k in range(len(head))] for row in rows if row]
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not CSV ({error})") from None
    if not 0 < len(values) <= _MOST_EPOCHS:
        raise DataError(f"{path}: has {len(values):,} epochs, expected 1 to {_MOST_EPOCHS:,}")
    table = dict(zip(head, np.array(values).T, strict=True))
    if not (np.abs(table["epoch"]) < _LARGEST).all():
        raise DataError(f"{path}: an epoch has no number")
    nothing = np.full(len(values), np.nan)
    return table["epoch"].astype(np.int64), {key: table.get(name, nothing) for name, key in COLUMNS.items()}


def _number(path: Path, line: int, head: list[str], row: list[str], k: int) -> float:
    if len(row) != len(head):
        raise DataError(f"{path}:{line}: has {len(row)} values, expected {len(head)} as in the first line")
    try:
        value = float(row[k] or "nan")
    except ValueError:
        raise DataError(f"{path}:{line}: {head[k]} is {reprlib.repr(row[k])}, expected a number") from None
    return value if abs(value) < _LARGEST else np.nan


def _options(path: Path) -> dict[str, Any]:
    content = parse_yaml(read_yaml(path, "a run's options"), path).content
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected the options of a run, one a line")
    return {str(name): value for name, value in content.items()}


def _metrics(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({str(error)[:80]})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected the metrics of an evaluation, a JSON object")
    return content


def _epoch_seconds(path: Path) -> float | None:
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    times = [[int(part or 0) for part in match.groups()] for match in _EPOCH_TIME.finditer(text)]
    return statistics.median(((d * 24 + h) * 60 + m) * 60 + s for d, h, m, s in times) if times else None


def _text(path: Path) -> str:
    try:
        size = file_size(path)
        if size > _MOST_BYTES:
            raise DataError(f"{path}: {size:,} bytes is too large: is this the right file?")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
