"""Reading of a training run's folder: results.csv, options, metrics, epoch times.

Folders of earlier versions and of other people are read too, so every value is checked.
"""

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
_REQUIRED_COLUMNS = ("epoch", "map", "map_05", "train loss")  # of results.csv
_MAX_BYTES = 1 << 24  # of a file; results.csv has 150 bytes per epoch
_MAX_EPOCHS = 100_000
_MAX_NUMBER = 1e12  # larger numbers are read as NaN
_EPOCH_TIME = re.compile(r"^Epoch: \[\d+\] Total time: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)\b", re.MULTILINE)


@dataclass(frozen=True)
class RunHistory:
    """History of a run with N epochs."""

    name: str  # of its folder
    epochs: np.ndarray  # (N,) int64, as numbered in results.csv
    columns: Mapping[str, np.ndarray]  # history key, such as "map" -> (N,) float64, NaN if missing
    options: Mapping[str, Any]  # of train.py, by name; empty if unknown
    metrics: Mapping[str, Any]  # content of metrics.json, of the best epoch; empty if missing
    epoch_seconds: float | None  # median training time per epoch; None if unknown

    @property
    def best(self) -> int | None:
        """Row of the best mAP; None if no epoch has one."""
        maps = self.columns["map"]
        return None if np.isnan(maps).all() else int(np.nanargmax(maps))


def read_run(folder: Path) -> RunHistory:
    """Read results.csv, and opt.yaml, metrics.json and train.log if they exist.

    Raises:
        DataError: results.csv is missing, or a file is damaged or too large.
    """
    path = folder / RESULTS
    if not path.is_file():
        problem = "has no results.csv" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {problem}: expected the folder of a run, such as outputs/training/res_1")
    epochs, columns = _results(path)
    metrics = _metrics(folder / _METRICS) if (folder / _METRICS).is_file() else {}
    options = _options(folder / OPTIONS) if (folder / OPTIONS).is_file() else {}
    seconds = _epoch_seconds(folder / _LOG) if (folder / _LOG).is_file() else None
    return RunHistory(folder.resolve().name, epochs, columns, options, metrics, seconds)


def _results(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        head = [name.strip() for name in next(rows, [])]
        missing = [name for name in _REQUIRED_COLUMNS if name not in head]
        if missing:
            raise DataError(f"{path}: has no column {', '.join(missing)}: expected the results.csv of a run")
        values = [[_number(path, rows.line_num, head, row, k) for k in range(len(head))] for row in rows if row]
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not CSV ({error})") from None
    if not 0 < len(values) <= _MAX_EPOCHS:
        raise DataError(f"{path}: has {len(values):,} epochs, expected 1 to {_MAX_EPOCHS:,}")
    table = dict(zip(head, np.array(values).T, strict=True))
    if not (np.abs(table["epoch"]) < _MAX_NUMBER).all():
        raise DataError(f"{path}: the number of an epoch is missing or too large")
    missing_column = np.full(len(values), np.nan)
    return table["epoch"].astype(np.int64), {key: table.get(name, missing_column) for name, key in COLUMNS.items()}


def _number(path: Path, line: int, head: list[str], row: list[str], k: int) -> float:
    if len(row) != len(head):
        raise DataError(f"{path}:{line}: has {len(row)} values, expected {len(head)} as in the first line")
    try:
        value = float(row[k] or "nan")
    except ValueError:
        raise DataError(f"{path}:{line}: {head[k]} is {reprlib.repr(row[k])}, expected a number") from None
    return value if abs(value) < _MAX_NUMBER else np.nan


def _options(path: Path) -> dict[str, Any]:
    content = parse_yaml(read_yaml(path, "a run's options"), path).content
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected the options of a run, one per line")
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
        text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    times = [[int(part or 0) for part in match.groups()] for match in _EPOCH_TIME.finditer(text)]
    return statistics.median(((d * 24 + h) * 60 + m) * 60 + s for d, h, m, s in times) if times else None


def _text(path: Path) -> str:
    try:
        size = file_size(path)
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size:,} bytes is too large: is this the right file?")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
