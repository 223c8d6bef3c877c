"""Measure seconds per epoch of training and evaluation, ours against the predecessor's, in one process.

The predecessor is rebuilt from a description: float32 images with an albumentations pipeline, and an XML file parsed
for every sample; workers restarted each epoch; torchvision's detector and RoIAlign on lists of float images; ground
truth collected by iterating over the validation images; pycocotools. Network, weights, pixels and batches are the same.
Run it on one core with

taskset -c 0 python -m benchmarks.main_job --data bccd.yaml
"""

import argparse
import contextlib
import io
from pathlib import Path
from statistics import median

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader

from benchmarks.common.predecessor import FloatDataset, pairs
from benchmarks.common.table import heading, seconds_of
from benchmarks.pipeline import Training
from datasets import DetectionDataset, make_loader
from models.create_fasterrcnn_model import create_model
from models.rcnn.reference import ReferenceFasterRCNN
from torch_utils.distributed import Processes
from torch_utils.engine import evaluate
from torch_utils.training.precision import Precision
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index
from utils.loading.samplers import EvalBatchSampler
from utils.loading.size_rule import SizeRule

CPU = torch.device("cpu")
BATCH, LR = 4, 0.005


@torch.inference_mode()
def float_eval(model: ReferenceFasterRCNN, dataset: FloatDataset, workers: int) -> None:
    """Evaluate like the predecessor: ground truth by iterating, detections in resized pixels, pycocotools."""
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
        for target, result in zip(targets, model(list(images)), strict=True):
            rows = zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist(), strict=True)
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


def main() -> None:
    """Run both in turns; print medians and ratios."""
    parser = argparse.ArgumentParser(description="Seconds per epoch, ours against the predecessor.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="fasterrcnn_mini_darknet_nano_head")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = load_data_config(Path(options.data))
    rule, precision = SizeRule(options.imgsz, square=True), Precision(CPU)
    torch.manual_seed(0)
    model = create_model[options.model](
        len(config.classes), pretrained=False, min_size=options.imgsz, max_size=options.imgsz
    )
    training = Training(
        model, config, size=options.imgsz, batch=BATCH, workers=options.workers, precision=precision, lr=LR
    )
    valid_index = open_index(config, "valid", "pascal_voc")
    valid_set = DetectionDataset(valid_index, rule)
    valid_loader = make_loader(valid_set, EvalBatchSampler(valid_index, rule, BATCH), options.workers, CPU)
    float_set = FloatDataset(config.splits["valid"], config.classes, options.imgsz)

    work = {
        "train, predecessor": training.stock,
        "train, ours": training.ours,
        "eval, predecessor": lambda: float_eval(training.stock_model, float_set, options.workers),
        "eval, ours": lambda: evaluate(
            model, valid_loader, valid_index, precision=precision, processes=Processes(CPU)
        ),
    }  # fmt: skip
    times: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, run in work.items():
            times.setdefault(name, []).append(seconds_of(run, CPU))
    print(heading(CPU))
    print(f"{options.model} at {options.imgsz} px, batch {BATCH}, {training.images} + {len(valid_set)} images")
    for kind in ("train", "eval"):
        old, new = (median(times[f"{kind}, {way}"]) for way in ("predecessor", "ours"))
        print(f"{kind}: predecessor {old:.1f} s, ours {new:.1f} s an epoch, {old / new:.2f} times as fast")


if __name__ == "__main__":
    main()
