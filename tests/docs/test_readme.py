"""README.md: its length, its links and pictures, and its commands on the demo data set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import NO_NETWORK, ROOT
from utils.version import VERSION

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDED = ("models", "utils", "torch_utils", "data_configs", "example_test_data", "examples", "*.py")
TASKS = dict(re.findall(r"^\| ([^|]+) \| `(python [^`]+)` \|$", README, re.MULTILINE))
SMALLER = {  # of the trainings; all else runs as it is written
    "--imgsz 240": "--imgsz 32",
    "--epochs 8": "--epochs 1 --train-sample 0 --workers 0",
    "--rois-per-image 128 --proposals 200": "--rois-per-image 16 --proposals 50",
}
RESUMED = {"--epochs 9": "--epochs 2"}
RESULTS = ("outputs/check.html", "outputs/compare.html", "weights/demo.onnx", "data/demo_coco/data_config.yaml")
SECTIONS = (
    "Get started", "Updates", "Model names", "Set-up", "Custom weights", "Train on a custom dataset",
    "Distributed training", "Inference", "Evaluation", "Export to ONNX", "List of all flags", "Tutorials",
)  # fmt: skip


def without_code(text: str) -> list[str]:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", "\n".join(without_code(page.read_text())), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250
    assert [line for line in without_code(README) if len(line) > 128 and not line.startswith("|")] == []


def test_the_sections_that_users_look_for_are_there() -> None:
    assert [title for title in SECTIONS if f"\n## {title}\n" not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()]
    assert max(sizes) < 200_000
    assert sum(sizes) <= 400_000


@pytest.mark.parametrize(
    "word", ["train", "resume", "evaluate", "image", "video", "slices", "ONNX", "check", "convert"]
)
def test_every_task_has_a_command(word: str) -> None:
    assert any(word in task for task in TASKS)


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert f"\n## [{VERSION}] - " in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's code after the first command of the README, with a smaller training."""
    folder = tmp_path_factory.mktemp("project")
    for pattern in NEEDED:
        for path in ROOT.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    (first,) = re.findall(r"pip install -r requirements\.txt && (python train\.py .*)", README)
    run(folder, first)
    return folder


def run(folder: Path, command: str) -> str:
    """What a command of the README prints, in a folder."""
    for text, smaller in (RESUMED if "--resume" in command else SMALLER).items():
        command = command.replace(text, smaller)
    program, *words = command.split()
    assert program == "python"
    environment = {**os.environ, **NO_NETWORK}
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


@pytest.mark.full
def test_the_commands_of_the_tasks_run_in_order(project: Path) -> None:
    for command in TASKS.values():
        printed = run(project, command)
        assert "Traceback" not in printed, command
    for result in (
        "outputs/check.html",
        "outputs/compare.html",
        "weights/demo.onnx",
        "data/demo_coco/data_config.yaml",
    ):
        assert (project / result).is_file(), result
    videos = list(project.glob("outputs/inference/*/video.mp4"))
    assert len(videos) == 1
    assert list(videos[0].parent.glob("*_tracks.txt"))
