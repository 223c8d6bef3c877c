"""Words and numbers on an HTML page. Whatever comes from a file goes through `text` and is inert then."""

import html
import re
from collections.abc import Iterable, Sequence

# Control characters, those that turn the direction of writing, and halves of characters: they hide or forge text.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufffe\uffff]"
)
_MOST = 240  # characters


def text(value: object, most: int = _MOST) -> str:
    """`value` as HTML text, safe in a quoted attribute too; its middle is left out where it is longer than `most`."""
    string = str(value)
    if len(string) > most:
        string = f"{string[: most // 3]} … {string[-(most - most // 3) :]}"
    return html.escape(_INVISIBLE.sub("\ufffd", string))


def percent(part: float, whole: float) -> str:
    """The share of `part`, to be read at a glance: neither 0% nor 100% unless it is."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "&lt;0.1%"
    if 99.9 < share < 100:
        return "&gt;99.9%"
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.1f}%"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names from files, as HTML: "a, b and 3 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"<b>{text(name, 60)}</b>" for name in names[:most]) + more


def table(head: Iterable[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """An HTML table; cells are HTML, the first of a row is its heading."""
    heading = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n' for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{heading}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )
