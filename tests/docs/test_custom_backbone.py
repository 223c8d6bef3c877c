"""docs/custom_backbone.md, followed to the letter in a copy of the project."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "custom_backbone.md").read_text()
NEEDED = ("models", "utils", "torch_utils", "data_configs", "*.py")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's code, with the files of the page in it."""
    folder = tmp_path_factory.mktemp("project")
    for pattern in NEEDED:
        for path in ROOT.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    for name, code in re.findall(r"`(models/fasterrcnn_\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).write_text(code)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("block", re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL), ids=["mynet", "mypyramid"])
def test_the_commands_of_the_page_run(project: Path, block: str) -> None:
    printed = ""
    for command in block.strip().splitlines():
        program, *words = command.split()
        assert program == "python"
        done = subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed += done.stdout
    assert re.search(r"fasterrcnn_my\w+: Cost: [\d.]+ M parameters, [\d.]+ GFLOPs, strides [\d ]+\.", printed)


def test_the_files_of_the_page_are_in_our_style(project: Path) -> None:
    files = sorted(project.glob("models/fasterrcnn_my*.py"))
    assert [path.name for path in files] == ["fasterrcnn_mynet.py", "fasterrcnn_mypyramid.py"]
    for command in (["check"], ["format", "--check"]):
        words = [*command, "--config", str(ROOT / "pyproject.toml"), *map(str, files)]
        done = subprocess.run([sys.executable, "-m", "ruff", *words], cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_every_field_of_a_spec_is_explained() -> None:
    from dataclasses import fields

    from models.building.backbone_spec import BackboneSpec

    assert [f.name for f in fields(BackboneSpec) if f"`{f.name}`" not in PAGE] == []
