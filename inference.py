"""Detect objects in images: a file, a folder, a glob pattern or a list.

python inference.py --weights outputs/training/smoke_training/best_model.pth --input images/
"""

from models.rcnn.errors import ModelError
from utils.cli.options import InferenceOptions
from utils.cli.script import run_script


def main(options: InferenceOptions) -> None:
    """Draw, and on request tabulate, label and cut out, what the detector finds in each image."""
    from torch_utils.predict import detector_of
    from utils.inference.image_inference import images_of, use_on_images
    from utils.logs import setup_logging

    setup_logging()
    images = images_of(options)
    use_on_images(detector_of(options), images, options)


if __name__ == "__main__":
    run_script(main, InferenceOptions, "Detect objects in images.", user_errors=(ModelError,))
