"""torch.compile for the part of a detector whose shapes hold still."""

import torch
from torch import nn

from utils.errors import UserError


def compile_backbone(backbone: nn.Module, device: torch.device) -> None:
    """Compile a backbone in place, on its first batch; state-dict keys stay the same.

    Raises:
        UserError: this machine lacks what compiling needs.
    """
    try:
        torch.compile(_any_function)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        needs = "a C++ compiler (g++)" if device.type == "cpu" else "Triton, a C compiler and Python's headers"
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"--compile needs {needs}, and does not work here ({first}): drop --compile") from None
    backbone.forward = torch.compile(
        backbone.forward
    )  # Module.compile() leaves torch's own, as Sequential, as they are


def _any_function(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
