"""What comparisons of stock and ours share: both in turns, and a Markdown table, row by row until the time is over."""

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
    """What one row measures."""

    model: str
    size: str
    batch: int
    precision: str
    work: str

    def __str__(self) -> str:
        return f"| {self.model} | {self.size} | {self.batch} | {self.precision} | {self.work}"


Kind = TypeVar("Kind", bound=Cell)


def seconds_of(step: Step, device: torch.device) -> float:
    """Wall-clock time of one call, and what it left for the device to do."""
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def interleaved(steps: Mapping[str, Step], device: torch.device, seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, in turns until the time is over, at least one of each."""
    times: dict[str, list[float]] = {way: [] for way in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not min(map(len, times.values())):
        for way, step in steps.items():
            times[way].append(seconds_of(step, device))
    return times


def heading(device: torch.device) -> str:
    """Machine, versions and date."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return f"{named}; torch {torch.__version__}, torchvision {torchvision.__version__}, {time.strftime('%Y-%m-%d')}"


def fill_in(options: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Give options that were not given the values of `defaults`."""
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def print_rows(
    cells: Sequence[Kind], row_of: Callable[[Kind, float], str], device: torch.device, *, end: float
) -> None:
    """Print each cell's line as soon as it is measured, and what there was no time for.

    Args:
        row_of: the line, from the cell and seconds for its calls.
        end: of the time, on the clock of time.perf_counter.
    """
    for number, cell in enumerate(cells):
        left = end - time.perf_counter()
        if left < 0:
            print(f"\nNo time for the last {len(cells) - number} of {len(cells)} rows: --seconds")
            return
        try:
            print(row_of(cell, left / (len(cells) - number) / 2), flush=True)
        except (RuntimeError, UserError) as error:  # too little memory, say; the other rows are wanted all the same
            print(f"{cell} | {type(error).__name__}: {str(error).splitlines()[0]} |", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
