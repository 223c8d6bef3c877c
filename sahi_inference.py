"""Detect small objects in large images, slice by slice: a file, a folder, a glob pattern or a list.

python sahi_inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

from utils.cli.options import SahiOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(SahiOptions, "Detect small objects in large images, slice by slice.")

from models.rcnn.errors import ModelError
from torch_utils.predict import detector_of
from utils.inference.image_inference import images_of, use_on_images
from utils.logs import setup_logging


def main(options: SahiOptions) -> None:
    """Draw, and on request tabulate, label and cut out, what the detector finds in the slices of each image."""
    setup_logging()
    images = images_of(options)
    use_on_images(detector_of(options), images, options, slices=options)


if __name__ == "__main__":
    run_main(main, OPTIONS, user_errors=(ModelError,))
