import subprocess
import sys
from pathlib import Path

import pytest

import models.headers
from models.cost import cost_of
from models.create_fasterrcnn_model import create_model
from models.headers import Header, read_header, readme_table, update_readme
from models.rcnn.errors import ModelError
from tests.conftest import ROOT, full_among

PAGE = "# Models\n<!-- models: begin -->\nold\n<!-- models: end -->\nmore\n"


def header_of(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Header:
    (folder / "m.py").write_text('"""Title.\n\n' + "\n".join(lines) + '\n"""\n')
    monkeypatch.setattr(models.headers, "MODELS", folder)
    return read_header("m")


@pytest.mark.parametrize(
    "name", full_among(create_model, [name for number, name in enumerate(create_model) if number % 4])
)
def test_the_cost_in_the_header_is_the_models(name: str) -> None:
    header, cost = read_header(name), cost_of(name)
    said = f"{header.parameters} M parameters, {header.gflops} GFLOPs, strides {header.strides}."
    assert said == str(cost), f"Cost: {cost}"


def test_a_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = header_of(
        tmp_path, monkeypatch, "Paper: A and B 2020, https://x.org", "Weights: COCO, torchvision X_Weights.COCO_V1",
        "    (BSD-3-Clause), mAP 37.0.", "Cost: 40.4 M parameters, 5.0 GFLOPs, strides 8 16.",
    )  # fmt: skip
    assert header == Header(
        "m", "Title", "40.4", "5.0", "8 16", "COCO", "torchvision X_Weights.COCO_V1", "BSD-3-Clause"
    )
    assert header.has_coco_weights


def test_a_header_may_be_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert header_of(tmp_path, monkeypatch) == Header("m", "Title", weights="none")
    assert not header_of(tmp_path, monkeypatch, "Weights: none, random.").has_coco_weights


@pytest.mark.parametrize("line", ["Weights: ImageNet.", "Cost: much."])
def test_a_header_in_another_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    with pytest.raises(ModelError, match=r"m\.py: '.*' is not understood, expected for example"):
        header_of(tmp_path, monkeypatch, line)


def test_the_table_in_the_readme_is_the_generated_one() -> None:
    text = (ROOT / "README.md").read_text()
    names = [name for name in create_model if f"| `{name}` |" in text]
    assert readme_table([read_header(name) for name in names]) in text, (
        "python -m models.create_fasterrcnn_model --readme"
    )


def test_the_readme_is_written_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(PAGE)
    update_readme(path, [Header("fasterrcnn_a", "A", "1.0", "2.0", "32", "none")])
    text = path.read_text()
    assert text.startswith("# Models\n<!-- models: begin -->\n| model (`--model`) |")
    assert "| `fasterrcnn_a` | 1.0 | 2.0 | 32 | none |" in text
    assert text.endswith("<!-- models: end -->\nmore\n")
    assert "old" not in text
    path.write_text("nothing")
    with pytest.raises(ModelError, match="expected the comments"):
        update_readme(path, [])


def test_the_list_needs_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x']\n"
        "runpy.run_module('models.create_fasterrcnn_model', run_name='__main__')\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "False"
    assert [name for name in create_model if name not in done.stdout] == []


@pytest.mark.parametrize("arguments", [[], pytest.param(["--help"], marks=pytest.mark.full)])
def test_the_cost_of_nothing_says_how_it_is_used(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "models.cost", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m models.cost MODEL")


@pytest.mark.full
def test_the_cost_of_a_name_that_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "models.cost", "fasterrcnn_x"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown model 'fasterrcnn_x'")
