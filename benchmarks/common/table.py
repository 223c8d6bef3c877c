"""Shared parts of benchmarks: timing in turns, and a Markdown table printed row by row within a time limit."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torchvision

from utils.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Step = Callable[[], object]


@dataclass(frozen=True)
class Cell:
    """Model, input and work of one row."""

    model: str
    size: str
    batch: int
    precision: str
    work: str

    def __str__(self) -> str:
        return f"| {self.model} | {self.size} | {self.batch} | {self.precision} | {self.work}"


Kind = TypeVar("Kind", bound=Cell)


def seconds_of(step: Step, device: torch.device) -> float:
    """Wall-clock time of one call, including the device work that it queued."""
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def interleaved(steps: Mapping[str, Step], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each call; steps are called in turns until the time is over, at least once each."""
    times: dict[str, list[float]] = {way: [] for way in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not min(map(len, times.values())):
        for way, step in steps.items():
            times[way].append(seconds_of(step, device))
    return times


def heading(device: torch.device) -> str:
    """Device, versions and date."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return f"{name}; torch {torch.__version__}, torchvision {torchvision.__version__}, {time.strftime('%Y-%m-%d')}"


def fill_in(options: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Set options that are None to the values of `defaults`."""
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def print_rows(
    cells: Sequence[Kind], row_of: Callable[[Kind, float], str], device: torch.device, *, end: float
) -> None:
    """Print each row as soon as it is measured, and the number of rows skipped for lack of time.

    Args:
        row_of: measures a cell for a number of seconds and formats its row.
        end: time limit, on the clock of time.perf_counter.
    """
    for number, cell in enumerate(cells):
        left = end - time.perf_counter()
        if left < 0:
            print(f"\nNo time for the last {len(cells) - number} of {len(cells)} rows: --seconds")
            return
        try:
            print(row_of(cell, left / (len(cells) - number) / 2), flush=True)
        except (RuntimeError, UserError) as error:  # for example too little memory; other rows may work
            print(f"{cell} | {type(error).__name__}: {str(error).splitlines()[0]} |", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
