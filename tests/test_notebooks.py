"""The notebooks of notebook_examples, run as they stand but for their settings."""

import ast
import importlib
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from tests.conftest import CLOSED_PORT, ROOT

NOTEBOOKS = sorted((ROOT / "notebook_examples").glob("*.ipynb"))
QUICK = {
    "train_custom_data": {"IMGSZ": 160, "EPOCHS": 1, "BATCH": 4},
    "view_annotations": {},
}  # settings that are changed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what git knows of the project: notebooks write into it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            target = tmp_path / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return tmp_path / "project"


@pytest.mark.full
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_to_its_end(path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"https_proxy": CLOSED_PORT, "http_proxy": CLOSED_PORT, "no_proxy": "localhost"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    changes = "".join(f"{name} = {value!r}\n" for name, value in QUICK[path.stem].items())
    (settings,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert set(QUICK[path.stem]) <= {line.split(" = ")[0] for line in settings.source.splitlines()}
    settings.source += f"\n{changes}"
    place = {"metadata": {"path": str(project / "notebook_examples")}}
    NotebookClient(notebook, timeout=400, resources=place).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "error:" not in printed, printed
    if path.stem == "train_custom_data":
        assert "image,label,xmin" in printed  # of the exported detector
        assert (project / "weights/notebook.onnx").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_has_no_outputs(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_it_imports_of_the_project_exists(path: Path) -> None:
    """A name that changes breaks the notebook, which only the full layer runs."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    source = TransformerManager().transform_cell("\n".join(cells))  # commands of IPython become calls
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if (ROOT / node.module.split(".")[0]).is_dir()]
    for node in ours:
        module = importlib.import_module(node.module)
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module


def test_every_notebook_is_known() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(QUICK)
