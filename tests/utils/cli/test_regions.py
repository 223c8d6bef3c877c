import pytest

from utils.cli.flags import parse_options
from utils.cli.options import InferenceOptions, TrackingOptions
from utils.cli.regions import parse_line, parse_zone, to_pixels
from utils.errors import UserError


def test_points_are_parsed() -> None:
    assert parse_line("1,2,3,4.5") == ((1, 2), (3, 4.5))
    assert parse_line(" 0.1, 0.2,-1,1e2") == ((0.1, 0.2), (-1, 100))
    assert parse_zone("0,0,1,0,1,1") == ((0, 0), (1, 0), (1, 1))


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,4,5,6", "1,2,1,2", "a,b,c,d", "1;2;3;4", "nan,0,1,1", "inf,0,1,1"]
)
def test_what_is_no_line(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - argparse says more
        parse_line(text)


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,5", "0,0,1,1,2,2", "5,5,5,5,5,5", "0,0,1,0,nan,1"])
def test_what_is_no_zone(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - argparse says more
        parse_zone(text)


def test_fractions_become_pixels() -> None:
    assert to_pixels(((0, 0.5), (1, 0.5)), 640, 360, "--count-line") == ((0, 180), (640, 180))
    assert to_pixels(((0, 180), (640, 180)), 640, 360, "--count-line") == ((0, 180), (640, 180))
    assert to_pixels(((0, 0.5), (1.5, 0.5)), 640, 360, "--count-line") == ((0, 0.5), (1.5, 0.5))


@pytest.mark.parametrize(
    "points", [((700, 0), (700, 100)), ((0, 400), (100, 500)), ((-5, 0), (-1, 90)), ((0, -9), (9, -1))]
)
def test_a_line_beside_the_picture_is_told(points: tuple) -> None:
    with pytest.raises(UserError, match=r"--count-line .* is outside the frame of 640 x 360 px"):
        to_pixels(points, 640, 360, "--count-line")


def test_flags() -> None:
    options = parse_options(TrackingOptions, "", [])
    assert (options.track, options.tracker, options.track_buffer, options.no_trails) == (False, "bytetrack", 1.0, False)
    assert options.count_line is options.count_zone is None
    argv = ["--track", "--tracker", "deepsort", "--track-buffer", "0", "--no-trails", "--count-zone", "0,0,1,0,1,1"]
    lines = ["--count-line", "0,0,1,1", "5,5,9,9", "--count-line", "1,1,3,2"]
    options = parse_options(TrackingOptions, "", argv + lines)
    assert (options.track, options.tracker, options.track_buffer, options.no_trails) == (True, "deepsort", 0.0, True)
    assert options.count_line == (((0, 0), (1, 1)), ((5, 5), (9, 9)), ((1, 1), (3, 2)))
    assert options.count_zone == (((0, 0), (1, 0), (1, 1)),)


def test_a_flag_of_several_values_that_is_given_twice_has_them_all() -> None:
    assert parse_options(InferenceOptions, "", ["--classes", "1", "2", "--classes", "3"]).classes == (1, 2, 3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--count-line", "1,2,3"], "'1,2,3' is not x1,y1,x2,y2, in px or all fractions of 1"),
        (["--count-zone", "1,2,3,4"], "'1,2,3,4' is not three or more corners"),
        (["--tracker", "sort"], "invalid choice"),
        (["--track-buffer", "-1"], "a number of at least 0"),
    ],
)
def test_mistakes_in_flags_are_told(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(TrackingOptions, "", argv)
    assert message in capsys.readouterr().err
