"""Errors that a user can fix. Scripts print them in one line and exit with code 2."""

import os
import time

_REPORT_SECONDS = 15.0  # for the first process to print the error and exit; its launcher then ends the others
USAGE = 2  # exit code of a user error, as in argparse


class UserError(Exception):
    """Error in the user's input. The message says what was wrong, the value, the expected value and the remedy."""


class DataError(UserError):
    """Error in a data YAML, an image or a label file. The message starts with the file."""


def let_first_process_report() -> None:
    """Delay processes other than the first before they print an error that all have, so it is printed once."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        time.sleep(_REPORT_SECONDS)
