"""The flags of every script but train.py, whose own are in train_options.py; each declared once.

A short flag has one meaning: -w weights, -j workers, -d device, -b batch, -m model, -i input, -o output.
"""

import argparse
import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated

from utils.cli.checks import check_data_yaml, check_input, check_weights
from utils.cli.flags import (
    Fraction,
    NaturalFloat,
    NaturalInt,
    Options,
    Overlap,
    PositiveFloat,
    PositiveInt,
    Share,
    flag,
    switch,
)
from utils.cli.regions import Points, parse_line, parse_zone
from utils.errors import UserError

VOC, YOLO = "pascal_voc", "yolo"
LABEL_TYPES = (VOC, YOLO, "coco")
TRACKERS = ("bytetrack", "deepsort")  # by motion alone; by looks too
BEST, BEST_PER_CLASS = "best", "best-per-class"  # as a threshold: the checkpoint's own
POSTPROCESS_TYPES = ("GREEDYNMM", "NMM", "NMS")
MATCH_METRICS = ("IOS", "IOU")


def _threshold(text: str) -> float | str:
    """A score, BEST or BEST_PER_CLASS."""
    try:
        return text if text in (BEST, BEST_PER_CLASS) else Fraction.__metadata__[0](text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or {BEST}, or {BEST_PER_CLASS}") from None


def _named_threshold(text: str) -> tuple[str, float]:
    """NAME=SCORE."""
    name, sign, score = text.rpartition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=P, as in cell=0.5")
    return name, Fraction.__metadata__[0](score)


def refuse_without(switch: str, options: Options, group: type[Options], purpose: str) -> None:
    """UserError where a flag of `group` was typed, which counts with the switch alone; `purpose` is what it is for."""
    for option in dataclasses.fields(group):
        name = option.metadata.get("names", (switch,))[-1]
        if option.name in options.given and name != switch:
            raise UserError(f"{name} is for {purpose}: add {switch}, or drop it")


def _points(parse: Callable[[str], Points], words: str) -> Callable[[str], Points]:
    """As argparse wants it: `parse`, with a message for what it refuses."""

    def parse_points(text: str) -> Points:
        try:
            return parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}, in px or all fractions of 1") from None

    return parse_points


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """machine"""

    device: str | None = flag(
        "-d", "--device", help="cpu, cuda or cuda:N; without it the first GPU, or the CPU where there is none"
    )


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(MachineOptions):
    """loading"""

    workers: NaturalInt = flag(
        "-j", "--workers", default=4, metavar="N", help="processes that load images, at most one a core; 0: none"
    )


@dataclass(frozen=True, kw_only=True)
class LabelOptions(Options):
    """labels"""

    drop_unknown: bool = switch(
        "--drop-unknown", help="leave out boxes of classes that CLASSES lacks, instead of stopping"
    )


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(MachineOptions):
    """detector"""

    weights: str | None = flag(
        "-w", "-mw", "--weights", metavar="FILE", help="checkpoint, or .onnx of export.py; without it a COCO model"
    )
    model: str | None = flag(
        "-m", "--model", metavar="NAME", help="model with COCO weights; a checkpoint knows its own (checked when given)"
    )
    imgsz: PositiveInt | None = flag("-ims", "--imgsz", metavar="S", help="image size; without it the one of training")
    tensorrt: bool = switch(
        "--tensorrt", help="run an .onnx file with TensorRT, which needs minutes to get ready, and has to be installed"
    )


@dataclass(frozen=True, kw_only=True)
class SliceGridOptions(Options):
    """slices"""

    slice_height: PositiveInt = flag("--slice-height", default=512, metavar="PX", help="of every slice")
    slice_width: PositiveInt = flag("--slice-width", default=512, metavar="PX", help="of every slice")
    overlap_height_ratio: Overlap = flag(
        "--overlap-height-ratio", default=0.2, metavar="R", help="share of the height that neighbors have in common"
    )
    overlap_width_ratio: Overlap = flag(
        "--overlap-width-ratio", default=0.2, metavar="R", help="share of the width that neighbors have in common"
    )


@dataclass(frozen=True, kw_only=True)
class SliceOptions(SliceGridOptions):
    """detections of slices"""

    postprocess_type: str | None = flag(
        "--postprocess-type",
        choices=POSTPROCESS_TYPES,
        help="unite boxes that match (GREEDYNMM, NMM), or keep the best (NMS); without it GREEDYNMM, and NMS with IOU "
        "where --threshold is below 0.1",
    )
    match_metric: str | None = flag(
        "--match-metric",
        choices=MATCH_METRICS,
        help="what two boxes share, over the smaller one (IOS), or over both (IOU); without it IOS",
    )
    match_threshold: Share = flag("--match-threshold", default=0.5, metavar="S", help="boxes that share as much match")
    class_agnostic: bool = switch(
        "--class-agnostic", help="merge boxes of different classes too (not train.py's flag of that name)"
    )
    standard_pred: bool = switch(
        "--no-standard-pred", default=True, help="leave out the detection in the whole image, which finds large objects"
    )


@dataclass(frozen=True, kw_only=True)
class SwitchedSliceOptions(SliceOptions):
    """detection in slices"""

    slice: bool = switch("--slice", help="detect in overlapping slices of each image too, for small objects")

    def wants_slices(self) -> bool:
        """--slice.

        Raises:
            UserError: flags of slices were typed without it.
        """
        if not self.slice:
            refuse_without("--slice", self, SliceOptions, "slices")
        return self.slice


@dataclass(frozen=True, kw_only=True)
class EvalOptions(SwitchedSliceOptions, LoaderOptions, LabelOptions, DetectorOptions):
    """evaluation"""

    data: str = flag(
        "--data",
        default="data_configs/test_image_config.yaml",
        metavar="YAML",
        help="the data set's YAML file",
    )
    label_type: str | None = flag("--label-type", choices=LABEL_TYPES, help="label files; without it as in training")
    square_training: bool = switch("-st", "--square-training", help="resize to S x S, whatever the aspect ratio")
    split: str | None = flag(
        "--split",
        choices=("train", "valid", "test"),
        help="images to evaluate on; without it test where the YAML has it, else valid",
    )
    batch: PositiveInt | None = flag(
        "-b", "--batch", metavar="N", help="images per step; without it as in training, or 8"
    )
    tta: bool = switch("--tta", help="detect in six views of each image, 0.8, 1 and 1.2 times the size, and mirrored")
    voc_ap: str | None = flag(
        "--voc-ap", choices=("2007", "2012"), help="Pascal VOC's AP at IoU 0.5 too: of 11 points (2007), or all (2012)"
    )
    save_json: str | None = flag(
        "--save-json", metavar="FILE", help="write the detections as a COCO results file, the labels to FILE_truth.json"
    )
    verbose: bool = switch("-v", "--verbose", help="a table with every class")
    output: str | None = flag("-o", "--output", metavar="DIR", help="results go to DIR, not outputs/evaluation/res_N")

    def check(self) -> None:
        """See Options: files that do not exist, flags of slices without --slice."""
        super().check()
        check_weights(self.weights)
        check_data_yaml(self.data)
        self.wants_slices()


@dataclass(frozen=True, kw_only=True)
class UseOptions(DetectorOptions):
    """input and output"""

    input: str | None = flag("-i", "--input", help="what to detect in; without it what the YAML names")
    output: str | None = flag("-o", "--output", metavar="DIR", help="results go to DIR, not outputs/inference/res_N")
    data: str | None = flag(
        "--data", metavar="YAML", help="YAML that names an input, or has other names for the classes"
    )
    threshold: Annotated[float | str, _threshold] = flag(
        "-th",
        "--threshold",
        default=0.3,
        metavar="P",
        help="lowest score to keep; best, best-per-class: what the checkpoint proposes",
    )
    class_thresholds: tuple[Annotated[tuple[str, float], _named_threshold], ...] | None = flag(
        "--class-thresholds", metavar="NAME=P", help="lowest scores of single classes, by name or number"
    )
    classes: tuple[NaturalInt, ...] | None = flag(
        "--classes", metavar="K", help="keep only these class indices (0 is __background__)"
    )
    square_img: bool = switch("--square-img", help="resize to S x S, whatever the aspect ratio")
    no_labels: bool = switch("-nlb", "--no-labels", help="draw boxes without class names")
    log_json: bool = switch("--log-json", help="write log.json, in COCO form")
    show: bool = switch("-si", "--show", help="show each result in a window")
    mpl_show: bool = switch("-mpl", "--mpl-show", help="show each result with matplotlib")
    cuda_graphs: bool = switch(
        "--cuda-graphs", default=True, help="on a GPU: record a step and replay it (on by default; ONNX files: never)"
    )

    def check(self) -> None:
        """See Options: files that do not exist."""
        super().check()
        check_weights(self.weights)
        check_data_yaml(self.data)
        check_input(self.input)


@dataclass(frozen=True)
class ResultKinds:
    """Files that inference writes for each image."""

    pictures: bool = True
    show_labels: bool = True  # names beside the boxes
    labels: Collection[str] = ()  # of YOLO and VOC
    crops: bool = False
    table: bool = False  # boxes.csv
    json: bool = False  # log.json


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(UseOptions):
    """images"""

    recursive: bool = switch("-R", "--recursive", help="an input folder's folders too; results keep their tree")
    batch: PositiveInt = flag("-b", "--batch", default=4, metavar="N", help="images, or slices of images, per step")
    table: bool = switch("-t", "--table", help="write boxes.csv")
    save_yolo: bool = switch("--save-yolo", help="write what is found as YOLO labels, to labels_yolo/")
    save_voc: bool = switch("--save-voc", help="write what is found as Pascal VOC labels, to labels_voc/")
    save_crops: bool = switch("--save-crops", help="write each object as a picture of its own, to crops/CLASS/")
    pictures: bool = switch("--pictures", default=True, help="write the pictures with boxes")
    track: bool = switch("--track", help="for videos only: see inference_video.py")

    def result_kinds(self) -> ResultKinds:
        """The files to write for each image."""
        return ResultKinds(
            pictures=self.pictures,
            show_labels=not self.no_labels,
            labels=tuple(form for form, wish in ((YOLO, self.save_yolo), (VOC, self.save_voc)) if wish),
            crops=self.save_crops,
            table=self.table,
            json=self.log_json,
        )


@dataclass(frozen=True, kw_only=True)
class SahiOptions(SliceOptions, InferenceOptions):
    """Options of sahi_inference.py."""


@dataclass(frozen=True, kw_only=True)
class TrackingOptions(Options):
    """tracking"""

    track: bool = switch("--track", help="follow objects from frame to frame, and number them")
    tracker: str = flag(
        "--tracker", default=TRACKERS[0], choices=TRACKERS, help="by motion alone, or by looks too, which costs more"
    )
    track_buffer: NaturalFloat = flag(
        "--track-buffer", default=1.0, metavar="S", help="seconds for which an object that is not seen keeps its number"
    )
    no_trails: bool = switch("--no-trails", help="draw no lines where objects came from")
    count_line: tuple[Annotated[Points, _points(parse_line, "x1,y1,x2,y2")], ...] | None = flag(
        "--count-line",
        metavar="X1,Y1,X2,Y2",
        help="count who crosses this line, each way; px, or fractions",
    )
    count_zone: tuple[Annotated[Points, _points(parse_zone, "three or more corners x1,y1,...")], ...] | None = flag(
        "--count-zone",
        metavar="X1,Y1,...",
        help="count who enters and leaves this polygon; px, or fractions",
    )

    def wants_tracks(self) -> bool:
        """--track.

        Raises:
            UserError: flags of tracking were typed without it.
        """
        if not self.track:
            refuse_without("--track", self, TrackingOptions, "tracking")
        return self.track


@dataclass(frozen=True, kw_only=True)
class VideoOptions(SwitchedSliceOptions, TrackingOptions, UseOptions):
    """video"""

    batch: PositiveInt = flag("-b", "--batch", default=4, metavar="N", help="frames per step")
    fps: PositiveFloat | None = flag(
        "--fps", metavar="F", help="frames a second; without it as the video says, and 30 for a folder of frames"
    )
    codec: str | None = flag("--codec", choices=("h264", "mp4v"), help="of the video to write; without it h264")
    no_audio: bool = switch("--no-audio", help="leave the sound out")
    drop_frames: bool | None = switch(
        "--drop-frames", default=None, help="leave out frames rather than fall behind; without it for live videos only"
    )
    reconnect: NaturalInt = flag(
        "--reconnect", default=5, metavar="N", help="times in a row that a stream that broke off is opened again"
    )

    def check(self) -> None:
        """See Options: files that do not exist, flags of tracking and slices without --track and --slice."""
        super().check()
        self.wants_tracks()
        self.wants_slices()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(MachineOptions):
    """export"""

    weights: str | None = flag("-w", "--weights", metavar="PTH", help="checkpoint; or give --model")
    model: str | None = flag("-m", "--model", metavar="NAME", help="model with COCO weights, instead of --weights")
    data: str | None = flag(
        "--data", metavar="YAML", help="YAML with other names for the classes, and images to check on"
    )
    out: str = flag("--out", metavar="FILE", help="file to write, NAME.onnx; without a folder it goes to weights/")
    width: PositiveInt | None = flag(
        "--width", metavar="W", help="of the graph's input, a multiple of 32; without it that of the training"
    )
    height: PositiveInt | None = flag("--height", metavar="H", help="as --width; one of them alone makes a square")
    dynamic: bool = switch("--dynamic", help="any height and width that are multiples of 32, instead of one size")
    batch: PositiveInt = flag("-b", "--batch", default=1, metavar="N", help="images per call of the graph")
    half: bool = switch("--half", help="half-precision weights: half the size, boxes a little different")
    simplify: bool = switch("--simplify", default=True, help="make the graph smaller with onnxslim (on by default)")
    check_images: tuple[str, ...] | None = flag(
        "--check", metavar="IMAGE", help="images on which the file must find what PyTorch finds; without it an example"
    )

    def check(self) -> None:
        """See Options: one of --weights and --model, files that do not exist."""
        super().check()
        if (self.weights is None) == (self.model is None):
            raise UserError("give --weights of a checkpoint, or --model of one with COCO weights: one of both")
        check_weights(self.weights)
        check_data_yaml(self.data)


@dataclass(frozen=True, kw_only=True)
class DataToolOptions(LabelOptions):
    """data set"""

    data: str = flag("--data", metavar="YAML", help="the data set's YAML file")
    label_type: str = flag("--label-type", default="pascal_voc", choices=LABEL_TYPES, help="its label files")

    def check(self) -> None:
        """See Options: a YAML that does not exist."""
        super().check()
        check_data_yaml(self.data)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(DataToolOptions):
    """result"""

    to: str = flag("--to", choices=LABEL_TYPES, help="label files to write")
    output: str = flag("-o", "--output", metavar="DIR", help="a new folder for images, labels and data_config.yaml")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(DataToolOptions):
    """report"""

    limit: NaturalInt = flag("--limit", default=20, metavar="N", help="places to list of each kind of fault")
    json: str | None = flag("--json", metavar="FILE", help="write all of it to this file too")
    html: str | None = flag("--html", metavar="FILE", help="write a page with charts and pictures to this file")
    imgsz: PositiveInt = flag(
        "-ims", "--imgsz", default=640, metavar="S", help="--imgsz of the training, for box sizes on the page"
    )
    fix: str | None = flag("--fix", metavar="DIR", help="write a mended copy of the data set to this new folder")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """runs"""

    runs: tuple[str, ...] = flag("runs", metavar="RUN", help="folders of runs, as outputs/training/res_1")
    html: str | None = flag("--html", metavar="FILE", help="write a page with the table and curves to this file")
    output: str | None = flag("-o", "--output", metavar="DIR", help="write the curves as PNG files to DIR")
