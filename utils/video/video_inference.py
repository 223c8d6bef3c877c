"""What inference_video.py does with a detector."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.cli.options import VideoOptions
from utils.cli.stop_signal import StopSignal
from utils.detect.detections import Detections
from utils.detect.detector import Detector, DetectorInfo
from utils.errors import UserError
from utils.inference.coco_log import CocoLog
from utils.inference.settings import check_classes, resolve_class_names, output_folder, resolve_threshold
from utils.labels.data_config import DataConfig, load_data_config
from utils.slicing.sliced_detector import slice_detector
from utils.tracking.annotator import TrackAnnotator
from utils.tracking.tracker import create_tracker
from utils.video.annotators import Annotator, DetectionAnnotator, FrameLog
from utils.video.pipeline import PipelineReport, VideoPipeline
from utils.video.sources import open_video
from utils.video.types import VideoInfo, VideoSource
from utils.video.window import VideoWindow
from utils.video.writers import open_writer
from utils.visualize.windows import check_display

_DEFAULT_DATA = "data_configs/test_video_config.yaml"  # where video_path comes from without --input
_POLL = 0.1  # s between two looks at the signals
_WINDOW_POLL = 0.01  # s, likewise with a window
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Video:
    """What is asked for, checked."""

    source: VideoSource
    config: DataConfig | None  # of --data


def open_video_input(options: VideoOptions) -> Video:
    """The video of --input, opened; whatever can be wrong without a detector is told here.

    Raises:
        UserError: there is none, or something asked for cannot be had on this machine.
    """
    options.wants_slices()  # which refuse flags that mean nothing without them
    options.wants_tracks()
    for flag, wanted in (("--show", options.show), ("--mpl-show", options.mpl_show)):
        if wanted:
            check_display(flag)
    config = load_data_config(options.data) if options.data else None
    source = open_video(options.input or _video_path(config), fps=options.fps, reconnect=options.reconnect)
    return Video(source, config)


def run_on_video(detector: Detector, video: Video, options: VideoOptions) -> None:
    """Detect in every frame, and write the video and, on request, the log.

    Raises:
        UserError: something is wrong, or the video ended before its end, after what there is was written.
        Interrupted: a signal came, after what was done was written.
    """
    source, info = video.source, detector.info
    class_names = resolve_class_names(info, video.config)
    check_classes(options.classes, class_names)
    threshold = resolve_threshold(
        options.threshold, dict(options.class_thresholds or ()), info, class_names, typed="threshold" in options.given
    )
    step = options.batch
    name = f"{source.info.stem}.mp4"
    folder = output_folder(options.output, [source.info.file] if source.info.file else [], [name])
    annotator, lowest = _annotator(options, source.info, info, class_names, threshold, folder)
    if options.wants_slices():
        detector = slice_detector(
            detector, options, threshold=lowest, classes=options.classes, batch=options.batch, enlarge_threshold=threshold
        )
        step = 1  # the slices of a frame fill batches
    writer = open_writer(folder / name, source.info, codec=options.codec, sound=not options.no_audio)

    def counted(found: Detections) -> Detections:
        return found.filtered(threshold)  # a tracker makes use of weaker ones

    frame_log = None
    if options.log_json:
        frame_log = FrameLog(CocoLog(folder / "log.json", class_names), counted)
    log.info("%s on %s at %s; results go to %s", info.name, info.runs_on, info.size_rule, folder)
    log.info("%s; written as %s", source.info, writer.summary)
    drop = source.info.is_live if options.drop_frames is None else options.drop_frames
    pipeline = VideoPipeline(
        source,
        detector,
        annotator,
        writer,
        log=frame_log,
        keep=lambda detections: detections.filtered(lowest, options.classes),
        count=counted,
        batch=step,
        drop=drop,
    )
    with StopSignal("the video is made whole up to here") as signals:
        _run(pipeline, source, signals, options)
        report = pipeline.report
        log.info(
            "%d frames, %d detections, %.2f s, %.1f FPS from the first frame read to the closed file",
            report.frames, report.detections, report.seconds, report.rate,
        )  # fmt: skip
        log.info("Stages: %s", report.summary())
        if report.dropped:
            log.info("%d frames came faster than they were detected and were left out", report.dropped)
        if report.error is not None:
            _tell_rest(folder / name, report)
            raise report.error
        if signals.signal is not None:
            raise signals.interrupted(f"{report.frames} frames are in {folder / name}")
    log.info("Results are in %s", folder)


def _annotator(
    options: VideoOptions,
    video: VideoInfo,
    detector: DetectorInfo,
    class_names: Sequence[str],
    threshold: float | np.ndarray,
    folder: Path,
) -> tuple[Annotator, float | np.ndarray]:
    """What makes the pictures, and the lowest score that it wants to know of."""
    show_labels = not options.no_labels
    if not options.wants_tracks():
        return DetectionAnnotator(class_names, show_labels=show_labels), threshold
    fps = float(video.rate)
    tracker = create_tracker(
        options.tracker, threshold=threshold, fps=fps, buffer=options.track_buffer, device=detector.device
    )
    annotator = TrackAnnotator(
        tracker,
        class_names,
        options,
        folder / video.stem,
        width=video.width,
        height=video.height,
        fps=fps,
        show_labels=show_labels,
        log_json=options.log_json,
    )
    return annotator, annotator.lowest_score


def _run(pipeline: VideoPipeline, source: VideoSource, signals: StopSignal, options: VideoOptions) -> None:
    """Run to the end, or until a signal or the user of the window ends it."""
    is_stopping = False
    bar = tqdm(total=source.info.length, desc="Detecting", unit="frame", delay=1, leave=False, disable=None)
    with bar, pipeline:
        if not (options.show or options.mpl_show):
            while not pipeline.wait(_POLL):
                bar.update(pipeline.written - bar.n)
                if signals.signal is not None and not is_stopping:
                    is_stopping = True
                    pipeline.stop()
            return
        with VideoWindow(source.info.stem, opencv=options.show, matplotlib=options.mpl_show) as window:
            while not pipeline.wait(_WINDOW_POLL):
                bar.update(pipeline.written - bar.n)
                if not is_stopping and (not window.show(pipeline.latest) or signals.signal is not None):
                    is_stopping = True
                    pipeline.stop()


def _tell_rest(path: Path, report: PipelineReport) -> None:
    """Where the part is that was done before an error, and what else went wrong."""
    if report.frames:
        log.info("%d frames are in %s", report.frames, path)
    for error in report.later_errors:
        is_of_file = isinstance(error, OSError) and error.filename
        log.error("%s", f"{error.filename}: {error.strerror}" if is_of_file else error)


def _video_path(config: DataConfig | None) -> str:
    config = config or load_data_config(_DEFAULT_DATA)
    if config.video_path is None:
        raise UserError(f"{config.path}: video_path is missing: add it, or give --input")
    return config.video_path
