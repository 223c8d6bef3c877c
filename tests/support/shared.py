"""Files that are made once in a run of the tests, whichever worker of pytest-xdist needs them first."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_FOLDER = "DETECTOR_TESTS_SHARED_FOLDER"  # variable of the environment, which workers inherit


def make_shared_folder() -> Path | None:
    """Make the folder of this run of the tests; None in a worker, which has that of the main process."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return None
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="detector-tests-")
    return Path(os.environ[_FOLDER])


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name`, which `make` has filled; nobody may change its files.

    Args:
        make: called with an empty folder by the first that asks; others wait for it.
    """
    folder = Path(os.environ[_FOLDER]) / name
    complete = folder.with_name(f"{name}.complete")
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
