from dataclasses import dataclass

import pytest

from utils.cli.flags import Fraction, NaturalInt, Options, PositiveInt, PositiveIntOrAuto, flag, parse_options, switch
from utils.cli.train_options import TrainOptions
from utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sized(Options):
    """size"""

    batch: PositiveIntOrAuto = flag("--batch", default=4, help="how many")


@dataclass(frozen=True, kw_only=True)
class Sizes(Options):
    """sizes"""

    size: PositiveInt = flag("-s", "--size", default=5, help="how large")
    classes: tuple[NaturalInt, ...] | None = flag("--classes", help="which")
    share: Fraction = flag("--share", default=0.5, help="how much")


@dataclass(frozen=True, kw_only=True)
class Everything(Sizes):
    """rest"""

    fast: bool = switch("--fast", help="hurry")
    kept: bool = switch("--no-keep", default=True, help="throw away")
    kind: str = flag("--kind", default="a", choices=("a", "b"), help="which kind")


def parse(*argv: str) -> Everything:
    return parse_options(Everything, "test", argv)


def test_defaults_and_types() -> None:
    options = parse("--classes", "1", "3", "--share", "1")
    assert (options.size, options.classes, options.share, options.fast, options.kept) == (5, (1, 3), 1.0, False, True)
    assert parse("--fast", "--no-keep").fast
    assert not parse("--fast", "--no-keep").kept


def test_given_names_what_was_typed() -> None:
    assert parse("-s", "5", "--fast").given == {"size", "fast"}


def test_what_has_no_flag_is_typed_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Files(Options):
        """files"""

        files: tuple[str, ...] = flag("files", metavar="FILE", help="which")
        fast: bool = switch("--fast", help="hurry")

    options = parse_options(Files, "", ["a", "b", "--fast"])
    assert (options.files, options.given) == (("a", "b"), {"files", "fast"})
    with pytest.raises(SystemExit, match="2"):
        parse_options(Files, "", ["--fast"])
    assert "required: FILE" in capsys.readouterr().err


def test_what_was_typed_wins_over_saved_options() -> None:
    saved = {"size": 7, "share": 0.25, "classes": [1, 2], "gone_since": 3}
    options = parse("-s", "9").over(saved)
    assert (options.size, options.share, options.classes) == (9, 0.25, (1, 2))


def test_as_dict_is_plain_and_comes_back() -> None:
    options = parse("--classes", "4", "--kind", "b")
    assert options.as_dict() == {
        "size": 5, "classes": [4], "share": 0.5, "fast": False, "kept": True, "kind": "b",
    }  # fmt: skip
    assert parse().over(options.as_dict()).classes == (4,)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-s", "0"], "'0' is not a whole number above 0"),
        (["-s", "two"], "'two' is not a whole number above 0"),
        (["--share", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--kind", "c"], "invalid choice"),
        (["--classes", "-1"], "is not a whole number of at least 0"),
        (["--quux"], "error: unknown flag --quux ("),
        (["--sice", "4"], "error: unknown flag --sice; did you mean --size? ("),
        (["--sice=4", "--knid", "a"], "did you mean --size? unknown flag --knid; did you mean --kind? ("),
        (["-q"], "error: unknown flag -q ("),
        (["4", "5"], "error: '4 5' belongs to no flag ("),
    ],
)
def test_bad_values_leave_with_code_2(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(*argv)
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("error: ")
    assert told.endswith(" --help)\n")
    assert told.count("\n") == 1


def test_help_has_a_heading_for_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out.split("show this help message")[1]  # behind the usage lines
    assert text.index("sizes:") < text.index("--size") < text.index("rest:") < text.index("--fast")
    assert "(default: 5)" in text


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"batch": "x"}, "--batch in the checkpoint is 'x', which it cannot be: type --batch"),
        ({"batch": None}, "--batch in the checkpoint is None"),
        ({"batch": [4]}, r"--batch in the checkpoint is \[4\]"),
        ({"label_type": "of a newer version"}, "--label-type in the checkpoint is 'of a newer version'"),
        ({"amp": 3}, "--amp in the checkpoint is 3"),
    ],
)
def test_saved_options_that_could_not_have_been_typed_are_refused(saved: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainOptions().over(saved)


def test_a_switch_can_be_switched_back() -> None:
    assert parse_options(TrainOptions, "", ["--no-amp"]).over({"amp": True}).amp is False
    assert parse_options(TrainOptions, "", []).over({"amp": True}).amp is True


@pytest.mark.parametrize(("typed", "value"), [("auto", 0), ("3", 3)])
def test_a_number_or_auto(typed: str, value: int) -> None:
    assert parse_options(Sized, "", ["--batch", typed]).batch == value


@pytest.mark.parametrize("typed", ["0", "-1", "much"])
def test_neither_a_number_nor_auto(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(Sized, "", ["--batch", typed])
    assert "is not a whole number above 0, or auto" in capsys.readouterr().err
