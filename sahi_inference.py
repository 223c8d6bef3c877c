"""Detect small objects in large images, slice by slice: a file, a folder, a glob pattern or a list.

python sahi_inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

from models.rcnn.errors import ModelError
from utils.cli.options import SahiOptions
from utils.cli.script import run_script


def main(options: SahiOptions) -> None:
    """Draw, and on request tabulate, label and cut out, what the detector finds in the slices of each image."""
    from torch_utils.predict import detector_of
    from utils.inference.image_inference import images_of, use_on_images
    from utils.logs import setup_logging

    setup_logging()
    images = images_of(options)
    use_on_images(detector_of(options), images, options, slices=options)


if __name__ == "__main__":
    run_script(main, SahiOptions, "Detect small objects in large images, slice by slice.", user_errors=(ModelError,))
