"""Seconds per epoch of the main job, ours against the way our predecessor went about it, in one process.

The predecessor's way, rebuilt from a description: float32 images with an albumentations pipeline, and an XML file
parsed for every sample; workers started anew each epoch; torchvision's detector and RoIAlign on lists of float images;
ground truth collected by iterating the validation images, pycocotools. Network, weights, pixels and batches are the
same. Run it on one core with

taskset -c 0 python -m benchmarks.main_job --data bccd.yaml
"""

import argparse
import contextlib
import io
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.predecessor import FloatDataset
from datasets import DetectionDataset, EvalBatches, TrainBatches, make_loader
from models.create_fasterrcnn_model import create_model
from torch_utils.distributed import Processes
from torch_utils.engine import evaluate, train_one_epoch
from torch_utils.loss_watch import LossWatch
from torch_utils.optimization import Schedule, make_optimizer
from torch_utils.precision import Precision
from torch_utils.update import Updater
from utils.augmentation import AugmentationPolicy
from utils.data_config import load_data_config
from utils.label_index import open_index
from utils.size_rule import SizeRule

CPU = torch.device("cpu")
BATCH, LR = 4, 0.005


def pairs(samples: list) -> tuple:
    """Lists of images and of targets."""
    return tuple(zip(*samples, strict=True))


def torchvisions(model: torch.nn.Module, size: int) -> TorchvisionFasterRCNN:
    """torchvision's own detector around the layers of ours."""
    twin = create_model[model.name](model.num_classes, pretrained=False, min_size=size, max_size=size)
    twin.load_state_dict(model.state_dict())
    twin.__class__ = TorchvisionFasterRCNN
    twin.roi_heads.box_roi_pool = MultiScaleRoIAlign(twin.roi_heads.box_roi_pool.featmap_names, 7, 2)
    return twin


def float_train(model: TorchvisionFasterRCNN, dataset: FloatDataset, workers: int) -> None:
    """One epoch."""
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=pairs)
    optimizer = make_optimizer(model, "SGD", LR)
    model.train()
    for images, targets in loader:
        loss = sum(model(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


@torch.inference_mode()
def float_eval(model: TorchvisionFasterRCNN, dataset: FloatDataset, workers: int) -> None:
    """Ground truth by iterating, detections in resized pixels, pycocotools."""
    model.eval()
    annotations = []
    for i in range(len(dataset)):
        _, target = dataset[i]
        for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": i, "category_id": label, "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
            })  # fmt: skip
    results = []
    for images, targets in DataLoader(dataset, BATCH, num_workers=workers, collate_fn=pairs):
        for target, found in zip(targets, model(list(images)), strict=True):
            rows = zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True)
            for (x1, y1, x2, y2), score, label in rows:
                results.append({
                    "image_id": int(target["image_id"]), "category_id": label, "score": score,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": i} for i in range(len(dataset))], "annotations": annotations,
            "categories": [{"id": k} for k in range(1, len(dataset.classes))],
        }  # fmt: skip
        truth.createIndex()
        if results:
            evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluator.evaluate(), evaluator.accumulate(), evaluator.summarize()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Interleave both ways, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Seconds per epoch, ours against the predecessor's way.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="fasterrcnn_mini_darknet_nano_head")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = load_data_config(Path(options.data))
    rule, processes, precision = SizeRule(options.imgsz, square=True), Processes(CPU), Precision(CPU)
    torch.manual_seed(0)
    ours = create_model[options.model](len(config.classes), pretrained=False)
    ours.name, ours.num_classes = options.model, len(config.classes)
    theirs = torchvisions(ours, options.imgsz)
    train_index, valid_index = (open_index(config, split, "pascal_voc") for split in ("train", "valid"))
    train_set = DetectionDataset(train_index, rule, policy=AugmentationPolicy(flip=0.5))
    loader = make_loader(train_set, TrainBatches(len(train_set), BATCH, seed=0), options.workers, CPU)
    valid_set = DetectionDataset(valid_index, rule)
    valid_loader = make_loader(valid_set, EvalBatches(valid_index, rule, BATCH), options.workers, CPU)
    optimizer, schedule = make_optimizer(ours, "SGD", LR), Schedule(LR, len(loader), 20)
    updater = Updater(ours, optimizer, schedule, precision, processes)
    watch = LossWatch(train_index, processes, limit=0, way_out="")
    float_sets = [FloatDataset(config.splits[s], config.classes, options.imgsz) for s in ("train", "valid")]

    times: dict[str, list[float]] = {}
    for epoch in range(options.rounds):
        work = {
            "train, predecessor's way": lambda: float_train(theirs, float_sets[0], options.workers),
            "train, ours": lambda epoch=epoch: train_one_epoch(ours, updater, loader, epoch, watch=watch),
            "eval, predecessor's way": lambda: float_eval(theirs, float_sets[1], options.workers),
            "eval, ours": lambda: evaluate(ours, valid_loader, valid_index, precision=precision, processes=processes),
        }  # fmt: skip
        for name, run in work.items():
            times.setdefault(name, []).append(seconds(run))
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{platform.machine()}, {torch.get_num_threads()} thread(s), {versions}")
    print(f"{options.model} at {options.imgsz} px, batch {BATCH}, {len(train_set)} + {len(valid_set)} images")
    for kind in ("train", "eval"):
        old, new = (median(times[f"{kind}, {way}"]) for way in ("predecessor's way", "ours"))
        print(f"{kind}: predecessor's way {old:.1f} s, ours {new:.1f} s an epoch, {old / new:.2f} times as fast")


if __name__ == "__main__":
    main()
