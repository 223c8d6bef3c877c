"""Real photographs and a real video by every way of using a detector: all find the same boxes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

import inference
import inference_video
import sahi_inference
from tests.conftest import ROOT
from tests.support.exports import export
from tests.support.videos import read_back
from torch_utils.onnx_export import EXACT, match_detections
from torch_utils.predict import load_detector
from utils.cli.flags import Options, parse_options
from utils.cli.options import InferenceOptions, SahiOptions, VideoOptions
from utils.detect.detections import Detections
from utils.images.image_files import read_image
from utils.slicing.grid import Slices
from utils.slicing.merging import Merging
from utils.slicing.sliced_detector import SlicedDetector
from utils.tracking.logs import read_mot
from utils.video.sources import open_video

MEDIA = ROOT.parent / "shared" / "media"
PHOTOGRAPHS = ("image_1.jpg", "image_2.jpg")
FRAMES = 6
THRESHOLD = 0.3
SLICES = ("--slice-height", "400", "--slice-width", "440")
KINDS = ("model.pth", "model.onnx")

pytestmark = pytest.mark.skipif(not MEDIA.is_dir(), reason="the photographs and the video are not beside the project")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its ONNX file."""
    folder = tmp_path_factory.mktemp("media")
    export(folder, square=True)
    return folder


@pytest.fixture
def use(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Calls the main of a script with a detector; returns the folder of results."""

    def run_main(script: ModuleType, options: type[Options], kind: str, *words: object) -> Path:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))} {kind}"
        argv = ["-w", folder / kind, "-o", out, "-d", "cpu", "-th", THRESHOLD, "--log-json", *words]
        script.main(parse_options(options, "", list(map(str, argv))))
        return out

    return run_main


def logged(results: Path) -> list[Detections]:
    """Read the detections of log.json, image by image."""
    content = json.loads((results / "log.json").read_text())
    found = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        corners = np.array([a["bbox"] for a in own]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        found.append(
            Detections(corners, np.array([a["score"] for a in own]), np.array([a["category_id"] for a in own], int))
        )
    return found


def assert_same(some: list[Detections], others: list[Detections], images: int) -> None:
    """The same boxes in each of the images, and many of them.

    One in a hundred may have no partner, as the last bit of a score or an overlap can decide whether a box is there.
    """
    assert len(some) == len(others) == images
    assert min(map(len, some)) >= 5
    alone = sum(len(match_detections(one, other, EXACT)[1]) for one, other in zip(some, others, strict=True))
    assert alone <= 0.01 * (sum(map(len, some)) + sum(map(len, others)))


def first_frames(path: Path, count: int) -> Path:
    """A copy of the start of the video."""
    with av.open(str(MEDIA / "video_1.mp4")) as source, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet, _ in zip(source.demux(source.streams.video[0]), range(count), strict=False):
            packet.stream = stream
            copy.mux(packet)
    return path


def test_photographs(use, folder: Path) -> None:
    words = ("-i", MEDIA / "*.jpg", "--table")
    torch, onnx = (use(inference, InferenceOptions, kind, *words) for kind in KINDS)
    assert_same(logged(torch), logged(onnx), len(PHOTOGRAPHS))
    assert_same(logged(torch), logged(use(inference, InferenceOptions, KINDS[0], *words, "-b", 1)), len(PHOTOGRAPHS))
    tables = [list(csv.reader((results / "boxes.csv").read_text().splitlines()))[1:] for results in (torch, onnx)]
    assert [len(table) for table in tables] == [sum(map(len, logged(torch)))] * 2
    for kind in KINDS:
        detector = load_detector(folder / kind, device="cpu")
        assert_same(logged(torch), detector([MEDIA / name for name in PHOTOGRAPHS], threshold=THRESHOLD), 2)
    for name in PHOTOGRAPHS:
        drawn, original = read_image(torch / name), read_image(MEDIA / name)
        assert drawn.shape == original.shape
        assert (np.abs(drawn.astype(int) - original) > 60).any(2).mean() > 0.005, "boxes are drawn"


@pytest.mark.full
def test_photographs_in_slices(use, folder: Path) -> None:
    torch, onnx = (use(sahi_inference, SahiOptions, kind, "-i", MEDIA / "*.jpg", *SLICES) for kind in KINDS)
    assert_same(logged(torch), logged(onnx), len(PHOTOGRAPHS))
    detector = SlicedDetector(load_detector(folder / KINDS[0], device="cpu"), Slices(400, 440), Merging())
    assert_same(logged(torch), detector([MEDIA / name for name in PHOTOGRAPHS], threshold=THRESHOLD), 2)
    whole = logged(use(inference, InferenceOptions, KINDS[0], "-i", MEDIA / "*.jpg"))
    assert [len(found) for found in whole] != [len(found) for found in logged(torch)]


@pytest.mark.full
def test_a_photograph_is_a_video_of_one_frame(use, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / PHOTOGRAPHS[0]).write_bytes((MEDIA / PHOTOGRAPHS[0]).read_bytes())
    for switch, script, options in ((), inference, InferenceOptions), (("--slice",), sahi_inference, SahiOptions):
        grid = SLICES if switch else ()
        image = use(script, options, KINDS[0], "-i", MEDIA / PHOTOGRAPHS[0], *grid)
        video = use(inference_video, VideoOptions, KINDS[0], "-i", tmp_path / "frames", *switch, *grid)
        assert_same(logged(image), logged(video), 1)


def test_the_video(use, folder: Path, tmp_path: Path) -> None:
    words = ("-i", first_frames(tmp_path / "video.mp4", FRAMES))
    torch, onnx = (use(inference_video, VideoOptions, kind, *words) for kind in KINDS)
    assert_same(logged(torch), logged(onnx), FRAMES)
    frames = frames_of(words[1])
    assert [picture.shape for picture in read_back(torch / "video.mp4")[0]] == [frame.shape for frame in frames]
    assert_same(logged(torch), load_detector(folder / KINDS[0], device="cpu")(frames, threshold=THRESHOLD), FRAMES)

    tracked = [use(inference_video, VideoOptions, kind, *words, "--track") for kind in KINDS]
    assert (torch / "log.json").read_text() == (tracked[0] / "log.json").read_text()
    ours, theirs = (read_mot(results / "video_tracks.txt") for results in tracked)
    assert len(ours) == len(theirs) == FRAMES
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=EXACT.box)
    assert sum(map(len, ours)) > FRAMES
    counts = [json.loads((results / "video_counts.json").read_text())["objects"] for results in tracked]
    assert counts[0] == counts[1]


@pytest.mark.full
def test_the_video_in_slices(use, folder: Path, tmp_path: Path) -> None:
    words = ("-i", first_frames(tmp_path / "video.mp4", 3), "--slice", *SLICES)
    torch, onnx = (use(inference_video, VideoOptions, kind, *words) for kind in KINDS)
    assert_same(logged(torch), logged(onnx), 3)
    detector = SlicedDetector(load_detector(folder / KINDS[0], device="cpu"), Slices(400, 440), Merging())
    assert_same(logged(torch), detector(frames_of(words[1]), threshold=THRESHOLD), 3)
    tracked = use(inference_video, VideoOptions, KINDS[0], *words, "--track")
    assert (torch / "log.json").read_text() == (tracked / "log.json").read_text()
    assert len(read_mot(tracked / "video_tracks.txt")) == 3


def frames_of(path: Path) -> list[np.ndarray]:
    return [frame.image for frame in open_video(str(path)).frames()]
