"""Frame of a self-contained HTML page: no network, no scripts, no other files."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.visualize.html import html_text

_STYLE = Path(__file__).with_name("page.css")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MAX_TITLE = 120  # characters


def page(
    title: str,
    sections: Mapping[str, tuple[str, str]],
    *,
    summary: str = "",
    under_title: str = "",
    styles: Sequence[Path] = (),
) -> str:
    """Build the whole page.

    Args:
        title: plain text.
        sections: id -> heading and content, both HTML; a navigation bar links to them.
        summary: HTML before the sections.
        under_title: HTML below the title.
        styles: CSS files in addition to page.css.
    """
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in sections.items())
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{name}</h2>\n{content}</section>\n'
        for key, (name, content) in sections.items()
    )
    heading, style = html_text(title, _MAX_TITLE), "".join(path.read_text("utf-8") for path in (_STYLE, *styles))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<link rel="icon" href="data:,">\n<title>{heading}</title>\n<style>\n{style}</style>\n'
        f"</head>\n<body>\n<header><h1>{heading}</h1>{under_title}</header>\n"
        f"<main>\n{summary}<nav>{links}</nav>\n{body}</main>\n</body>\n</html>\n"
    )


def tiles(numbers: Mapping[str, str]) -> str:
    """Show key numbers in large print: name -> HTML."""
    items = "".join(f"<div><dt>{name}</dt><dd>{number}</dd></div>" for name, number in numbers.items())
    return f'<dl class="tiles">{items}</dl>\n'


def data_uri(kind: str, data: bytes) -> str:
    """Encode an image file as a data: URI; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure(png: bytes, alt: str, *, wide: bool = False) -> str:
    """Build a <figure> of a PNG file, with a text alternative."""
    kind = "figure wide" if wide else "figure"
    return f'<figure class="{kind}"><img src="{data_uri("png", png)}" alt="{html_text(alt)}"></figure>'
