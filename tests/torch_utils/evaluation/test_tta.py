import numpy as np
import torch
from torch import Tensor, nn

from torch_utils.evaluation.tta import TTADetector
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample


class Heads(nn.Module):
    nms_thresh = 0.5
    detections_per_img = 100


class WhiteDetector(nn.Module):
    """Finds the white rectangle of each image, exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.roi_heads = Heads()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, batch: Batch) -> list[dict[str, Tensor]]:
        self.seen.append(tuple(batch.images.shape))
        found = []
        rows = zip(batch.images, batch.sizes.tolist(), batch.original_sizes.tolist(), strict=True)
        for image, (height, width), original in rows:
            assert image[height:].sum() == image[:, width:].sum() == 0
            y, x = (image[..., 0] > 127).nonzero().T
            corners = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            scale = torch.tensor([original[1] / width, original[0] / height] * 2)
            found.append({
                "boxes": (corners * scale)[None], "labels": torch.ones(1, dtype=torch.int64), "scores": torch.ones(1),
            })  # fmt: skip
        return found


def white_rectangles(*rectangles: tuple[int, int, int, int]) -> Batch:
    """Images of 60 x 100 px that are seen at that size, and stand for originals of 120 x 200."""
    samples = []
    for number, (x1, y1, x2, y2) in enumerate(rectangles):
        image = np.zeros((60, 100, 3), np.uint8)
        image[y1:y2, x1:x2] = 255
        samples.append(Sample(image, (120, 200), number, np.empty((0, 4), np.float32), np.empty(0, np.int64)))
    return collate(samples)


def test_every_view_leads_back_to_the_original() -> None:
    detector = WhiteDetector()
    found = TTADetector(detector)(white_rectangles((5, 10, 25, 40), (60, 20, 100, 60)))
    for each, expected in zip(found, ((10, 20, 50, 80), (120, 40, 200, 120)), strict=True):
        assert len(each["boxes"]) == 1  # six that are alike are one
        torch.testing.assert_close(each["boxes"][0], torch.tensor(expected, dtype=torch.float32), atol=3, rtol=0)
    blocks = [(64, 96), (64, 96), (64, 128), (64, 128), (96, 128), (96, 128)]
    assert [shape[:3] for shape in detector.seen] == [(2, *block) for block in blocks]


def test_the_batch_is_left_as_it_was() -> None:
    batch = white_rectangles((5, 10, 25, 40))
    before = batch.clone()
    TTADetector(WhiteDetector())(batch)
    assert torch.equal(batch.images, before.images)
    assert torch.equal(batch.sizes, before.sizes)


def test_nms_is_per_class_and_the_number_of_detections_holds() -> None:
    class Two(WhiteDetector):
        def forward(self, batch: Batch) -> list[dict[str, Tensor]]:
            return [
                {
                    "boxes": each["boxes"].repeat(2, 1), "labels": torch.tensor([1, 2]),
                    "scores": torch.tensor([0.9, 0.8]),
                }
                for each in super().forward(batch)
            ]  # fmt: skip

    views = TTADetector(Two())
    assert views(white_rectangles((5, 10, 25, 40)))[0]["labels"].tolist() == [1, 2]
    views.detector.roi_heads.detections_per_img = 1
    assert views(white_rectangles((5, 10, 25, 40)))[0]["labels"].tolist() == [1]
