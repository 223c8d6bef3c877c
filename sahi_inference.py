"""Detect small objects in large images, slice by slice: a file, a folder, a glob pattern or a list.

python sahi_inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

from models.rcnn.errors import ModelError
from utils.cli.options import SahiOptions
from utils.cli.script import run_script


def main(options: SahiOptions) -> None:
    """Draw, and on request tabulate, label and cut out, what the detector finds in the slices of each image."""
    from torch_utils.predict import detector_from_options
    from utils.inference.image_inference import open_images, run_on_images
    from utils.logs import setup_logging

    setup_logging()
    images = open_images(options)
    run_on_images(detector_from_options(options), images, options, slices=options)


if __name__ == "__main__":
    run_script(main, SahiOptions, "Detect small objects in large images, slice by slice.", user_errors=(ModelError,))
