"""Version of the project; CHANGELOG.md says what is in it."""

import platform

VERSION = "0.2.0"


def versions() -> str:
    """One line for bug reports: this project, Python, PyTorch, torchvision, CUDA and GPU, system."""
    parts = [f"fasterrcnn-pytorch-training-pipeline {VERSION}", f"Python {platform.python_version()}"]
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # missing, or built for something else
        parts.append(f"PyTorch cannot be imported ({str(error).splitlines()[0]})")
    else:
        parts += [f"PyTorch {torch.__version__}", f"torchvision {torchvision.__version__}"]
        if torch.cuda.is_available():
            parts.append(f"CUDA {torch.version.cuda} on {torch.cuda.get_device_name()}")
        else:
            parts.append("no GPU" if torch.version.cuda is None else f"CUDA {torch.version.cuda}, no GPU")
    return ", ".join([*parts, platform.platform()])
