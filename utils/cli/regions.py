"""Parsing of count lines and zones: x1,y1,x2,y2,... in px of the frame, or all as fractions of its sides."""

import math

from utils.errors import UserError

Points = tuple[tuple[float, float], ...]  # x, y of the ends of a line, or of the corners of a zone


def parse_line(text: str) -> Points:
    """Parse the two ends of a line, x1,y1,x2,y2.

    Raises:
        ValueError: `text` is not two different points.
    """
    points = _parse(text)
    if len(points) != 2 or points[0] == points[1]:
        raise ValueError(text)
    return points


def parse_zone(text: str) -> Points:
    """Parse the three or more corners of a zone, x1,y1,x2,y2,x3,y3...

    Raises:
        ValueError: `text` is not such a list, or the polygon has no area.
    """
    points = _parse(text)
    ring = zip(points, points[1:] + points[:1], strict=True)
    if len(points) < 3 or sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in ring) == 0:
        raise ValueError(text)
    return points


def to_pixels(points: Points, width: int, height: int, flag: str) -> Points:
    """Convert points to px of a frame of this size. Without a coordinate above 1 they are fractions of its sides.

    Raises:
        UserError: all points are outside the frame, on one side of it.
    """
    if max(map(max, points)) <= 1:
        points = tuple((round(x * width, 2), round(y * height, 2)) for x, y in points)
    xs, ys = zip(*points, strict=True)
    if min(xs) > width or min(ys) > height or max(xs) < 0 or max(ys) < 0:
        typed = ",".join(f"{value:g}" for point in points for value in point)
        raise UserError(
            f"{flag} {typed} is outside the frame of {width} x {height} px: give px, or fractions of its sides"
        )
    return points


def _parse(text: str) -> Points:
    values = [float(part) for part in text.split(",")]
    if len(values) % 2 or not all(map(math.isfinite, values)):
        raise ValueError(text)
    return tuple(zip(values[::2], values[1::2], strict=True))
