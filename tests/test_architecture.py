"""The rules of docs/architecture.md that a machine can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from models.create_fasterrcnn_model import create_model
from tests.conftest import ROOT
from utils.cli.flags import parse_options
from utils.cli.options import (
    CheckOptions,
    CompareOptions,
    ConvertOptions,
    EvalOptions,
    ExportOptions,
    InferenceOptions,
    SahiOptions,
    VideoOptions,
)
from utils.cli.train_options import TrainOptions
from utils.version import VERSION

ROOMS = ("models", "torch_utils", "utils")
SCRIPTS = ("train", "eval", "inference", "inference_video", "sahi_inference", "export")
# Folders, or single modules of them. A module may import from its own row and from earlier rows. A folder stands for
# its own modules, not for the folders in it.
ORDER = (
    ("utils",),
    ("utils.cli",),
    ("utils.images",),
    ("utils.labels",),
    ("utils.augment",),
    ("utils.loading",),
    ("utils.detect",),
    ("utils.slicing",),
    ("utils.visualize",),
    ("utils.inference",),
    ("utils.tracking",),
    ("utils.video",),
    ("utils.data_tools",),
    ("models.rcnn.errors",),
    ("models.building.backbone_spec", "models.building.build_options"),
    ("models.rcnn",),
    ("models.building",),
    ("models.backbones",),
    ("models",),
    ("torch_utils.distributed", "torch_utils.slurm", "torch_utils.checkpoint"),
    ("torch_utils.training",),
    ("torch_utils.evaluation",),
    ("torch_utils.engine",),
    ("torch_utils.runs",),
    ("torch_utils",),
    ("datasets",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
SOURCES = sorted(
    path
    for room in (".", *ROOMS, "benchmarks", "example_test_data", "examples")
    for path in (ROOT / room).glob("**/*.py" if room != "." else "*.py")
)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
    if path.relative_to(ROOT).parts[0] in (*ROOMS, "datasets.py")
}


def imports(path: Path) -> set[str]:
    """Our modules that a file imports, anywhere in it but under `if __name__ == "__main__"`."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    main = [n for n in tree.body if isinstance(n, ast.If) and "__main__" in ast.dump(n.test)]
    skipped = {id(child) for node in main for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules or {node.module}
    return {name for name in names if name.split(".")[0] in {*ROOMS, *SCRIPTS, "datasets"}}


def rank(module: str) -> int:
    """Place of a module in ORDER."""
    return RANK[module] if module in RANK and MODULES[module].name != "__init__.py" else RANK[module.rpartition(".")[0]]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_a_script(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & set(SCRIPTS)


@pytest.mark.parametrize("module", sorted(m for m, path in MODULES.items() if path.name != "__init__.py"))
def test_imports_go_down_the_order_of_the_folders(module: str) -> None:
    upward = [name for name in imports(MODULES[module]) if name in MODULES and rank(name) > rank(module)]
    assert not upward, f"{module} imports {upward}, which come after it in ORDER"
    rooms = {name.split(".")[0] for name in imports(MODULES[module])} - {module.split(".")[0]}
    assert rooms <= (
        {"models", "utils"} if module.startswith("torch_utils") else set() if module[0] == "m" else {"utils"}
    )


def test_test_modules_share_code_in_support_only() -> None:
    allowed = re.compile(r"tests\.(conftest|support(\.\w+)*)")
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")  # with child scripts, which are strings
        modules = re.findall(r"^\s*f?[\"']*(?:from|import) (tests[\w.]*)", text, re.MULTILINE)
        assert [name for name in modules if not allowed.fullmatch(name)] == [], path
        assert "import *" not in text.replace('"import *"', ""), path


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: imports(path) & MODULES.keys() for module, path in MODULES.items()}
    finished: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in finished:
            for name in graph[module]:
                visit(name, (*trail, module))
            finished.add(module)

    for module in graph:
        visit(module, ())


def test_every_folder_has_a_place_in_the_order_and_room_for_all_its_modules() -> None:
    folders: dict[Path, int] = {}
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in listed:
        folders[Path(name).parent] = folders.get(Path(name).parent, 0) + 1
    assert {str(folder): count for folder, count in folders.items() if count > 18 and str(folder) != "models"} == {}
    assert len(list((ROOT / "utils").glob("*.py"))) <= 12
    in_rooms = {".".join(folder.parts) for folder in folders if folder.parts and folder.parts[0] in ROOMS}
    assert in_rooms <= RANK.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sources_leave_the_search_path_alone_and_hide_no_error(path: Path) -> None:
    text = path.read_text()
    assert "sys.path" not in text
    assert not re.search(r"except( Exception| BaseException)?:", text)
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_is_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        *((f"{script}.py", "torch cv2 numpy yaml matplotlib") for script in SCRIPTS),
        ("datasets.py convert", "torch"),
        ("torch_utils/compare.py", "torch cv2 numpy yaml"),
    ],
)
def test_help_waits_for_no_heavy_import(command: str, unwanted: str) -> None:
    """--help in under a second: neither torch nor anything like it is imported for it."""
    script, *words = command.split()
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[script, *words, '--help']}\n"
        "try:\n"
        f"    runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([m for m in {unwanted.split()} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert f"usage: {command.removeprefix('torch_utils/')}" in done.stdout


def readme_commands() -> list[str]:
    """Every command line in the code blocks and tables of the README and the docs' pages, continued lines joined."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    page = "\n".join(path.read_text() for path in pages)
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", page, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    in_tables = re.findall(r"^\|.*\| `(python [^`]+)` \|$", page, re.MULTILINE)
    return [line.strip() for line in text.splitlines()] + in_tables


def test_readme_commands_parse() -> None:
    options = {
        "train.py": TrainOptions, "eval.py": EvalOptions, "inference.py": InferenceOptions,
        "inference_video.py": VideoOptions, "sahi_inference.py": SahiOptions, "export.py": ExportOptions,
        "convert": ConvertOptions, "check": CheckOptions, "torch_utils.compare": CompareOptions,
    }  # fmt: skip
    seen = set()
    for command in readme_commands():
        for part in command.split("&&"):
            words = part.split()
            script = next((w for w in words if w in options), None)
            if script is not None:
                argv = [w.strip("'\"") for w in words[words.index(script) + 1 :]]
                parse_options(options[script], "", argv)
                seen.add(script)
    assert seen == set(options)


def test_ci_calls_exactly_the_readmes_test_command() -> None:
    command = "pip install -r requirements-dev.txt && python -m pytest -x -q"
    assert command in readme_commands()
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_docs_list_every_model() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    assert [name for name in create_model if f"`{name}`" not in text] == []


def test_changelog_has_this_version() -> None:
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_repository_holds_no_large_or_private_files() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 700_000, name
            assert path.suffix not in (".pth", ".onnx", ".zip"), name


def test_data_configs_name_no_absolute_path() -> None:
    for path in (ROOT / "data_configs").glob("*.yaml"):
        values = yaml.safe_load(path.read_text()).values()
        assert not any(isinstance(v, str) and v.startswith("/") for v in values), path
