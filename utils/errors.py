"""Errors that a user can fix. Scripts print them in one line and exit with code 2."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_REPORT_SECONDS = 15.0  # for the first process to print the error and exit; its launcher then ends the others
USAGE = 2  # exit code of a user error, as in argparse


class UserError(Exception):
    """Error in the user's input. The message says what was wrong, the value, the expected value and the remedy."""


class DataError(UserError):
    """Error in a data YAML, an image or a label file. The message starts with the file."""


class MissingPackageError(UserError, ImportError):
    """An optional package cannot be imported. The message says what to install."""


@contextmanager
def requires_package(package: str, needed_by: str, *, remedy: str = "") -> Iterator[None]:
    """Turn a failed import in the `with` block into one line that says what to install.

        with requires_package("onnxslim", "--simplify", remedy="give --no-simplify"):
            import onnxslim

    Args:
        package: its name for pip.
        needed_by: the flag or the feature that needs it.
        remedy: what to do instead of installing it.

    Raises:
        MissingPackageError: the import failed.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        detail = "" if module == package.replace("-", "_") else f" ({error})"  # one of its own dependencies fails
        alternative = f", or {remedy}" if remedy else ""
        raise MissingPackageError(
            f"{needed_by} needs the package {package}{detail}: pip install {package}{alternative}", name=error.name
        ) from None


def let_first_process_report() -> None:
    """Delay processes other than the first before they print an error that all have, so it is printed once."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        time.sleep(_REPORT_SECONDS)
