"""Log files of tracking. All remain readable if the process is killed.

NAME_tracks.txt   one row per box, in the columns of MOTChallenge ground truth
NAME_tracks.json  tracks with class, frames and boxes
NAME_counts.json  objects per class, line crossings and zone occupancy
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
_OPEN, _CLOSE = b"[", b"\n]\n"  # of the JSON list


class MotLog:
    """Writer of rows frame,id,left,top,width,height,score,class,-1, see https://motchallenge.net/instructions.

    Frames and pixels count from 1: the left edge of the first pixel, 0 elsewhere in this repository, is 1. The class is
    an index into the class names. -1 is the unknown visibility. Rows are on disk when `add` returns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="ascii", newline="\n")

    def add(self, frame: int, tracks: Tracks) -> None:
        """Append the rows of a frame, counted from 0."""
        rows = [
            f"{frame + 1},{track_id},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},{label},-1\n"
            for (x1, y1, x2, y2), track_id, label, score in _rows(tracks)
        ]
        with add_path_to_errors(self._path):
            self._file.writelines(rows)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with add_path_to_errors(self._path):
            self._file.close()


def read_mot(path: Path) -> list[Tracks]:
    """Read a file of MotLog; return the tracks of each frame up to the last with a row. Frames count from 1."""
    lines = path.read_text("ascii").splitlines()
    rows = np.array([line.split(",") for line in lines], np.float64).reshape(-1, 9)
    frames = []
    for frame in range(1, int(rows[:, 0].max(initial=0)) + 1):
        frame_rows = rows[rows[:, 0] == frame]
        corners = frame_rows[:, 2:4] - 1
        frames.append(
            Tracks(
                np.concatenate([corners, corners + frame_rows[:, 4:6]], 1).astype(np.float32),
                frame_rows[:, 1].astype(np.int64),
                frame_rows[:, 7].astype(np.int64),
                frame_rows[:, 6].astype(np.float32),
            )
        )
    return frames


@dataclass
class _Track:
    label: int
    frames: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("f"))  # 4 a frame; a parked car has thousands of frames
    scores: array = field(default_factory=lambda: array("f"))
    last_call: int = 0


class TrackLog:
    """Writer of a JSON list of tracks. A track is written once it was absent for `patience` frames, or by `close`.

    The file is valid JSON at any time. If the process is killed, the active tracks are missing.
    """

    def __init__(self, path: Path, class_names: Sequence[str], patience: int) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        with add_path_to_errors(path):
            self._file.write(_OPEN + _CLOSE)
        self._class_names = class_names
        self._patience = patience
        self._active: dict[int, _Track] = {}
        self._calls = 0  # frames added; their numbers may have gaps
        self._written = 0

    def add(self, frame: int, tracks: Tracks) -> None:
        """Add a frame, counted from 0."""
        self._calls += 1
        for box, track_id, label, score in _rows(tracks):
            track = self._active.setdefault(track_id, _Track(label))
            track.frames.append(frame)
            track.boxes.extend(box)
            track.scores.append(score)
            track.last_call = self._calls
        for track_id in [i for i, track in self._active.items() if self._calls - track.last_call > self._patience]:
            self._write(track_id)

    def close(self) -> None:
        """Write the active tracks."""
        with add_path_to_errors(self._path), self._file:
            for track_id in sorted(self._active):
                self._write(track_id)

    def _write(self, track_id: int) -> None:
        track = self._active.pop(track_id)
        boxes = [[round(value, 2) for value in track.boxes[i : i + 4]] for i in range(0, len(track.boxes), 4)]
        record = {
            "id": track_id,
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
        """Append to the list. If writing fails, the file keeps its previous content."""
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
    """JSON file of counts, rewritten every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = -float("inf")

    def add(self, counts: Callable[[], Mapping[str, Any]], *, last: bool = False) -> None:
        """Write the result of `counts` if the last write was long enough ago, or if `last`."""
        if last or time.monotonic() - self._written_at >= _COUNTS_EVERY:
            write_text(self._path, json.dumps(counts(), indent=1) + "\n")
            self._written_at = time.monotonic()


def _rows(tracks: Tracks) -> "zip[tuple[list[float], int, int, float]]":
    """Iterate over box, id, label and score of each track."""
    columns = (tracks.boxes, tracks.ids, tracks.labels, tracks.scores)
    return zip(*(column.tolist() for column in columns), strict=True)
