"""Detect small objects in large images, slice by slice: a file, a folder, a glob pattern or a list.

python sahi_inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

from utils.cli.options import SahiOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(SahiOptions, "Detect small objects in large images, slice by slice.")

from models.rcnn.errors import ModelError
from torch_utils.predict import detector_from_options
from utils.inference.image_inference import open_images, run_on_images
from utils.logs import setup_logging


def main(options: SahiOptions) -> None:
    """Detect objects in slices of each image; write annotated pictures and the requested tables, labels and crops."""
    setup_logging()
    images = open_images(options)
    run_on_images(detector_from_options(options), images, options, slices=options)


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
