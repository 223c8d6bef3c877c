"""Rules for the size to which an image is resized for the network."""

from dataclasses import asdict, dataclass
from typing import Any

MAX_SIZE = 1333  # px, as in torchvision's R-CNN models
STRIDE = 32  # px, batches are padded to multiples of it


@dataclass(frozen=True)
class SizeRule:
    """Resize the shorter side to `size` and the longer to at most `max_size`; square: `size` x `size`."""

    size: int
    max_size: int = MAX_SIZE
    square: bool = False

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, at least 1 px, to which an image of this height and width is resized."""
        if self.square:
            return self.size, self.size
        longest = max(self.max_size, self.size)
        scale = min(self.size / min(height, width), longest / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __str__(self) -> str:
        if self.square:
            return f"{self.size} x {self.size} px"
        return f"{self.size} px (longer side at most {max(self.max_size, self.size)})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints: SizeRule(**rule.as_dict()) == rule."""
        return asdict(self)


@dataclass(frozen=True)
class Canvas:
    """Rule of a network with a fixed input size: as large as fits into `height` x `width`; square: exactly that size.

    Same interface as SizeRule.
    """

    height: int
    width: int
    square: bool = False

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """See SizeRule."""
        if self.square:
            return self.height, self.width
        scale = min(self.height / height, self.width / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px{'' if self.square else ', as much of it as the aspect ratio fills'}"

    def as_dict(self) -> dict[str, Any]:
        """See SizeRule."""
        return asdict(self)


def padded(side: int) -> int:
    """Round up to a multiple of the batch stride."""
    return -(-side // STRIDE) * STRIDE
