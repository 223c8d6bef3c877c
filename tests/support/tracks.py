"""Tracks of a frame, for tests."""

import numpy as np

from utils.tracking.tracks import Tracks


def tracks(*rows: tuple) -> Tracks:
    """Rows of id, label, x1, y1, x2, y2."""
    values = np.array(rows, np.float64).reshape(-1, 6)
    return Tracks(
        values[:, 2:].astype(np.float32), values[:, 0].astype(np.int64), values[:, 1].astype(np.int64),
        np.ones(len(values), np.float32),
    )  # fmt: skip
