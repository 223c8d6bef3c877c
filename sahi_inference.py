"""Detect small objects in large images, slice by slice: a file, a folder or a glob pattern.

python sahi_inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ModelError
from utils.errors import DataError, UserError
from utils.options import BEST, SahiOptions
from utils.script import run_script

if TYPE_CHECKING:  # heavy imports wait until they are needed, so that --help answers at once
    from utils.data_config import DataConfig
    from utils.detector import DetectorFacts

log = logging.getLogger("sahi_inference")

_DEFAULT_DATA = "data_configs/test_image_config.yaml"  # where image_path comes from without --input


def main(options: SahiOptions) -> None:
    """Draw, and on request tabulate, what the detector finds in the slices of each image."""
    from torch_utils.predict import load_detector
    from utils.data_config import load_data_config
    from utils.display import check_display, show, show_with_matplotlib
    from utils.drawing import draw_detections
    from utils.images import read_image, write_image
    from utils.logs import setup_logging
    from utils.memory import memory_watch
    from utils.progress import bar
    from utils.sliced_detector import sliced
    from utils.sources import find_images, output_names
    from utils.writers import DetectionRecord, write_boxes_csv, write_coco_json

    setup_logging()
    if options.track:
        raise UserError("--track follows objects through a video, not through images: use inference_video.py --track")
    for flag, wanted in (("--show", options.show), ("--mpl-show", options.mpl_show)):
        if wanted:
            check_display(flag)
    config = load_data_config(options.data) if options.data else None
    paths = find_images(options.input or _image_path(config or load_data_config(_DEFAULT_DATA)))
    detector = load_detector(
        options.weights, options.model, device=options.device, imgsz=options.imgsz, square=options.square_img
    )
    facts = detector.facts
    class_names = _class_names(facts, config)
    _check_classes(options.classes, class_names)
    threshold = _threshold(options, facts)
    detector = sliced(detector, options, threshold=threshold, classes=options.classes, batch=options.batch)
    folder = _output_folder(options.output, paths)
    log.info("%s on %s at %s; results go to %s", facts.name, facts.device, facts.size_rule, folder)

    record, unreadable = DetectionRecord(class_names), []
    started = time.perf_counter()
    for path, name in zip(bar(paths, "Detecting"), output_names(paths), strict=True):
        try:
            image = read_image(path)
        except DataError as error:
            unreadable.append(str(error))
            continue
        with memory_watch(str(path), "lower --batch or --imgsz"):
            detections = detector(image)
        record.add(name, *image.shape[:2], detections)
        picture = draw_detections(image, detections, class_names, show_labels=not options.no_labels)
        write_image(folder / name, picture)
        if options.show and not show(name, picture):
            break
        if options.mpl_show:
            show_with_matplotlib(name, picture)
    if options.table:
        write_boxes_csv(folder / "boxes.csv", record)
    if options.log_json:
        write_coco_json(folder / "log.json", record)
    seconds = time.perf_counter() - started
    count = sum(len(detections) for *_, detections in record.images)
    log.info("%d images, %d detections, %.3f s an image", len(record.images), count, seconds / len(paths))
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(paths)} images were left out: " + "; ".join(unreadable))
    log.info("Results are in %s", folder)


def _image_path(config: "DataConfig") -> str:
    if config.image_path is None:
        raise UserError(f"{config.path}: image_path is missing: add it, or give --input")
    return config.image_path


def _class_names(detector: "DetectorFacts", config: "DataConfig | None") -> Sequence[str]:
    """The names of --data where it is given, else the detector's own."""
    if config is None:
        return detector.class_names
    if len(config.classes) != len(detector.class_names):
        raise UserError(
            f"{config.path}: CLASSES has {len(config.classes)} entries, the model {len(detector.class_names)}: "
            "drop --data, the model knows its names"
        )
    return config.classes


def _check_classes(wished: Sequence[int] | None, class_names: Sequence[str]) -> None:
    unknown = [k for k in wished or () if not 0 < k < len(class_names)]
    if unknown:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(class_names) if i > 0 and name != "N/A")
        raise UserError(f"--classes {unknown[0]}: no such class; there are {names}")


def _threshold(options: SahiOptions, detector: "DetectorFacts") -> float:
    """--threshold; what the checkpoint proposes is told where none was typed."""
    proposed = detector.best_threshold
    if options.threshold == BEST:
        if proposed is None:
            raise UserError(
                f"--threshold {BEST}: {options.weights or detector.name} does not say which it is (best_model.pth of a "
                "training does): give a number, such as the one that eval.py prints"
            )
        log.info("Threshold of the score, the best of validation by mean F1: %.3f", proposed)
        return proposed
    if proposed is not None and "threshold" not in options.given:
        log.info(
            "Threshold of the score: %g; validation's best mean F1 is at %.3f: --threshold %s",
            options.threshold, proposed, BEST,
        )  # fmt: skip
    return options.threshold


def _output_folder(wish: str | None, inputs: Sequence[Path]) -> Path:
    """--output, or a new numbered folder; never where the inputs are, whose names the results have."""
    from utils.run_folder import INFERENCE, given_folder, numbered_folder

    if wish is None:
        return numbered_folder(INFERENCE)
    folder = Path(wish)
    if any(path.parent.resolve() == folder.resolve() for path in inputs):
        raise UserError(f"--output {wish} holds the input images, which the results would overwrite: choose another")
    return given_folder(folder)


if __name__ == "__main__":
    run_script(main, SahiOptions, "Detect small objects in large images, slice by slice.", user_errors=(ModelError,))
