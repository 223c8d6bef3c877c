"""Detect objects in a video: a file, a camera, a stream, or a folder of frames.

python inference_video.py --weights outputs/training/smoke_training/best_model.pth --input video.mp4
"""

from utils.cli.options import VideoOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(VideoOptions, "Detect objects in a video.")

from models.rcnn.errors import ModelError
from torch_utils.predict import detector_from_options
from utils.logs import setup_logging
from utils.video.video_inference import open_video_input, run_on_video


def main(options: VideoOptions) -> None:
    """Detect objects in each frame and write the annotated video."""
    setup_logging()
    video = open_video_input(options)
    run_on_video(detector_from_options(options), video, options)


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
