"""Augmentation policies: named sets of changes to training images (--aug)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.augment.config import AugmentationConfig

SCALES = (0.75, 1.25)  # --multi-scale: shorter sides of 480 to 800 at 640, as in torchvision's preset "multiscale"


@dataclass(frozen=True)
class AugmentationPolicy:
    """Probabilities of the changes to a training sample; `scales` and `photometric` are none.

    The order is: mosaic, or else crop; mixup; copy-paste; flip; photometric.
    """

    flip: float = 0.0  # left-right
    mosaic: float = 0.0  # four images in one
    photometric: bool = False  # blur, gray, brightness, contrast, color and gamma, each with its own probability
    scales: tuple[float, float] = (1.0, 1.0)  # range of the sample's size, as a factor on the network size
    crop: float = 0.0  # a random part of the image, magnified (random zoom crop)
    mixup: float = 0.0  # blend with another image
    copy_paste: float = 0.0  # paste in objects of another image
    config: "AugmentationConfig | None" = None  # a user's Albumentations pipeline, which replaces `photometric`

    @property
    def num_mixed(self) -> int:
        """Number of further images that may be mixed into a sample."""
        return 3 * bool(self.mosaic) + bool(self.mixup) + bool(self.copy_paste)

    def lines(self) -> Iterator[str]:
        """Describe the policy, for the log."""
        low, high = self.scales
        parts = {
            "mosaic": self.mosaic,
            "crop": self.crop,
            "mixup": self.mixup,
            "copy-paste": self.copy_paste,
            "left-right flip": self.flip,
        }
        texts = [f"{name} {probability:g}" for name, probability in parts.items() if probability]
        texts += [f"size times {low:g} to {high:g}"] if low < high else []
        texts += ["blur, gray, brightness, contrast, color, gamma"] if self.photometric and not self.config else []
        if texts or not self.config:
            yield "; ".join(texts) or "none"
        if self.config:
            yield str(self.config)


# Mosaic: YOLOv4 (https://arxiv.org/abs/2004.10934), here for half of the samples, as it stays on in the last epochs.
# Crop: SSD (https://arxiv.org/abs/1512.02325), with the aspect ratio kept. Mixup and copy-paste: probabilities of
# YOLOv5's hyp.scratch-high.yaml. "default" is torchvision's preset "hflip", "light" its "multiscale".
POLICIES = {
    "none": AugmentationPolicy(),
    "default": AugmentationPolicy(flip=0.5),
    "light": AugmentationPolicy(flip=0.5, scales=SCALES),
    "strong": AugmentationPolicy(
        flip=0.5, scales=SCALES, mosaic=0.5, crop=0.5, mixup=0.1, copy_paste=0.1, photometric=True
    ),
}


def policy_of(
    aug: str,
    *,
    flip: float | None = None,
    mosaic: float | None = None,
    multi_scale: bool | None = None,
    use_train_aug: bool | None = None,
    config: "AugmentationConfig | None" = None,
) -> AugmentationPolicy:
    """Return a named policy with parts of it replaced; None keeps the policy's own value.

    Args:
        aug: a name in POLICIES.
        flip: probability.
        mosaic: probability.
        multi_scale: True for SCALES, False for the network size alone.
        use_train_aug: photometric changes.
        config: a user's Albumentations pipeline.
    """
    scales = None if multi_scale is None else SCALES if multi_scale else (1.0, 1.0)
    given = {"flip": flip, "mosaic": mosaic, "scales": scales, "photometric": use_train_aug}
    parts = {name: value for name, value in given.items() if value is not None}
    return replace(POLICIES[aug], config=config, **parts)
