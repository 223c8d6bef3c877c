"""The frame that all pages share."""

import re
from pathlib import Path

from utils.visualize.pages import data_uri, figure, page, tiles


def test_a_page_needs_nothing_else_and_its_title_is_text(tmp_path: Path) -> None:
    (tmp_path / "more.css").write_text(".more { color: red; }")
    html = page("<T>", {"a": ("First", "<p>one</p>")}, summary="<p>sum</p>", styles=[tmp_path / "more.css"])
    assert html.count("&lt;T&gt;") == 2
    assert "<T>" not in html
    assert "default-src 'none'" in html
    assert '<a href="#a">First</a>' in html
    assert '<section id="a" aria-labelledby="a-title"><h2 id="a-title">First</h2>\n<p>one</p></section>' in html
    assert html.index("<p>sum</p>") < html.index("<nav>")
    assert html.index(":root") < html.index(".more { color: red; }")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)


def test_parts() -> None:
    assert data_uri("png", b"ab") == "data:image/png;base64,YWI="
    assert tiles({"mAP": "0.5"}).strip() == '<dl class="tiles"><div><dt>mAP</dt><dd>0.5</dd></div></dl>'
    assert 'alt="a &lt;b&gt;"' in figure(b"", "a <b>")
    assert 'class="figure wide"' in figure(b"", "", wide=True)
