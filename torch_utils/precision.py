"""Mixed precision: which number format a step computes in."""

from dataclasses import dataclass, field

import torch


@dataclass
class Precision:
    """fp32, or autocast to a half format. RoIAlign, boxes and losses stay in fp32 either way (models/rcnn/)."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        # bfloat16 has float32's exponents; only float16 gradients need to be scaled to stay above its smallest number.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def pick_precision(device: torch.device, *, amp: bool) -> Precision:
    """bfloat16 where the device computes in it, else float16; float32 without amp."""
    if not amp:
        return Precision(device)
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision(device, torch.float16)
    return Precision(device, torch.bfloat16)
