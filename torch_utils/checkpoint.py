"""Checkpoint files: written atomically, read without executing code in them.

docs/checkpoints.md lists the keys. The predecessor's files are read too.
"""

import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.cli.checks import checkpoints_beside
from utils.errors import UserError
from utils.files import write_atomically

FORMAT = 2  # 1: model_options counted trainable layers, not frozen ones
_MODEL = {"model_state_dict": Mapping, "data": Mapping, "model_name": str}  # key -> type, in every file
_DICTS = ("options",)  # where they are there
_RUN = {"optimizer_state_dict": Mapping, "epoch": int}  # in last_model.pth besides


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts.

    Raises:
        OSError: the file cannot be written; what is at `path` is then as it was.
    """
    try:
        write_atomically(path, lambda file: torch.save(dict(checkpoint), file))
    except RuntimeError as error:  # of torch's own writer, which comes to its end without what the disk refused
        refused = error.__context__
        if not isinstance(refused, OSError):
            raise
        raise OSError(refused.errno, refused.strerror, str(path)) from None


def load_checkpoint(path: Path, *, whole_run: bool = False) -> dict[str, Any]:
    """Read a checkpoint of ours or of the predecessor to the CPU.

    Keys of the model lose DDP's `module.`, and numpy's numbers become Python's.

    Args:
        whole_run: it must hold all that resuming needs.

    Raises:
        UserError: the file is missing, damaged, holds code, or is no checkpoint of a detector.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{checkpoints_beside(path)}")
    if path.suffix.lower() == ".onnx":
        raise UserError(f"{path}: an ONNX file, where a checkpoint is needed: give the .pth that it was exported from")
    if not zipfile.is_zipfile(path):  # what torch.save writes since 1.6
        raise UserError(f"{path}: not a PyTorch checkpoint, or cut off")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise UserError(f"{path}: compressed, which PyTorch never does: 1 MB may become 1 GB; use another file")
        with torch.serialization.safe_globals(_numpy_numbers()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors and numbers, or is no checkpoint; it is not opened, "
            "because unpacking such a file could run any code"
        ) from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"{path}: not a PyTorch checkpoint, or damaged ({_first_line(error)})") from None
    found = checkpoint if isinstance(checkpoint, dict) else {}
    wrong = [key for key, kind in _MODEL.items() if not isinstance(found.get(key), kind)]
    wrong += [key for key in _DICTS if not isinstance(found.get(key, {}), Mapping)]
    if wrong:
        raise UserError(f"{path}: no checkpoint of a detector: it lacks {', '.join(wrong)} of the right kind")
    if whole_run and not all(isinstance(checkpoint.get(key), kind) for key, kind in _RUN.items()):
        raise UserError(f"{path}: holds a model, not a run: resume from last_model.pth, or drop --resume-training")
    state = checkpoint["model_state_dict"]
    checkpoint["model_state_dict"] = {str(key).removeprefix("module."): tensor for key, tensor in state.items()}
    if len(checkpoint["model_state_dict"]) < len(state):
        raise UserError(f"{path}: its model has tensors of one name with and without module.: use another file")
    try:
        return {key: _plain(value) for key, value in checkpoint.items()}
    except RecursionError:
        raise UserError(f"{path}: damaged: a list in it holds itself") from None


def rng_state() -> dict[str, Any]:
    """Random state of torch on every device, of numpy and of Python, as plain values."""
    _, numpy_key, position, has_gauss, gauss = np.random.get_state()
    version, python_key, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(numpy_key.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(python_key), python_gauss],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what rng_state() gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    numpy_key, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", numpy_key.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, python_key, python_gauss = state["python"]
    random.setstate((version, tuple(python_key), python_gauss))


def seed_everything(seed: int, rank: int) -> None:
    """Seed torch, numpy and Python; every rank differently."""
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)


def _numpy_numbers() -> list[Any]:
    """Globals of a pickled numpy scalar, under the names of numpy 1 and 2; the predecessor saved its mAP as such."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)]
    return [np.dtype, *kinds, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
