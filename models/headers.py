"""Read the headers of the model files (paper, weights and license, cost) and write them as tables. Imports no model.

    Weights: ImageNet, torchvision ResNet18_Weights.IMAGENET1K_V1 (BSD-3-Clause).
    Cost: 40.4 M parameters, 42.1 GFLOPs, strides 32.

Parameters are counted at 21 classes. GFLOPs are multiply-adds of one image of 640 x 640 px with 1000 proposals. Strides
are those of the feature maps that have anchors. `python -m models.cost NAME` computes the Cost line.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.rcnn.errors import ModelError

MODELS = Path(__file__).parent
TAKE_FIRST: Mapping[str, str] = {  # model -> the need that it serves; docs/models.md gives the reasons
    "fasterrcnn_resnet50_fpn_v2": "accuracy, with a GPU",
    "fasterrcnn_mobilenetv3_large_fpn": "speed",
    "fasterrcnn_resnet18_fpn": "small objects, small GPU",
    "fasterrcnn_mbv3_small_nano_head": "tiny, on a CPU",
    "fasterrcnn_nano": "trials without a download",
}
_WEIGHTS = re.compile(r"(?P<data>[^,(]+), (?P<source>[^(]+) \((?P<license>[^)]+)\)(?P<more>.*)\.", re.DOTALL)
_COST = re.compile(r"(?P<parameters>[\d.]+) M parameters, (?P<gflops>[\d.]+) GFLOPs, strides (?P<strides>[\d ]+)\.")
_COCO_MAP = re.compile(r"mAP (\d+\.\d+)")
_TABLE = re.compile(r"(<!-- models: begin -->\n).*?(<!-- models: end -->)", re.DOTALL)
_TERMINAL_COLUMNS = ("model", "take first for", "M params", "GFLOPs", "strides", "COCO mAP", "weights", "license")
_COLUMNS = (
    "model (`--model`)", "take first for", "parameters, M", "GFLOPs", "strides", "COCO mAP", "published weights",
    "license of the weights",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The first lines of a model file, as text; empty where the file does not say."""

    name: str
    title: str
    parameters: str = ""  # millions
    gflops: str = ""
    strides: str = ""
    weights: str = ""  # data set of the published weights, or "none"
    source: str = ""
    license: str = ""
    coco_map: str = ""  # percent on val2017, published; of weights for the whole detector

    @property
    def has_coco_weights(self) -> bool:
        """True where the published weights are those of the whole detector."""
        return self.weights == "COCO"


def read_header(name: str) -> Header:
    """Parse the docstring of models/NAME.py.

    Raises:
        ModelError: a Weights or Cost line is not in the form that this module describes.
    """
    path = MODELS / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, _, rest = text.partition("\n")
    fields = dict(re.findall(r"^(Weights|Cost): (.*(?:\n(?!\w+: ).+)*)", rest, re.MULTILINE))
    weights, cost = " ".join(fields.get("Weights", "none, random.").split()), fields.get("Cost")
    parsed: dict[str, str] = {}
    for value, pattern, example in (
        (None if weights.startswith("none") else weights, _WEIGHTS, "ImageNet, torchvision NAME (LICENSE)."),
        (cost, _COST, "40.4 M parameters, 42.1 GFLOPs, strides 32."),
    ):
        match = pattern.match(value) if value is not None else None
        if value is not None and match is None:
            raise ModelError(f"{path}: cannot parse {value!r}, expected for example {example!r}")
        parsed |= match.groupdict() if match else {}
    parsed["weights"] = parsed.pop("data", "none")
    published = _COCO_MAP.search(parsed.pop("more", ""))
    return Header(name, title.removesuffix("."), coco_map=published[1] if published else "", **parsed)


def text_table(headers: list[Header]) -> str:
    """Return aligned columns for a terminal."""
    rows = [_TERMINAL_COLUMNS, *map(_cells, headers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def markdown_table(headers: list[Header]) -> str:
    """Return the same columns as Markdown, one line per model."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS)]
    lines += [(f"`{name}`", *others) for name, *others in map(_cells, headers)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def update_page(path: Path, headers: list[Header]) -> None:
    """Replace the table between the two comments of a Markdown page.

    Raises:
        ModelError: the page does not have the two comments exactly once.
    """
    text = path.read_text(encoding="utf-8")
    changed, count = _TABLE.subn(lambda match: match[1] + markdown_table(headers) + match[2], text)
    if count != 1:
        raise ModelError(f"{path}: expected the comments <!-- models: begin --> and <!-- models: end --> once")
    path.write_text(changed, encoding="utf-8")


def _cells(header: Header) -> tuple[str, ...]:
    weights = f"{header.weights}: {header.source}" if header.source else header.weights
    return (
        header.name, TAKE_FIRST.get(header.name, ""), header.parameters, header.gflops, header.strides,
        header.coco_map, weights, header.license,
    )  # fmt: skip
