"""What the model files say of themselves in their first lines: paper, weights and license, cost. No model is imported.

    Weights: ImageNet, torchvision ResNet18_Weights.IMAGENET1K_V1 (BSD-3-Clause).
    Cost: 40.4 M parameters, 42.1 GFLOPs, strides 32.

Parameters are those at 21 classes; GFLOPs are multiplications with an addition, of one image of 640 x 640 px with 1000
proposals; strides are those of the maps that have anchors. `python -m models.cost NAME` computes the line.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from models.rcnn.errors import ModelError

MODELS = Path(__file__).parent
_WEIGHTS = re.compile(r"(?P<data>[^,(]+), (?P<source>[^(]+) \((?P<license>[^)]+)\)(?P<more>.*)\.", re.DOTALL)
_COST = re.compile(r"(?P<parameters>[\d.]+) M parameters, (?P<gflops>[\d.]+) GFLOPs, strides (?P<strides>[\d ]+)\.")
_README = re.compile(r"(<!-- models: begin -->\n).*?(<!-- models: end -->)", re.DOTALL)
_COLUMNS = ("model (`--model`)", "parameters, M", "GFLOPs", "strides", "published weights", "their license")


@dataclass(frozen=True)
class Header:
    """The first lines of a model file; text as it stands there, empty where there is none."""

    name: str
    title: str
    parameters: str = ""  # millions
    gflops: str = ""
    strides: str = ""
    weights: str = ""  # what they were trained on
    source: str = ""
    license: str = ""

    @property
    def has_coco_weights(self) -> bool:
        """Whether the weights are of the whole detector."""
        return self.weights == "COCO"


def read_header(name: str) -> Header:
    """The header of models/NAME.py.

    Raises:
        ModelError: a line of it is not in the form that this module describes.
    """
    path = MODELS / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, _, rest = text.partition("\n")
    fields = dict(re.findall(r"^(Weights|Cost): (.*(?:\n(?!\w+: ).+)*)", rest, re.MULTILINE))
    weights, cost = " ".join(fields.get("Weights", "none, random.").split()), fields.get("Cost")
    found = {"weights": "none"}
    for value, pattern, example in (
        (None if weights.startswith("none") else weights, _WEIGHTS, "ImageNet, torchvision NAME (LICENSE)."),
        (cost, _COST, "40.4 M parameters, 42.1 GFLOPs, strides 32."),
    ):
        match = pattern.match(value) if value is not None else None
        if value is not None and match is None:
            raise ModelError(f"{path}: {value!r} is not understood, expected for example {example!r}")
        found |= match.groupdict() if match else {}
    found["weights"] = found.pop("data", "none")
    found.pop("more", None)
    return Header(name, title.removesuffix("."), **found)


def text_table(headers: list[Header]) -> str:
    """Aligned columns for a terminal."""
    rows = [("model", "M params", "GFLOPs", "strides", "weights", "license"), *map(_cells, headers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def readme_table(headers: list[Header]) -> str:
    """The same as Markdown, a line per model."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS)]
    lines += [(f"`{name}`", *others) for name, *others in map(_cells, headers)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def update_readme(path: Path, headers: list[Header]) -> None:
    """Write the table anew between its two comments.

    Raises:
        ModelError: they are not there.
    """
    text = path.read_text(encoding="utf-8")
    changed, count = _README.subn(lambda match: match[1] + readme_table(headers) + match[2], text)
    if count != 1:
        raise ModelError(f"{path}: expected the comments <!-- models: begin --> and <!-- models: end --> once")
    path.write_text(changed, encoding="utf-8")


def _cells(header: Header) -> tuple[str, ...]:
    weights = f"{header.weights}: {header.source}" if header.source else header.weights
    return (header.name, header.parameters, header.gflops, header.strides, weights, header.license)
