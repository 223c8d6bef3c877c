import pytest

from utils.printable import encodable, printable


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
