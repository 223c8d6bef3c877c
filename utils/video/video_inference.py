"""Inference on a video for inference_video.py, with optional slicing and tracking."""

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
from utils.inference.settings import check_classes, output_folder, resolve_class_names, resolve_threshold
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

_DEFAULT_DATA = "data_configs/test_video_config.yaml"  # its video_path is the default of --input
_POLL = 0.1  # s between checks for signals
_WINDOW_POLL = 0.01  # s, likewise with a window
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInput:
    """The validated --input and --data of a run."""

    source: VideoSource
    config: DataConfig | None  # of --data


def open_video_input(options: VideoOptions) -> VideoInput:
    """Open the video of --input and validate all options that do not depend on the detector.

    Raises:
        UserError: no video is found, or an option is invalid or unavailable on this machine.
    """
    options.wants_slices()  # these two raise for flags that need --slice or --track
    options.wants_tracks()
    for flag, is_on in (("--show", options.show), ("--mpl-show", options.mpl_show)):
        if is_on:
            check_display(flag)
    config = load_data_config(options.data) if options.data else None
    source = open_video(options.input or _video_path(config), fps=options.fps, reconnect=options.reconnect)
    return VideoInput(source, config)


def run_on_video(detector: Detector, video: VideoInput, options: VideoOptions) -> None:
    """Detect objects in every frame, and write the video and, with --log-json, the log.

    Raises:
        UserError: an option is invalid; or the video ended prematurely, after the frames before were written.
        Interrupted: a signal arrived; the frames so far are written.
    """
    source, info = video.source, detector.info
    class_names = resolve_class_names(info, video.config)
    check_classes(options.classes, class_names)
    threshold = resolve_threshold(
        options.threshold, dict(options.class_thresholds or ()), info, class_names, typed="threshold" in options.given
    )
    batch = options.batch
    name = f"{source.info.stem}.mp4"
    folder = output_folder(options.output, [source.info.file] if source.info.file else [], [name])
    annotator, lowest = _annotator(options, source.info, info, class_names, threshold, folder)
    if options.wants_slices():
        detector = slice_detector(
            detector,
            options,
            threshold=lowest,
            classes=options.classes,
            batch=options.batch,
            enlarge_threshold=threshold,
        )
        batch = 1  # the slices of a frame fill batches
    writer = open_writer(folder / name, source.info, codec=options.codec, sound=not options.no_audio)

    def reported(detections: Detections) -> Detections:
        return detections.filtered(threshold)  # trackers also use lower scores

    frame_log = None
    if options.log_json:
        frame_log = FrameLog(CocoLog(folder / "log.json", class_names), reported)
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
        count=reported,
        batch=batch,
        drop=drop,
    )
    with StopSignal("the video is completed up to here") as signals:
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
            _log_partial_result(folder / name, report)
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
    """Create the annotator; return it and the lowest score of the detections that it needs."""
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
    """Run to the end, or until a signal or the user stops it."""
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


def _log_partial_result(path: Path, report: PipelineReport) -> None:
    """Log the location of the partial video after an error, and any further errors."""
    if report.frames:
        log.info("%d frames are in %s", report.frames, path)
    for error in report.later_errors:
        has_file = isinstance(error, OSError) and error.filename
        log.error("%s", f"{error.filename}: {error.strerror}" if has_file else error)


def _video_path(config: DataConfig | None) -> str:
    config = config or load_data_config(_DEFAULT_DATA)
    if config.video_path is None:
        raise UserError(f"{config.path}: video_path is missing: add it, or give --input")
    return config.video_path
