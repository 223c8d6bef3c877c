from pathlib import Path

import pytest

from utils.nearest import did_you_mean, did_you_mean_file

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
