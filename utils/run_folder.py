"""Make folders for results that no other run uses."""

import re
from pathlib import Path

from utils.errors import UserError

TRAINING = Path("outputs/training")
EVALUATION = Path("outputs/evaluation")
INFERENCE = Path("outputs/inference")


def numbered_folder(parent: Path) -> Path:
    """Make and return parent/res_N, with N larger than all existing numbers."""
    while True:
        taken = [int(m[1]) for p in parent.glob("res_*") if (m := re.fullmatch(r"res_(\d+)", p.name))]
        folder = parent / f"res_{max(taken, default=0) + 1}"
        if _make(folder):
            return folder


def named_folder(parent: Path, name: str) -> Path:
    """Make and return parent/name, or parent/name_2, name_3 ... if it exists.

    Raises:
        UserError: the name is outside `parent`.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.strip():
        raise UserError(f"--name {name!r} leads out of {parent}: give a plain name, or a folder with --project-dir")
    folder, number = parent / name, 1
    while not _make(folder):
        number += 1
        folder = parent / f"{name}_{number}"
    return folder


def given_folder(folder: Path, contents: str | None = None) -> Path:
    """Make exactly this folder if it does not exist, and return it.

    Raises:
        UserError: it contains a file named `contents` of an earlier run, or is a file itself.
    """
    if contents is not None and (folder / contents).exists():
        raise UserError(
            f"{folder} holds {contents} of an earlier run, which would be overwritten: choose another folder"
        )
    if not _make(folder) and not folder.is_dir():
        raise UserError(f"{folder}: a file of that name is in the way: choose another folder")
    return folder


def _make(folder: Path) -> bool:
    """Make the folder; False if it exists."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror})") from None
    return True
