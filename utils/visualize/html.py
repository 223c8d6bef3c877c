"""HTML fragments: escaped text, percentages, tables.

Everything that comes from a file must go through `html_text`, so that it cannot inject markup.
"""

import html
import re
from collections.abc import Iterable, Sequence

# Control characters, bidirectional overrides and surrogates, which can hide or forge text.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufffe\uffff]"
)
_MAX_CHARACTERS = 240


def html_text(value: object, max_characters: int = _MAX_CHARACTERS) -> str:
    """Escape `value` for HTML text and quoted attributes; the middle of a longer text is replaced by an ellipsis."""
    string = str(value)
    if len(string) > max_characters:
        head = max_characters // 3
        string = f"{string[:head]} … {string[head - max_characters :]}"
    return html.escape(_INVISIBLE.sub("\ufffd", string))


def percent(part: float, whole: float) -> str:
    """Format part / whole as HTML, never rounded to 0% or 100% unless it is exactly that."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "&lt;0.1%"
    if 99.9 < share < 100:
        return "&gt;99.9%"
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.1f}%"


def html_list(names: Sequence[str], limit: int = 8) -> str:
    """Enumerate names, escaped: "a, b and 3 more"."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(f"<b>{html_text(name, 60)}</b>" for name in names[:limit]) + more


def html_table(head: Iterable[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Build an HTML table. Cells are HTML, the first of a row is its heading; `kind` is the CSS class."""
    heading = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n' for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{heading}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )
