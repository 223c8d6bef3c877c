import subprocess
import sys
from pathlib import Path

import pytest

import models.headers
from models import create_fasterrcnn_model as registry
from models.cost import cost_of
from models.create_fasterrcnn_model import create_model
from models.headers import TAKE_FIRST, Header, markdown_table, read_header, update_page
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
        "m", "Title", "40.4", "5.0", "8 16", "COCO", "torchvision X_Weights.COCO_V1", "BSD-3-Clause", "37.0"
    )
    assert header.has_coco_weights


def test_a_header_may_be_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert header_of(tmp_path, monkeypatch) == Header("m", "Title", weights="none")
    assert not header_of(tmp_path, monkeypatch, "Weights: none, random.").has_coco_weights


@pytest.mark.parametrize("line", ["Weights: ImageNet.", "Cost: much."])
def test_a_header_in_another_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    with pytest.raises(ModelError, match=r"m\.py: cannot parse '.*', expected for example"):
        header_of(tmp_path, monkeypatch, line)


def test_the_table_of_the_docs_is_the_generated_one() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    names = [name for name in create_model if f"| `{name}` |" in text]
    assert markdown_table([read_header(name) for name in names]) in text, (
        "python -m models.create_fasterrcnn_model --docs"
    )


def test_the_docs_give_a_reason_for_every_model_to_take_first() -> None:
    assert set(TAKE_FIRST) <= set(create_model)
    reasons = (ROOT / "docs" / "models.md").read_text().partition("<!-- models: begin -->")[0]
    assert [name for name in TAKE_FIRST if f"`{name}`" not in reasons] == []
    assert [name for name, need in TAKE_FIRST.items() if f"| `{name}` | {need} |" not in reasons] == []


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "models.md"
    path.write_text(PAGE)
    update_page(path, [Header("fasterrcnn_a", "A", "1.0", "2.0", "32", "none")])
    text = path.read_text()
    assert text.startswith("# Models\n<!-- models: begin -->\n| model (`--model`) |")
    assert "| `fasterrcnn_a` |  | 1.0 | 2.0 | 32 |  | none |" in text
    assert text.endswith("<!-- models: end -->\nmore\n")
    assert "old" not in text
    path.write_text("nothing")
    with pytest.raises(ModelError, match="expected the comments"):
        update_page(path, [])


@pytest.mark.parametrize("flag", ["--docs", "--readme"])
def test_the_flag_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "models.md"
    page.write_text(PAGE)
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "models" / "create_fasterrcnn_model.py"))
    monkeypatch.setattr(sys, "argv", ["x", flag])
    registry.main()
    assert markdown_table([read_header(name) for name in create_model]) in page.read_text()


def test_the_list_needs_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['x']\n"
        "runpy.run_module('models.create_fasterrcnn_model', run_name='__main__')\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "False"
    assert [name for name in create_model if name not in done.stdout] == []


@pytest.mark.full
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
