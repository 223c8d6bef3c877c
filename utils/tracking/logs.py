"""What a tracking leaves behind; a run that is killed leaves what it had so far, and each file can be read.

NAME_tracks.txt   a row for each box, in the columns of MOTChallenge's ground truth
NAME_tracks.json  the tracks, each with its class, frames and boxes
NAME_counts.json  how many objects of each class, who crossed the lines, who is in the zones
"""

import errno
import json
import os
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import add_path_to_errors, write_text
from utils.tracking.tracks import Tracks

_COUNTS_EVERY = 5.0  # s
_OPEN, _CLOSE = b"[", b"\n]\n"  # of tracks.json


class MotLog:
    """Rows of frame,id,left,top,width,height,score,class,-1, as of https://motchallenge.net/instructions.

    Frames and pixels count from 1: the first pixel's left edge, 0 elsewhere here, is 1. The class is an index among the
    class names; -1 stands for the visibility, which is not known. A frame's rows are in the file when `add` returns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="ascii", newline="\n")

    def add(self, frame: int, tracks: Tracks) -> None:
        """Append a frame; the first is 0."""
        rows = [
            f"{frame + 1},{number},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},{label},-1\n"
            for (x1, y1, x2, y2), number, label, score in _rows(tracks)
        ]
        with add_path_to_errors(self._path):
            self._file.writelines(rows)
            self._file.flush()

    def close(self) -> None:
        """Nothing can be added afterwards."""
        with add_path_to_errors(self._path):
            self._file.close()


def read_mot(path: Path) -> list[Tracks]:
    """The frames of a file that MotLog wrote, up to the last with a row; frame numbers must count from 1."""
    lines = path.read_text("ascii").splitlines()
    rows = np.array([line.split(",") for line in lines], np.float64).reshape(-1, 9)
    frames = []
    for frame in range(1, int(rows[:, 0].max(initial=0)) + 1):
        own = rows[rows[:, 0] == frame]
        corners = own[:, 2:4] - 1
        frames.append(
            Tracks(
                np.concatenate([corners, corners + own[:, 4:6]], 1).astype(np.float32),
                own[:, 1].astype(np.int64),
                own[:, 7].astype(np.int64),
                own[:, 6].astype(np.float32),
            )
        )
    return frames


@dataclass
class _Track:
    label: int
    frames: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("f"))  # four numbers a frame, as a parked car has thousands
    scores: array = field(default_factory=lambda: array("f"))
    last_call: int = 0


class TrackLog:
    """A JSON list of tracks. One is written when the last `patience` frames added were without it, or at the end.

    The file is a whole list at any time; of a run that is killed, tracks that were still followed are not in it.
    """

    def __init__(self, path: Path, class_names: Sequence[str], patience: int) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        with add_path_to_errors(path):
            self._file.write(_OPEN + _CLOSE)
        self._class_names = class_names
        self._patience = patience
        self._live: dict[int, _Track] = {}
        self._calls = 0  # frames that were added; their numbers may have gaps
        self._written = 0

    def add(self, frame: int, tracks: Tracks) -> None:
        """Take note of a frame; the first of the video is 0."""
        self._calls += 1
        for box, number, label, score in _rows(tracks):
            track = self._live.setdefault(number, _Track(label))
            track.frames.append(frame)
            track.boxes.extend(box)
            track.scores.append(score)
            track.last_call = self._calls
        for number in [n for n, track in self._live.items() if self._calls - track.last_call > self._patience]:
            self._write(number)

    def close(self) -> None:
        """Write the tracks that are still followed."""
        with add_path_to_errors(self._path), self._file:
            for number in sorted(self._live):
                self._write(number)

    def _write(self, number: int) -> None:
        track = self._live.pop(number)
        boxes = [[round(value, 2) for value in track.boxes[i : i + 4]] for i in range(0, len(track.boxes), 4)]
        record = {
            "id": number,
            "class_id": track.label,
            "class": self._class_names[track.label],
            "first_frame": track.frames[0],
            "last_frame": track.frames[-1],
            "frames": track.frames.tolist(),
            "boxes": boxes,
            "scores": [round(score, 4) for score in track.scores],
        }
        self._append((b",\n" if self._written else b"\n") + json.dumps(record).encode())
        self._written += 1

    def _append(self, entry: bytes) -> None:
        """Put it at the end of the list; where the disk does not take all of it, the list stays as it was."""
        with add_path_to_errors(self._path):
            end = self._file.seek(-len(_CLOSE), 2)
            try:
                if self._file.write(entry + _CLOSE) < len(entry + _CLOSE):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.seek(end)
                self._file.write(_CLOSE)
                self._file.truncate()
                raise


class CountLog:
    """A file of counts, written anew every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = -float("inf")

    def add(self, counts: Callable[[], Mapping[str, Any]], *, last: bool = False) -> None:
        """What `counts` gives now, if it is time; the `last` are always written."""
        if last or time.monotonic() - self._written_at >= _COUNTS_EVERY:
            write_text(self._path, json.dumps(counts(), indent=1) + "\n")
            self._written_at = time.monotonic()


def _rows(tracks: Tracks) -> "zip[tuple[list[float], int, int, float]]":
    """Box, id, label and score of each."""
    columns = (tracks.boxes, tracks.ids, tracks.labels, tracks.scores)
    return zip(*(column.tolist() for column in columns), strict=True)
