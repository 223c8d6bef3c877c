"""The predecessor's data loading and training loop, rebuilt from a description, as a baseline for benchmarks."""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from torch_utils.training.precision import Precision
from utils.labels.data_config import Split

_BOXES = {"format": "pascal_voc", "label_fields": ["labels"]}


class FloatDataset(Dataset):
    """float32 images; labels are parsed and an albumentations pipeline is built for every sample.

    Args:
        size: images are resized to size x size.
        photometric: blur, gray, brightness, jitter and gamma in addition to the flip.
        mosaic: every sample combines four images.
    """

    def __init__(
        self, split: Split, classes: tuple[str, ...], size: int, *, photometric: bool = False, mosaic: bool = False
    ) -> None:
        self.images = sorted(split.images.glob("*.jpg"))
        self.labels, self.classes, self.size = split.labels, list(classes), size
        self.photometric, self.mosaic = photometric, mosaic

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, boxes, labels = self._mosaic(i) if self.mosaic else self._load(i)
        result = A.Compose(self._operations(), bbox_params=A.BboxParams(**_BOXES))(
            image=image, bboxes=boxes, labels=labels
        )
        target = {
            "boxes": torch.as_tensor(np.array(result["bboxes"]), dtype=torch.float32).reshape(-1, 4),
            "labels": torch.as_tensor(result["labels"], dtype=torch.int64),
            "image_id": torch.tensor(i),
        }
        return torch.from_numpy(result["image"]).permute(2, 0, 1), target

    def _load(self, i: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Image (size, size, 3) float32 in 0..1, boxes (N, 4) in its pixels, labels."""
        image = cv2.cvtColor(cv2.imread(str(self.images[i])), cv2.COLOR_BGR2RGB).astype(np.float32)
        height, width = image.shape[:2]
        image = cv2.resize(image, (self.size, self.size)) / 255.0
        boxes, labels = [], []
        for entry in ElementTree.parse(self.labels / f"{self.images[i].stem}.xml").iter("object"):
            x1, y1, x2, y2 = (float(entry.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
            if x2 > x1 and y2 > y1:
                sides = (width, height) * 2
                boxes.append([v * self.size / side for v, side in zip((x1, y1, x2, y2), sides, strict=True)])
                labels.append(self.classes.index(entry.findtext("name")))
        return image, np.clip(np.array(boxes).reshape(-1, 4), 0, self.size), labels

    def _mosaic(self, i: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Four images around a random point of a gray canvas of twice the size, as in YOLOv5, then halved."""
        side = 2 * self.size
        canvas = np.full((side, side, 3), 114 / 255, np.float32)
        boxes, labels = [], []
        cx, cy = np.random.randint(self.size // 2, side - self.size // 2, 2)
        for quarter, k in enumerate((i, *np.random.randint(len(self), size=3))):
            image, image_boxes, names = self._load(int(k))
            left = cx if quarter % 2 else cx - self.size
            top = cy if quarter // 2 else cy - self.size
            x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + self.size, side), min(top + self.size, side)
            canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
            boxes.append(np.clip(image_boxes + np.array([left, top, left, top]), 0, side) / 2)
            labels += names
        boxes, labels = np.concatenate(boxes), np.array(labels)
        large = (boxes[:, 2:] - boxes[:, :2] > 1).all(1)
        return cv2.resize(canvas, (self.size, self.size)), boxes[large], labels[large].tolist()

    def _operations(self) -> list[A.BasicTransform]:
        flip = A.HorizontalFlip(p=0.5)
        if not self.photometric:
            return [flip]
        blur = A.OneOf([A.Blur(blur_limit=3), A.MotionBlur(blur_limit=3)], p=0.2)
        colors = (A.ToGray(p=0.1), A.RandomBrightnessContrast(p=0.3), A.ColorJitter(p=0.3), A.RandomGamma(p=0.3))
        return [flip, blur, *colors]


def pairs(samples: Sequence[tuple[Any, Any]]) -> tuple[tuple[Any, ...], ...]:
    """Collate a batch into images and targets."""
    return tuple(zip(*samples, strict=True))


def float_loader(dataset: FloatDataset, batch: int, workers: int, *, images: int | None = None) -> DataLoader:
    """Loader of shuffled batches whose workers restart in each epoch of this many images, or of all."""
    order = RandomSampler(dataset, num_samples=images)
    return DataLoader(dataset, batch, sampler=order, num_workers=workers, collate_fn=pairs)


def float_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, precision: Precision) -> None:
    """Train an epoch: tensors are copied to the device one by one, and the host waits for the loss of every step."""
    model.train()
    for images, targets in loader:
        images = [image.to(precision.device) for image in images]
        targets = [{name: value.to(precision.device) for name, value in target.items()} for target in targets]
        with precision.autocast():
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
