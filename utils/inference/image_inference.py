"""What inference.py and sahi_inference.py do with a detector: reading, detecting and writing overlap."""

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
from utils.inference.settings import check_classes, class_names_in_use, output_folder, threshold_in_use
from utils.inference.sources import ImageFiles, find_images
from utils.labels.data_config import DataConfig, load_data_config
from utils.machine import cores, explain_out_of_memory
from utils.prefetch import prefetched
from utils.progress import progress_bar
from utils.slicing.sliced_detector import sliced
from utils.text import counted
from utils.visualize.windows import check_display, show_window, show_with_matplotlib

_DEFAULT_DATA = "data_configs/test_image_config.yaml"  # where image_path comes from without --input
_READERS = 4  # threads at most
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """What is asked for, checked."""

    files: ImageFiles
    config: DataConfig | None  # of --data


def images_of(options: InferenceOptions) -> Images:
    """The images of --input; whatever can be wrong without a detector is told here.

    Raises:
        UserError: there are none, or something asked for cannot be had for images or on this machine.
    """
    if options.track:
        raise UserError("--track follows objects through a video, not through images: use inference_video.py --track")
    for flag, wanted in (("--show", options.show), ("--mpl-show", options.mpl_show)):
        if wanted:
            check_display(flag)
    config = load_data_config(options.data) if options.data else None
    return Images(find_images(options.input or _image_path(config), recursive=options.recursive), config)


def use_on_images(
    detector: Detector, images: Images, options: InferenceOptions, *, slices: SliceOptions | None = None
) -> None:
    """Detect in all images and write what the options ask for.

    Args:
        slices: look at each image slice by slice, as these say.

    Raises:
        UserError: something is wrong, or images were left out, after all others were done.
        Interrupted: a signal came, after what was done was written.
    """
    info, files = detector.info, images.files
    class_names = class_names_in_use(info, images.config)
    check_classes(options.classes, class_names)
    threshold = threshold_in_use(
        options.threshold, dict(options.class_thresholds or ()), info, class_names, typed="threshold" in options.given
    )
    step = options.batch
    if slices is not None:
        detector = sliced(detector, slices, threshold=threshold, classes=options.classes, batch=options.batch)
        step = 1  # the slices of an image fill batches, and several large images would fill the memory
    folder = output_folder(options.output, files.paths, files.names)
    results = ImageResults(folder, options.result_kinds(), class_names, files.names)
    log.info("%s on %s at %s; results go to %s", info.name, info.place, info.size_rule, folder)
    with StopSignal("what is done is kept, and the tables are written") as signals:
        done = detect_images(
            detector,
            files,
            results,
            keep=lambda detections: detections.filtered(threshold, options.classes),
            batch=step,
            show=_windows(options),
            is_over=lambda: signals.signal is not None,
        )
    images_done, found = results.counts
    counts = f"{counted(images_done, 'image')}, {counted(found, 'detection')}"
    log.info("%s, %.3f s an image", counts, done.seconds / max(1, images_done))
    left_out = f"{len(done.unreadable)} of {len(files)} images were left out: " + "; ".join(done.unreadable)
    if signals.signal is not None:
        if done.unreadable:
            log.warning("%s", left_out)
        raise signals.interrupted(f"{images_done} of {len(files)} images are in {folder}")
    if done.unreadable:
        raise UserError(left_out)
    log.info("Results are in %s", folder)


def _image_path(config: DataConfig | None) -> str:
    config = config or load_data_config(_DEFAULT_DATA)
    if config.image_path is None:
        raise UserError(f"{config.path}: image_path is missing: add it, or give --input")
    return config.image_path


def _windows(options: InferenceOptions) -> Callable[[str, np.ndarray], bool] | None:
    """Shows a picture wherever the options ask for it; False when the user has seen enough."""
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
    image: np.ndarray | None  # None: it cannot be read
    prepared: Any  # or why not


@dataclass
class Pass:
    """What a pass over images came to."""

    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)  # a line each


def detect_images(
    detector: Detector,
    files: ImageFiles,
    results: ImageResults,
    *,
    keep: Callable[[Detections], Detections],
    batch: int,
    show: Callable[[str, np.ndarray], bool] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Pass:
    """Detect in every image and write what was found; what is done when something stops it is written too.

    Args:
        keep: leaves the detections that count.
        batch: images per step of the detector.
        show: called with a name and a picture; False ends the pass.
        is_over: asked after each image; True ends the pass.

    Raises:
        OSError: a result cannot be written.
        UserError: memory does not suffice.
    """
    done, started = Pass(), time.perf_counter()
    threads = min(_READERS, cores())
    loaded = prefetched(
        partial(_load, detector), zip(files.paths, files.names, strict=True), ahead=2 * batch, threads=threads
    )
    found = _detected(detector, loaded, batch)
    written = prefetched(partial(_write, results, keep), found, ahead=2, threads=2)
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


def _detected(detector: Detector, loaded: Iterator[_Loaded], batch: int) -> Iterator[tuple[_Loaded, Detections | None]]:
    while several := list(islice(loaded, batch)):
        good = [each for each in several if each.image is not None]
        with explain_out_of_memory(_words(good), "lower --imgsz or --batch"):
            found = iter(detector.detect([each.prepared for each in good]) if good else ())
        for each in several:
            yield each, None if each.image is None else next(found)


def _write(
    results: ImageResults, keep: Callable[[Detections], Detections], item: tuple[_Loaded, Detections | None]
) -> tuple[str, np.ndarray | None]:
    """Name and picture; or why there is none, and None."""
    loaded, detections = item
    if detections is None:
        return loaded.prepared, None
    return loaded.name, results.write(loaded.name, loaded.image, keep(detections))


def _words(several: Sequence[_Loaded]) -> str:
    more = f" and {len(several) - 1} more" if len(several) > 1 else ""
    return f"{several[0].path}{more}" if several else "no image"
