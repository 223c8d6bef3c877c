"""DINOv3 for torch.hub, from this folder and from weights files on disk; nothing is fetched.

net = torch.hub.load("dinov3", "dinov3_vits16", source="local", weights="weights/NAME.pth")
"""

import importlib.util
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

dependencies = ["torch"]  # torch.hub checks that these can be imported
_PROJECT = Path(__file__).resolve().parent.parent
_WEIGHTS_FOLDER = _PROJECT / "weights"


def _load_networks() -> ModuleType:
    """Load models/backbones/dinov3.py by its path: a caller of torch.hub may have another package named models."""
    spec = importlib.util.spec_from_file_location("dinov3_networks", _PROJECT / "models" / "backbones" / "dinov3.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickle looks classes up in their module
    spec.loader.exec_module(module)
    return module


_networks = _load_networks()


def _entry(name: str) -> Callable[..., nn.Module]:
    def build(*, pretrained: bool = True, weights: str | os.PathLike | None = None, **options: object) -> nn.Module:
        if not pretrained:
            return _networks.build(name, **options)
        path = _path(name, weights)
        state = _read(name, path)
        net = _networks.build(name, **options)
        try:
            net.load_state_dict(_networks.completed(state))
        except RuntimeError as error:
            raise ValueError(f"{path}: not the weights of dinov3_{name}: {_remedy(name)}; {error}") from None
        return net

    build.__name__ = f"dinov3_{name}"
    build.__doc__ = f"""DINOv3 {name}, in training mode, on the CPU.

    Args:
        pretrained: load `weights`; otherwise they are random.
        weights: path of the official file; without it, {_networks.WEIGHTS[name]} in the project's weights/.
        options: patch_size of a ConvNeXt, see models/backbones/dinov3.py.

    Raises:
        FileNotFoundError: no such file; the message says where to ask for it.
        ValueError: weights is a URL, or the file is not that of this network.
    """
    return build


dinov3_vits16 = _entry("vits16")
dinov3_vits16plus = _entry("vits16plus")
dinov3_vitb16 = _entry("vitb16")
dinov3_vitl16 = _entry("vitl16")
dinov3_vith16plus = _entry("vith16plus")
dinov3_convnext_tiny = _entry("convnext_tiny")
dinov3_convnext_small = _entry("convnext_small")
dinov3_convnext_base = _entry("convnext_base")
dinov3_convnext_large = _entry("convnext_large")


def _path(name: str, weights: str | os.PathLike | None) -> Path:
    if "://" in str(weights):
        raise ValueError(f"weights is the URL {weights}, expected the path of a file: {_remedy(name)}")
    path = _WEIGHTS_FOLDER / _networks.WEIGHTS[name] if weights is None else Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights: there is no file {path}: {_remedy(name)}")
    return path


def _read(name: str, path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a weights file, or damaged ({type(error).__name__}): {_remedy(name)}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: the content is not a dict of tensors, as the official files are: {_remedy(name)}")
    return state


def _remedy(name: str) -> str:
    file, page = _networks.WEIGHTS[name], _networks.WEIGHTS_PAGE
    return f"ask for {file} at {page}, put it into {_WEIGHTS_FOLDER} and give its path as weights"
