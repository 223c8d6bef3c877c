"""Shared fixtures: tiny data sets, scripts run as a user runs them, and no network."""

import atexit
import functools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

from tests.support.shared import make_shared_folder
from utils.labels.writers import write_voc
from utils.text import encodable

settings.register_profile("full", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("full"), max_examples=25, derandomize=True)
settings.load_profile("quick")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs behind them; scripts would heed it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # there are as many workers as cores: threads of each would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the scripts that are run
    torch.set_num_threads(1)

LAYER = "DETECTOR_TESTS_LAYER"  # variable of the environment: quick or full
HANG = 300  # s: what takes longer is stuck, on any machine
ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["__background__", "red", "green"]
CLOSED_PORT = "http://127.0.0.1:9"  # a proxy that refuses: scripts that we run have no network either
OF_IMPORTS = {"OMP_NUM_THREADS", "PYTHONPATH"}  # variables that count when torch, or anything, is imported
NO_NETWORK = {"https_proxy": CLOSED_PORT, "http_proxy": CLOSED_PORT}
COLORS = {"red": (220, 30, 30), "green": (30, 200, 60)}


def pytest_configure(config: pytest.Config) -> None:
    """Make what the workers share, and choose how many examples hypothesis draws: in the quick layer a quarter."""
    folder = make_shared_folder()
    if folder is not None:
        config.add_cleanup(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    os.environ[LAYER] = "quick" if "not full" in config.option.markexpr else "full"
    settings.load_profile(os.environ[LAYER])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The full layer has all tests of hypothesis again, with all their examples."""
    if os.environ[LAYER] == "full":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker("full")


def examples(most: int) -> settings:
    """Examples of hypothesis for a test: `most` in the full layer, and a quarter of them in the quick one."""
    share = settings.default.max_examples / settings.get_profile("full").max_examples
    return settings(max_examples=max(1, round(share * most)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address outside this machine gets what a machine without network gives."""
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host not in ("localhost", "127.0.0.1", "::1", None, socket.gethostname()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A test that calls a script's main() in this process leaves no handlers and no level to the next one."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape output that is not UTF-8 (file names), which pytest-xdist cannot transfer."""
    report = yield
    report.sections = [(title, encodable(text)) for title, text in report.sections]
    return report


def full_among(values: Iterable[Any], full: Collection[Any]) -> list[Any]:
    """Parameters of a test, of which some run in the full layer only."""
    return [pytest.param(value, marks=pytest.mark.full) if value in full else value for value in values]


@dataclass(frozen=True)
class DataSet:
    """A data set on disk: `yaml` is its data YAML, folders are train/ and valid/ with images/ and labels/."""

    root: Path
    yaml: Path

    def rewrite(self, **changes: object) -> None:
        """Set keys of the YAML; None removes one."""
        content = {**yaml.safe_load(self.yaml.read_text()), **changes}
        self.yaml.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))


def squares(rng: np.random.Generator, height: int, width: int, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A gray image with `count` colored squares: image RGB, boxes (count, 4) and class names."""
    image = np.full((height, width, 3), 128, np.uint8)
    boxes, names = [], []
    for _ in range(count):
        name = CLASSES[1 + int(rng.integers(2))]
        side = int(rng.integers(12, 25))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        image[y : y + side, x : x + side] = COLORS[name]
        boxes.append((x, y, x + side, y + side))
        names.append(name)
    return image, np.array(boxes, float).reshape(-1, 4), names


def write_data_set(folder: Path, *, images: int, size: tuple[int, int], splits: Sequence[str]) -> DataSet:
    """Write `images` images per split into folder/data, and folder/data.yaml; every fourth has no object."""
    root = folder / "data"
    config: dict[str, object] = {"CLASSES": CLASSES, "NC": len(CLASSES)}
    for number, split in enumerate(splits):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            config[f"{split.upper()}_DIR_{kind.upper()}"] = str(root / split / kind)
        for i in range(images):
            image, boxes, names = squares(np.random.default_rng([number, i]), *size, 0 if i % 4 == 3 else 1 + i % 3)
            cv2.imwrite(str(root / split / "images" / f"{split}_{i}.jpg"), image[:, :, ::-1])
            write_voc(root / split / "labels" / f"{split}_{i}.xml", f"{split}_{i}.jpg", size, boxes, names)
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(config))
    return DataSet(root, path)


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., DataSet]:
    """Returns a function that writes a data set, see write_data_set."""

    def make(
        *, images: int = 4, size: tuple[int, int] = (64, 80), splits: Sequence[str] = ("train", "valid")
    ) -> DataSet:
        return write_data_set(tmp_path, images=images, size=size, splits=splits)

    return make


class ScriptServer:
    """Scripts without the seconds that their imports take, see script_server.py."""

    def __init__(self, **environment: str) -> None:
        """Variables of the environment that count when torch is imported can be given here alone."""
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "support" / "script_server.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self._environment = environment

    def run(
        self,
        folder: Path,
        command: Sequence[object],
        printed: tuple[Path, Path],
        *,
        timeout: int = HANG,
        kill_after: float | None = None,
        kill_when: tuple[Path, str] | None = None,
        ranks: int = 1,
        draw: bool = False,
        stdin: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> tuple[int, float]:
        """Run a script in a child process, whose output is appended to the files `printed`.

        Args:
            timeout: s, after which SIGALRM ends the script.
            kill_after: s, after which it is killed.
            kill_when: a file and a text; the script is killed once the file has the text.
            ranks: processes, each with the variables that torchrun gives.
            draw: have matplotlib draw its figures, which are blank otherwise; in the full layer it always does.
            stdin: a file to read as standard input; None: nothing.

        Returns:
            The exit code, negative for a signal and the first that is not 0 of several, and seconds.
        """
        script, *arguments = map(str, command)
        request = {
            "command": [str(ROOT / script), *arguments],
            "folder": str(folder),
            "environment": {**os.environ, **NO_NETWORK, **self._environment, **(environment or {})},
            "printed": [str(path) for path in printed],
            "timeout": timeout,
            "kill_after": kill_after,
            "kill_when": kill_when and [str(kill_when[0]), kill_when[1]],
            "ranks": ranks,
            "stdin": stdin and str(stdin),
            "draw": draw or os.environ[LAYER] == "full",
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return tuple(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()


@functools.cache
def script_server() -> ScriptServer:
    """Return the server of this worker; the test is skipped on Windows, which cannot fork."""
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked here")
    server = ScriptServer()
    atexit.register(server.close)
    return server


def run_script(
    folder: Path,
    script: str,
    *arguments: object,
    timeout: int = HANG,
    draw: bool = False,
    stdin: Path | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run a script of the project in `folder`, as a user would: run_script(folder, "train.py", "-h").

    Unless a variable of the environment counts in imports, a process that has made them becomes the script; its
    matplotlib figures are blank unless `draw`.
    """
    command = [script, *map(str, arguments)]
    if not (hasattr(os, "fork") and OF_IMPORTS.isdisjoint(environment)):
        with open(stdin or os.devnull, "rb") as file:
            return subprocess.run(
                [sys.executable, ROOT / script, *command[1:]], cwd=folder, capture_output=True, text=True,
                timeout=timeout, stdin=file, env={**os.environ, **NO_NETWORK, **environment},
            )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        printed = Path(place) / "stdout", Path(place) / "stderr"
        code, _ = script_server().run(
            folder, command, printed, timeout=timeout, draw=draw, stdin=stdin, environment=environment
        )
        return subprocess.CompletedProcess(command, code, *(path.read_text() for path in printed))


@contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """Within it no file takes more than `room` bytes; errors of the system are those of a full disk but for the number.

    Where the system has no such limit the test is skipped.
    """
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """run_script in `tmp_path`."""
    return functools.partial(run_script, tmp_path)
