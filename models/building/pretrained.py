"""Find published weights in weights/ or torch.hub's cache, or fetch them, and load them into a network."""

import logging
import pickle
import urllib.error
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.hub import download_url_to_file, get_dir
from torchvision.models import WeightsEnum

from models.rcnn.errors import ModelError, WeightsNotHereError

WEIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "weights"
PREDICTOR = "roi_heads.box_predictor."  # the part of a detector that depends on the classes
# Errors of unpickling a damaged file.
_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *_INTEGERS)
_NOT_OURS = "give a file that train.py, or torchvision, has written"
log = logging.getLogger(__name__)


def published_file(weights: WeightsEnum) -> Path:
    """The path of a weights file of torchvision; see `weights_file`."""
    name = weights.url.rsplit("/", 1)[-1]
    digest = Path(name).stem.rsplit("-", 1)[-1]  # torchvision's names end in the first 8 digits of the SHA-256
    return weights_file(name, weights.url, digest=digest)


def load_published(module: nn.Module, weights: WeightsEnum) -> None:
    """Load a weights file that torchvision publishes; see `weights_file`, `read_state` and `load_state` for errors."""
    path = published_file(weights)
    load_state(module, read_state(path), label=f"{path}: the weights")


def weights_file(name: str, url: str | None, *, digest: str | None = None, remedy: str = "") -> Path:
    """The path of a published file: in weights/ or torch.hub's cache, where it is fetched to if necessary.

    Args:
        name: of the file.
        url: None: the file is given out on request only.
        digest: first digits of the SHA-256 of the file, checked after fetching.
        remedy: how to get the file, for the error message where there is no url.

    Raises:
        WeightsNotHereError: the file is not on disk and cannot be fetched.
    """
    cached = Path(get_dir()) / "checkpoints" / name
    path = next((p for p in (WEIGHTS_FOLDER / name, cached) if p.is_file()), None)
    if path is not None:
        return path
    if url is None:
        raise WeightsNotHereError(
            f"the pretrained weights {name} are not here: {remedy} and put it into {WEIGHTS_FOLDER}"
        )
    _fetch(url, cached, digest)
    return cached


def read_state(path: Path) -> dict[str, Tensor]:
    """State dict of a file, read without running any code that is in it.

    Raises:
        ModelError: it is damaged, or no state dict.
    """
    return checked_state(read_weights(path), f"{path}: the content")


def read_weights(path: Path) -> object:
    """Content of a file of tensors, whatever its form.

    Raises:
        ModelError: it is damaged, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise ModelError(
            f"{path}: not a weights file, or damaged ({type(error).__name__}): delete it and run again"
        ) from None


def load_coco(detector: nn.Module, weights: WeightsEnum, num_classes: int) -> None:
    """Load COCO weights of the whole detector; of its box predictor only for COCO's 91 classes."""
    path = published_file(weights)
    state = read_state(path)
    if num_classes != len(weights.meta["categories"]):
        state = {key: value for key, value in state.items() if not key.startswith(PREDICTOR)}
    load_state(detector, state, missing_allowed=PREDICTOR, label=f"{path}: the weights")


def checked_state(state: object, label: str) -> dict[str, Tensor]:
    """Check that `state` is a dict that `load_state` can compare with a model, and return it.

    Raises:
        ModelError: it is not a dict of names and dense tensors of numbers; the message begins with `label`.
    """
    if not isinstance(state, Mapping):
        raise ModelError(f"{label} is a {type(state).__name__}, expected a dict of names and tensors: {_NOT_OURS}")
    for key, value in state.items():
        if not isinstance(key, str):
            raise ModelError(f"{label} has the key {key!r}, expected names such as backbone.0.bias: {_NOT_OURS}")
        if not isinstance(value, Tensor):
            raise ModelError(f"{label} has a {type(value).__name__} for {key}, expected a tensor: {_NOT_OURS}")
        if value.layout != torch.strided or value.is_meta or value.dtype not in _NUMBERS:
            kind = "without values" if value.is_meta else f"of {value.dtype}, {value.layout}"
            raise ModelError(f"{label} has a tensor {kind} for {key}, expected a dense one of numbers: {_NOT_OURS}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():  # one number said a billion times
            raise ModelError(f"{label} has a tensor for {key} of more values than the file holds: {_NOT_OURS}")
    return dict(state)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], *, missing_allowed: str | None = None, label: str = "the weights"
) -> None:
    """Load a state dict; keys that start with `missing_allowed`, and batch norms' counters, may be absent from it.

    Args:
        label: beginning of the error message.

    Raises:
        ModelError: other keys are missing, unexpected ones are there, or shapes differ.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state and not (missing_allowed and k.startswith(missing_allowed))]
    unexpected = [k for k in state if k not in own]
    missing, unexpected = ([k for k in keys if not k.endswith("num_batches_tracked")] for keys in (missing, unexpected))
    misshapen = [k for k in own if k in state and own[k].shape != state[k].shape]
    for misfit, keys in (("lack", missing), ("also have", unexpected), ("have another shape for", misshapen)):
        if keys:
            raise ModelError(
                f"{label} do not fit this model: they {misfit} {keys[0]}"
                + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
                + ": is it the model that they were made with?"
            )
    module.load_state_dict(dict(state), strict=False)


def _fetch(url: str, path: Path, digest: str | None) -> None:
    log.info("fetching %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(path), hash_prefix=digest)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsNotHereError(
            f"the pretrained weights {path.name} are not here and cannot be fetched from {url} ({error}): "
            f"fetch that file elsewhere and put it into {WEIGHTS_FOLDER} as {path.name}"
        ) from None
