from pathlib import Path

import pytest

from utils.text import did_you_mean, did_you_mean_file, encodable, printable

KNOWN = ("apple", "pear")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aple", "; did you mean apple?"),
        ("zzz", ""),
        ("", ""),
        pytest.param("apple" * 10**6, "", id="a name of five million characters costs no time"),
    ],
)
def test_the_nearest_name(name: str, hint: str) -> None:
    assert did_you_mean(name, KNOWN) == hint


def test_it_is_shown_as_asked() -> None:
    assert did_you_mean("aple", KNOWN, shown=repr) == "; did you mean 'apple'?"
    assert did_you_mean("aple", ()) == ""


def test_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").touch()
    assert did_you_mean_file(tmp_path / "dat.yaml") == f"; did you mean {tmp_path / 'data.yaml'}?"
    assert did_you_mean_file(tmp_path / "dat.yaml", "*.jpg") == ""
    assert did_you_mean_file(tmp_path / "no folder" / "data.yaml") == ""
    assert did_you_mean_file(tmp_path / "data.yaml" / "data.yaml") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("écran 屏幕.jpg", "écran 屏幕.jpg"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("a\nb\x1b[2J", "a\\nb\\x1b[2J"),
        ("\u202egpj", "\\u202egpj"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_encodable_leaves_lines_and_escapes_halves() -> None:
    assert encodable("a\nü\udcff") == "a\nü\\udcff"
