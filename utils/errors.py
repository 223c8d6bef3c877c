"""What a person can put right. Scripts print such an error in one line and leave with exit code 2."""

import os
import time

_FIRST_WORD = 15.0  # s for the first of several processes to tell what all found and leave; its launcher then ends them
USAGE = 2  # exit code of a mistake that the user can put right, as argparse has it


class UserError(Exception):
    """A mistake in the input. The message says what, got, expected and the remedy."""


class DataError(UserError):
    """A mistake in a data YAML, an image or a label file. The message starts with the file."""


def let_first_process_report() -> None:
    """Call before printing an error: of one that all processes have, the first one's print is then the only one."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) != "0":
        time.sleep(_FIRST_WORD)
