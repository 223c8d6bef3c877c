"""Inference on images for inference.py and sahi_inference.py, with overlapped reading, detection and writing."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.cli.options import InferenceOptions, SliceOptions
from utils.cli.stop_signal import StopSignal
from utils.detect.detections import Detections
from utils.detect.detector import Detector
from utils.errors import DataError, UserError
from utils.images.image_files import read_image
from utils.inference.image_results import ImageResults
from utils.inference.settings import check_classes, output_folder, resolve_class_names, resolve_threshold
from utils.inference.sources import ImageFiles, find_images
from utils.labels.data_config import DataConfig, load_data_config
from utils.machine import cores, explain_out_of_memory
from utils.prefetch import prefetched
from utils.progress import progress_bar
from utils.slicing.sliced_detector import slice_detector
from utils.text import counted
from utils.visualize.windows import check_display, show_window, show_with_matplotlib

_DEFAULT_DATA = "data_configs/test_image_config.yaml"  # its image_path is the default of --input
_READERS = 4  # maximum number of threads
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageInput:
    """The validated --input and --data of a run."""

    files: ImageFiles
    config: DataConfig | None  # of --data


def open_images(options: InferenceOptions) -> ImageInput:
    """List the images of --input and validate all options that do not depend on the detector.

    Raises:
        UserError: no image is found, or an option is invalid for images or on this machine.
    """
    if options.track:
        raise UserError("--track is for videos, not for images: use inference_video.py --track")
    for flag, is_on in (("--show", options.show), ("--mpl-show", options.mpl_show)):
        if is_on:
            check_display(flag)
    config = load_data_config(options.data) if options.data else None
    return ImageInput(find_images(options.input or _image_path(config), recursive=options.recursive), config)


def run_on_images(
    detector: Detector, images: ImageInput, options: InferenceOptions, *, slices: SliceOptions | None = None
) -> None:
    """Detect objects in all images and write the requested results.

    Args:
        slices: run on slices of each image, configured by these options.

    Raises:
        UserError: an option is invalid; or images could not be read, after all others were processed.
        Interrupted: a signal arrived; results so far are written.
    """
    info, files = detector.info, images.files
    class_names = resolve_class_names(info, images.config)
    check_classes(options.classes, class_names)
    threshold = resolve_threshold(
        options.threshold, dict(options.class_thresholds or ()), info, class_names, typed="threshold" in options.given
    )
    batch = options.batch
    if slices is not None:
        detector = slice_detector(detector, slices, threshold=threshold, classes=options.classes, batch=options.batch)
        batch = 1  # the slices of one image fill batches, and several large images would fill the memory
    folder = output_folder(options.output, files.paths, files.names)
    results = ImageResults(folder, options.result_kinds(), class_names, files.names)
    log.info("%s on %s at %s; results go to %s", info.name, info.runs_on, info.size_rule, folder)
    with StopSignal("finished images are kept, and the tables are written") as signals:
        done = detect_images(
            detector,
            files,
            results,
            keep=lambda detections: detections.filtered(threshold, options.classes),
            batch=batch,
            show=_windows(options),
            is_over=lambda: signals.signal is not None,
        )
    num_images, num_detections = results.counts
    counts = f"{counted(num_images, 'image')}, {counted(num_detections, 'detection')}"
    log.info("%s, %.3f s an image", counts, done.seconds / max(1, num_images))
    unreadable = f"{len(done.unreadable)} of {len(files)} images could not be read: " + "; ".join(done.unreadable)
    if signals.signal is not None:
        if done.unreadable:
            log.warning("%s", unreadable)
        raise signals.interrupted(f"{num_images} of {len(files)} images are in {folder}")
    if done.unreadable:
        raise UserError(unreadable)
    log.info("Results are in %s", folder)


def _image_path(config: DataConfig | None) -> str:
    config = config or load_data_config(_DEFAULT_DATA)
    if config.image_path is None:
        raise UserError(f"{config.path}: image_path is missing: add it, or give --input")
    return config.image_path


def _windows(options: InferenceOptions) -> Callable[[str, np.ndarray], bool] | None:
    """Return a function that shows a picture in the requested windows, and returns False once the user quits."""
    if not (options.show or options.mpl_show):
        return None

    def show_everywhere(name: str, picture: np.ndarray) -> bool:
        if options.show and not show_window(name, picture):
            return False
        if options.mpl_show:
            show_with_matplotlib(name, picture)
        return True

    return show_everywhere


class _Loaded(NamedTuple):
    path: Path
    name: str
    image: np.ndarray | None  # None: cannot be read
    prepared: Any  # see Detector.prepare; the error message if image is None


@dataclass
class DetectionPass:
    """Result of a pass over images."""

    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)  # error messages


def detect_images(
    detector: Detector,
    files: ImageFiles,
    results: ImageResults,
    *,
    keep: Callable[[Detections], Detections],
    batch: int,
    show: Callable[[str, np.ndarray], bool] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> DetectionPass:
    """Detect objects in every image and write the results; when interrupted, those so far.

    Args:
        keep: selects the detections to write.
        batch: images per call of the detector.
        show: called with name and picture; returning False ends the pass.
        is_over: called after each image; returning True ends the pass.

    Raises:
        OSError: a result cannot be written.
        UserError: out of memory.
    """
    done, started = DetectionPass(), time.perf_counter()
    threads = min(_READERS, cores())
    loaded = prefetched(
        partial(_load, detector), zip(files.paths, files.names, strict=True), ahead=2 * batch, threads=threads
    )
    detected = _detect(detector, loaded, batch)
    written = prefetched(partial(_write, results, keep), detected, ahead=2, threads=2)
    try:
        with closing(loaded), closing(written):
            for name, picture in progress_bar(written, "Detecting", total=len(files)):
                if picture is None:
                    done.unreadable.append(name)
                elif show is not None and not show(name, picture):
                    break
                if is_over():
                    break
    finally:
        results.close()
    done.seconds = time.perf_counter() - started
    return done


def _load(detector: Detector, file: tuple[Path, str]) -> _Loaded:
    path, name = file
    try:
        image = read_image(path)
    except DataError as error:
        return _Loaded(path, name, None, str(error))
    return _Loaded(path, name, image, detector.prepare(image))


def _detect(detector: Detector, loaded: Iterator[_Loaded], batch: int) -> Iterator[tuple[_Loaded, Detections | None]]:
    while items := list(islice(loaded, batch)):
        readable = [item for item in items if item.image is not None]
        with explain_out_of_memory(_describe(readable), "lower --imgsz or --batch"):
            detections = iter(detector.detect([item.prepared for item in readable]) if readable else ())
        for item in items:
            yield item, None if item.image is None else next(detections)


def _write(
    results: ImageResults, keep: Callable[[Detections], Detections], item: tuple[_Loaded, Detections | None]
) -> tuple[str, np.ndarray | None]:
    """Write the results of an image; return name and picture, or error message and None."""
    loaded, detections = item
    if detections is None:
        return loaded.prepared, None
    return loaded.name, results.write(loaded.name, loaded.image, keep(detections))


def _describe(items: Sequence[_Loaded]) -> str:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return f"{items[0].path}{more}" if items else "no image"
