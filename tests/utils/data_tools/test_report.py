"""The page that `datasets.py check --html` writes, read by a parser and shown by a browser."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.sax.saxutils import escape

import cv2
import numpy as np
import pytest

from models.building.backbone_spec import ANCHOR_SIZES, ASPECT_RATIOS
from tests.conftest import HANG, full_among
from tests.support.fuzzing.broken_samples import GOOD, SAMPLES, SIZE, Folder, voc
from utils.data_tools.charts import AxisScale, heat_map, histogram, integer_scale, octave_scale
from utils.data_tools.check import KINDS, DataCheck, Problem
from utils.data_tools.report import report_page, write_report
from utils.data_tools.statistics import class_quantiles, sample_images, training_boxes
from utils.labels.anchors import Anchors
from utils.loading.size_rule import SizeRule
from utils.text import counted
from utils.visualize.html import html_list, html_text, percent

RULE = SizeRule(192)
SCRIPT, QUOTES = "<script>alert(1)</script>", "\"'><img src=x onerror=alert(2)>"
VOID = {"meta", "link", "br", "img"}
TAGS = {
    *("a", "article", "b", "body", "br", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "h1", "h2", "h3"),
    *("head", "header", "html", "img", "li", "link", "main", "meta", "nav", "p", "section", "small", "span", "strong"),
    *("style", "summary", "table", "tbody", "td", "th", "thead", "title", "tr", "ul"),
    *("circle", "image", "path", "rect", "svg", "text"),
}


class Page(HTMLParser):
    """The page's elements and text; an element that is not closed, or out of place, is a fault."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.style: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        (self.style if self.open[-1:] == ["style"] else self.text).append(data)

    def count(self, tag: str, css: str = "") -> int:
        return sum(t == tag and css in [*(a.get("class") or "").split(), ""] for t, a in self.elements)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def assert_inert(page: Page) -> None:
    """Nothing runs, nothing is loaded: only the elements that we write, only data: and links within the page."""
    for tag, attributes in page.elements:
        assert tag in TAGS
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src"):
                assert value.startswith(("data:", "#"))
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert "url(" not in "".join(page.style)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataCheck, Page]:
    """A data set with one fault of every kind."""
    folder = Folder(tmp_path_factory.mktemp("report"))
    for split in ("train", "valid"):
        folder.pair(f"good_{split}", ("green", 50, 50, 90, 80), split=split)
    for name, (spoil, *_) in SAMPLES.items():
        if name != "huge":
            spoil(folder)
    check = folder.check()
    return check, Page(report_page(check, RULE))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a data set whose names are made to break it."""
    folder = Folder(tmp_path_factory.mktemp("hostile"))
    folder.rewrite(CLASSES=["__background__", SCRIPT, QUOTES, "\u202egnp.exe"])
    name = "a\" onload='alert(3)' &<b>&amp;"
    for split in ("train", "valid"):
        objects = [
            (escape(SCRIPT), *GOOD),
            (escape(QUOTES), 9, 9, 9, 9),
            (escape("<style>*{display:none}</style>"), *GOOD),
        ]
        folder.label(f"{name}.xml", voc(*objects), split)
        folder.image(f"{name}.jpg", split)
    path = folder.root / "page.html"
    write_report(path, folder.check(), RULE)
    return path


def test_the_anchors_are_those_of_the_models() -> None:
    assert Anchors() == Anchors(ANCHOR_SIZES, ASPECT_RATIOS)


def test_numbers_are_those_of_the_check(broken: tuple[DataCheck, Page]) -> None:
    check, page = broken
    assert_inert(page)
    words = page.words
    assert "Training would not start" in words
    for kind, count in Counter(problem.kind for problem in check.problems).items():
        assert re.search(rf" {count} {re.escape(kind)}", words), kind
    effects = Counter(problem.effect for problem in check.problems)
    numbers = re.search(
        r"(\d+) ✕ stops training.*?(\d+) \u2212 dropped.*?(\d+) ✓ repaired.*?(\d+) ○ kept as is", words
    ).groups()
    assert list(map(int, numbers)) == [effects[effect] for effect in dict.fromkeys(KINDS.values())]
    for name, summary in check.splits.items():
        assert re.search(rf"{name} {summary.images} {summary.boxes} {summary.without_objects}", words)
        for label, count in summary.boxes_per_class.items():
            assert label in words
            assert f" {count:,} in " in words
    assert "'reed' not in CLASSES" in words
    assert page.count("details", "kind") == len({problem.kind for problem in check.problems})
    assert page.count("article", "card") == len(check.problems)


def test_problems_have_pictures(broken: tuple[DataCheck, Page]) -> None:
    """A mark on every box that is meant and finite, both images of a copy, none of what cannot be decoded."""
    check, page = broken
    boxes = [
        p for p in check.problems if p.detail.startswith("box ") and p.kind != "boxes with NaN or infinite coordinates"
    ]
    assert page.count("rect", "highlighted") == len(boxes) + 2  # and of the two boxes of an unknown class
    kinds = ("unreadable images", "labels without an image", "image files of an unsupported format")
    kinds += ("second label files of an image",)
    alone = [p for p in check.problems if p.kind in kinds or Path(p.path).name == "i.xml"]
    copies = [p for p in check.problems if p.detail.startswith("the same as")]
    assert page.count("svg", "thumb") == len(check.problems) - len(alone) + len(copies)


def test_hostile_names_are_text(hostile: Path) -> None:
    content = hostile.read_text()
    page = Page(content)
    assert_inert(page)
    assert SCRIPT in page.words
    assert QUOTES in page.words
    assert "onload='alert(3)' &<b>&amp;.xml" in page.words
    assert "\u202e" not in content
    assert content.count("<style>") == 1


@pytest.mark.parametrize("boxes", [True, False])
def test_every_split_is_shown(folder: Folder, boxes: bool) -> None:
    for split in ("train", "valid"):
        for i in range(20):
            folder.image(f"{i}.jpg", split)
            folder.label(f"{i}.xml", voc(*[("green", *GOOD)] * boxes), split)
    folder.rewrite(TEST_DIR_IMAGES=str(folder.root / "valid/images"), TEST_DIR_LABELS=str(folder.root / "valid/labels"))
    page = Page(report_page(folder.check(), RULE))
    assert_inert(page)
    assert page.words.count("16 images of 20") == 3
    assert page.count("ul", "mosaic") == 3
    assert page.count("img") == 48
    assert page.count("svg", "chart") == (2 + 3 + 2 if boxes else 2)
    assert f"Missing from train: {'red' if boxes else 'every class.'}" in page.words
    assert page.count("span", "lacking") == (3 if boxes else 6)


def test_a_data_set_of_nothing(folder: Folder) -> None:
    page = Page(report_page(folder.check(), RULE))
    assert_inert(page)
    assert "Training would not start 2 problems prevent it" in page.words
    assert "No readable images." in page.words


def test_a_sound_data_set(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.pair(split, ("green", 50, 50, 90, 80), split=split)
    page = Page(report_page(folder.check(), RULE))
    assert "Training would start" in page.words
    assert "No problems." in page.words


def test_sizes_are_those_of_the_network(folder: Folder) -> None:
    """Of 96 x 128 images at 192, boxes are twice as large."""
    for split in ("train", "valid"):
        folder.label("a.xml", voc(("red", 1, 1, 4, 4), ("red", 1, 1, 40, 40), size=SIZE), split)
        folder.image("a.jpg", split)
    check = folder.check()
    boxes = training_boxes(check.readings["train"], RULE)
    assert boxes.sides().tolist() == [[8, 8], [80, 80]]
    assert "50% of the boxes are smaller than half the smallest anchor" in Page(report_page(check, RULE)).words
    assert boxes.centers()[0].tolist() == pytest.approx([2 / 128, 2 / 96])
    assert Anchors().best_iou(np.array([[64, 64], [8, 8], [512 / 2**0.5, 512 * 2**0.5]])) == pytest.approx(
        [1, 1 / 16, 1]
    )


@pytest.mark.parametrize("limit", full_among([0, 20, 10**6], {0, 10**6}))
def test_a_hundred_thousand_problems_fit_on_a_page(folder: Folder, limit: int) -> None:
    pictures = [str(folder.pair(f"{i}")) for i in range(30)]
    folder.pair("a", split="valid")
    check = folder.check()
    kinds = list(KINDS)
    many = [
        Problem("train", kinds[i % len(kinds)], pictures[i % 30] if i % 3 else f"/{'é' * 99}/{i}.xml", '"<' * 200)
        for i in range(100_000)
    ]
    content = report_page(replace(check, problems=many), RULE, limit=limit)
    assert len(content.encode()) < 10e6
    page = Page(content)
    assert "--json writes all of them" in page.words
    assert page.count("article", "card") == len(kinds) * min(limit, 50)


def test_the_same_data_gives_the_same_page(folder: Folder) -> None:
    for split in ("train", "valid"):
        folder.pair(split, split=split)
    check = folder.check()
    assert report_page(check, RULE) == report_page(check, RULE)


def test_as_a_script(folder: Folder, run: Callable) -> None:
    for split in ("train", "valid"):
        folder.pair(split, split=split)
    page = folder.root / "page.html"
    done = run("datasets.py", "check", "--data", folder.yaml, "--html", page, "--imgsz", 320)
    assert done.returncode == 0, done.stderr
    assert f"The page is {page}" in done.stdout + done.stderr
    assert "images resized to 320 px" in page.read_text()


def test_sample_images_show_every_class_that_they_can() -> None:
    boxes = np.zeros((60, 4), np.float32)
    split = training_boxes_of(np.arange(60), np.append(np.ones(59, int), 7), boxes, images=100)
    chosen = sample_images(split, 16)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 16
    assert 59 in chosen
    assert max(chosen) == 99
    assert sample_images(split, 0) == []
    assert sample_images(training_boxes_of(boxes[:0, 0].astype(int), boxes[:0, 0].astype(int), boxes[:0], 3), 16) == [
        0, 1, 2,
    ]  # fmt: skip


def training_boxes_of(images_of_boxes: np.ndarray, labels: np.ndarray, boxes: np.ndarray, images: int):
    from utils.data_tools.statistics import SplitBoxes

    sizes = np.full((images, 2), 100)
    return SplitBoxes(boxes, labels, images_of_boxes, 0, sizes, sizes)


def test_class_quantiles() -> None:
    values, labels = np.array([5.0, 1, 3, 9]), np.array([1, 1, 1, 3])
    found = class_quantiles(values, labels, 4, (0, 0.5, 1))
    np.testing.assert_array_equal(found, [[np.nan] * 3, [1, 3, 5], [np.nan] * 3, [9, 9, 9]])


def test_axes() -> None:
    assert octave_scale(np.array([3.0, 700]), (32, 64)).ticks() == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert AxisScale(0, 97, 0, 1).ticks(5) == [0, 20, 40, 60, 80]
    x, edges = integer_scale(100)
    assert np.unique(np.diff(edges)).tolist() == [3]
    assert edges[0] == x.low == -0.5
    assert edges[-1] == x.high > 100
    drawn = histogram({"train": np.array([1.0, 1, 2]), "test": np.zeros(0)}, x, description="a", label="b", edges=edges)
    assert "0 to 2: train 3 (100%)" in drawn
    assert "test" not in drawn
    assert heat_map(np.array([[0.5, 0.5], [1.2, -1]]), "a").count("<title>1 box</title>") == 1


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (html_text("a" * 300, 30), "a" * 10 + " … " + "a" * 20),
        (html_text("\x00\ud800\u202e"), "\ufffd" * 3),
        (html_text("<'&\">"), "&lt;&#x27;&amp;&quot;&gt;"),
        (counted(1, "box", "boxes"), "1 box"),
        (counted(2000, "image"), "2,000 images"),
        (percent(0, 0), "0%"),
        (percent(1, 10**5), "&lt;0.1%"),
        (percent(10**5 - 1, 10**5), "&gt;99.9%"),
        (percent(1, 30), "3.3%"),
        (html_list(["<", "b", "c"], 2), "<b>&lt;</b>, <b>b</b> and 1 more"),
    ],
)
def test_words(made: str, expected: str) -> None:
    assert made == expected


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a browser without a window on a page, and gives what it printed."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs chromium or google-chrome")

    def show(page: Path, *flags: str) -> subprocess.CompletedProcess:
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
        ]
        command += [f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)

    return show


@pytest.mark.parametrize(("width", "dark"), [pytest.param(1300, False, marks=pytest.mark.full), (420, True)])
def test_a_browser_shows_it(hostile: Path, browser: Callable, tmp_path: Path, width: int, dark: bool) -> None:
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = browser(hostile, f"--screenshot={tmp_path / 'page.png'}", f"--window-size={width},5000", *flags)
    assert "CONSOLE" not in done.stderr, done.stderr
    shown = cv2.imread(str(tmp_path / "page.png"))[:, :, ::-1].astype(int)
    assert shown.shape[1] == width

    def pixels(*rgb: int) -> np.ndarray:
        return np.argwhere(np.abs(shown - rgb).max(-1) <= 2)

    background, card, verdict, train = (
        ((18, 22, 29), (27, 33, 43), (255, 128, 136), (116, 167, 255))
        if dark
        else ((245, 246, 248), (255, 255, 255), (192, 31, 46), (37, 99, 201))
    )
    assert len(pixels(*background)) > 0.02 * shown[:, :, 0].size
    assert len(pixels(*card)) > 0.2 * shown[:, :, 0].size
    assert 50 < np.median(pixels(*verdict)[:500, 0]) < 300  # the first thing to see
    assert len(pixels(*train)) > 500  # bars and curves
    assert np.ptp(pixels(*card)[:, 1]) <= width
    assert len(np.unique(shown[::5, ::5].reshape(-1, 3), axis=0)) > 2000  # pictures


def test_a_browser_finds_no_script_in_it(hostile: Path, browser: Callable) -> None:
    done = browser(hostile, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    page = Page(re.sub(r"<(meta|link|br|img)([^>]*)/>", r"<\1\2>", done.stdout))
    assert_inert(page)
    assert {a.get("id") for t, a in page.elements if t == "section"} == {
        "summary", "problems", "classes", "sizes", "places", "images", "samples",
    }  # fmt: skip
