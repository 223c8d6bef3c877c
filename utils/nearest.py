"""What a name that nothing has may have been meant to be, as the end of a message; "" where nothing is like it."""

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
