"""Lines and zones as one types them: x1,y1,x2,y2,... in px of the picture, or all as fractions of its sides."""

import math

from utils.errors import UserError

Points = tuple[tuple[float, float], ...]


def parse_line(text: str) -> Points:
    """The two points of x1,y1,x2,y2.

    Raises:
        ValueError: it is something else.
    """
    points = _parse(text)
    if len(points) != 2 or points[0] == points[1]:
        raise ValueError(text)
    return points


def parse_zone(text: str) -> Points:
    """The three or more corners of x1,y1,x2,y2,x3,y3...

    Raises:
        ValueError: it is something else, or has no area.
    """
    points = _parse(text)
    ring = zip(points, points[1:] + points[:1], strict=True)
    if len(points) < 3 or sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in ring) == 0:
        raise ValueError(text)
    return points


def in_pixels(points: Points, width: int, height: int, flag: str) -> Points:
    """Points in px of a picture of this size; they are fractions where none has a coordinate above 1.

    Raises:
        UserError: all of them are outside, on one side of the picture.
    """
    if max(map(max, points)) <= 1:
        points = tuple((round(x * width, 2), round(y * height, 2)) for x, y in points)
    xs, ys = zip(*points, strict=True)
    if min(xs) > width or min(ys) > height or max(xs) < 0 or max(ys) < 0:
        shown = ",".join(f"{value:g}" for point in points for value in point)
        raise UserError(
            f"{flag} {shown} is not in the picture, which is {width} x {height}: give px, or fractions of its sides"
        )
    return points


def _parse(text: str) -> Points:
    values = [float(part) for part in text.split(",")]
    if len(values) % 2 or not all(map(math.isfinite, values)):
        raise ValueError(text)
    return tuple(zip(values[::2], values[1::2], strict=True))
