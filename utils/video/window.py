"""Live display of a video in a window; for the main thread."""

from types import TracebackType

import cv2
import numpy as np

from utils.errors import UserError
from utils.visualize.windows import ESCAPE_KEYS


class VideoWindow:
    """Shows the latest picture with OpenCV, matplotlib, or both.

    Raises:
        UserError: OpenCV was built without window support.
    """

    def __init__(self, title: str, *, opencv: bool, matplotlib: bool) -> None:
        self._title, self._opencv = title, opencv
        self._shown: np.ndarray | None = None
        self._picture = None
        if matplotlib:
            from matplotlib import pyplot

            self._pyplot = pyplot
            self._figure = pyplot.figure(title, figsize=(12, 9))
            self._axes = self._figure.add_axes((0, 0, 1, 1))
            self._axes.axis("off")
            self._figure.show()
        else:
            self._figure = None

    def __enter__(self) -> "VideoWindow":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opencv and self._shown is not None:
            cv2.destroyAllWindows()
        if self._figure is not None:
            self._pyplot.close(self._figure)

    def show(self, picture: np.ndarray | None) -> bool:
        """Show a picture, (H, W, 3) uint8 RGB; return False on Escape or q, or once the window is closed."""
        is_new = picture is not None and picture is not self._shown
        if is_new:
            self._shown = picture
        is_open = True
        if self._opencv and self._shown is not None:
            is_open = self._show_with_opencv(is_new=is_new)
        if self._figure is not None:
            is_open &= self._show_with_matplotlib(is_new=is_new)
        return is_open

    def _show_with_opencv(self, *, is_new: bool) -> bool:
        try:
            if is_new:
                cv2.imshow(self._title, cv2.cvtColor(self._shown, cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
        except cv2.error:
            raise UserError("this OpenCV has no windows (opencv-python-headless): pip install opencv-python") from None
        return key not in ESCAPE_KEYS

    def _show_with_matplotlib(self, *, is_new: bool) -> bool:
        if is_new and self._picture is None:
            self._picture = self._axes.imshow(self._shown)
        elif is_new:
            self._picture.set_data(self._shown)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
        return self._pyplot.fignum_exists(self._figure.number)
