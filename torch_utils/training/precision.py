"""Numeric precision of a training step: fp32, TF32, or autocast to bf16 or fp16."""

from dataclasses import dataclass, field

import torch

from utils.errors import UserError

_TF32_SINCE = (8, 0)  # compute capability: Ampere
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Precision:
    """float32, or autocast to a half format. RoIAlign, boxes and losses stay in fp32 either way (models/rcnn/)."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        # bfloat16 has float32's exponents; only float16 gradients need to be scaled to stay above its smallest number.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def pick_precision(device: torch.device, wish: str | None = None, *, amp: bool = False) -> Precision:
    """The precision of --precision; with --amp bfloat16 if the device supports it, else float16.

    fp32 and tf32 set torch's switches for the matrix products and convolutions of GPUs. Without --precision they keep
    torch's defaults: products in float32, convolutions in TF32 if the GPU has it.

    Raises:
        UserError: the device does not support it, or it contradicts --amp. Nothing falls back silently.
    """
    on_gpu = device.type == "cuda"
    half = "bf16" if not on_gpu or _has_bf16() else "fp16"
    if amp and wish not in (None, half):
        raise UserError(f"--amp contradicts --precision {wish}, since it is {half} on {device}: drop one of them")
    if wish is None:
        return Precision(device, _HALVES[half] if amp else torch.float32)
    if wish == "fp16" and not on_gpu:
        raise UserError("--precision fp16 needs a GPU: use --precision bf16, or fp32, on a CPU")
    if wish == "tf32" and not (on_gpu and torch.cuda.get_device_capability(device) >= _TF32_SINCE):
        raise UserError(f"--precision tf32 needs a GPU of the Ampere generation or later, not {device}: use fp32")
    if wish == "bf16" and on_gpu and not _has_bf16():
        raise UserError("--precision bf16: this GPU does not compute in it: use --precision fp16, or fp32")
    if wish in ("fp32", "tf32"):
        torch.set_float32_matmul_precision("high" if wish == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = wish == "tf32"
    return Precision(device, _HALVES.get(wish, torch.float32))


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
