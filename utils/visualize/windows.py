"""Image windows on the screen."""

import os
import sys

import cv2
import numpy as np

from utils.errors import UserError

ESCAPE_KEYS = (27, ord("q"))


def check_display(flag: str) -> None:
    """Raise UserError if `flag` needs a window but there is no display, where OpenCV would abort the process."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError(f"{flag} needs a display, and DISPLAY is not set: drop {flag} and look at the written files")


def show_window(title: str, image: np.ndarray) -> bool:
    """Show a uint8 RGB image until a key is pressed.

    Returns:
        False if the key is Escape or q.

    Raises:
        UserError: OpenCV was built without window support.
    """
    try:
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(0) & 0xFF
        cv2.destroyWindow(title)
    except cv2.error:
        raise UserError(
            "this OpenCV has no window support (opencv-python-headless): pip install opencv-python"
        ) from None
    return key not in ESCAPE_KEYS


def show_with_matplotlib(title: str, image: np.ndarray) -> None:
    """Show a uint8 RGB image in a Matplotlib window until it is closed."""
    from matplotlib import pyplot

    pyplot.figure(title, figsize=(12, 9))
    pyplot.imshow(image)
    pyplot.axis("off")
    pyplot.tight_layout()
    pyplot.show()
    pyplot.close()
