"""Text for messages: the nearest known name, names that are safe to print, counts with their noun."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

_LONG = 100  # characters of a name that are compared


def did_you_mean(name: str, known: Iterable[str], *, shown: Callable[[str], object] = str) -> str:
    """The known name most like it, as `shown` makes it."""
    near = difflib.get_close_matches(name[:_LONG], list(known), n=1)
    return f"; did you mean {shown(near[0])}?" if near else ""


def did_you_mean_file(path: Path, pattern: str = "*") -> str:
    """The file or folder beside it, of those that match, for one that is not there."""
    beside = path.parent.glob(pattern) if path.parent.is_dir() else ()
    return did_you_mean(path.name, (other.name for other in beside), shown=path.parent.joinpath)


def printable(text: str) -> str:
    """`text` in one line, with nothing that a terminal obeys: signs that cannot be printed become escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot say as escapes; Python has bytes of file names so that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def counted(number: int, thing: str, things: str = "") -> str:
    """ "1 image", "2,000 images"."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
