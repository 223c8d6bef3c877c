"""What happens to training images, by name: --aug. Light to import, for --help lists the names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.augment.config import AugmentationConfig

SCALES = (0.75, 1.25)  # of --multi-scale: shorter sides of 480 to 800 at 640, as torchvision's preset "multiscale" has
MIN_VISIBLE = 0.25  # a box that is cut stays if so much of its area does
MIN_SIDE = 2.0  # px, and both its sides are this long


@dataclass(frozen=True)
class AugmentationPolicy:
    """Which changes a training sample undergoes: probabilities, but for `scales` and `photometric`.

    They come in this order: mosaic, or else crop; mixup; paste; flip; photometric.
    """

    flip: float = 0.0  # left becomes right
    mosaic: float = 0.0  # four pictures in one
    photometric: bool = False  # blur, gray, brightness, contrast, color and gamma, each with its own probability
    scales: tuple[float, float] = (1.0, 1.0)  # range of the sample's size, as a factor on the network size
    crop: float = 0.0  # a part of the picture, magnified
    mixup: float = 0.0  # another picture shines through
    paste: float = 0.0  # objects of another picture are pasted in
    config: "AugmentationConfig | None" = None  # a user's Albumentations pipeline, in the place of `photometric`

    @property
    def num_mixed(self) -> int:
        """Images that may be mixed into a sample."""
        return 3 * bool(self.mosaic) + bool(self.mixup) + bool(self.paste)

    def lines(self) -> Iterator[str]:
        """What will happen, in words."""
        low, high = self.scales
        parts = {
            "mosaic": self.mosaic,
            "crop": self.crop,
            "mixup": self.mixup,
            "paste": self.paste,
            "left-right flip": self.flip,
        }
        words = [f"{name} {probability:g}" for name, probability in parts.items() if probability]
        words += [f"size times {low:g} to {high:g}"] if low < high else []
        words += ["blur, gray, brightness, contrast, color, gamma"] if self.photometric and not self.config else []
        if words or not self.config:
            yield "; ".join(words) or "none"
        if self.config:
            yield str(self.config)


# Mosaic: YOLOv4 (https://arxiv.org/abs/2004.10934), here for half of the samples, since no last epochs go without it.
# Crop: the one of SSD (https://arxiv.org/abs/1512.02325), with the aspect ratio kept. Mixup and paste as often as in
# YOLOv5's hyp.scratch-high.yaml. "default" is torchvision's preset "hflip", "light" its "multiscale".
POLICIES = {
    "none": AugmentationPolicy(),
    "default": AugmentationPolicy(flip=0.5),
    "light": AugmentationPolicy(flip=0.5, scales=SCALES),
    "strong": AugmentationPolicy(flip=0.5, scales=SCALES, mosaic=0.5, crop=0.5, mixup=0.1, paste=0.1, photometric=True),
}
