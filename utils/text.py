"""Text for messages: suggestions for misspelled names, printable text, counts with a noun."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

_LONG = 100  # characters of a name that are compared


def did_you_mean(name: str, known: Iterable[str], *, shown: Callable[[str], object] = str) -> str:
    """Suggest the most similar known name, formatted by `shown`; "" if none is similar."""
    near = difflib.get_close_matches(name[:_LONG], list(known), n=1)
    return f"; did you mean {shown(near[0])}?" if near else ""


def did_you_mean_file(path: Path, pattern: str = "*") -> str:
    """Suggest a similar file or folder beside a missing one, of those that match the pattern."""
    siblings = path.parent.glob(pattern) if path.parent.is_dir() else ()
    return did_you_mean(path.name, (other.name for other in siblings), shown=path.parent.joinpath)


def printable(text: str) -> str:
    """Escape characters that cannot be printed, among them newlines and terminal control codes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def encodable(text: str) -> str:
    """Escape surrogates, which Python uses for bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count with its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
