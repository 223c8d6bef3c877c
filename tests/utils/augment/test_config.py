from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.support.painted_images import EXAMPLE_PIPELINE, assert_boxes_hold_their_colors, assert_boxes_inside, pictures
from utils.augment.config import AugmentationConfig, load_augmentation_config, parse_augmentation_config
from utils.augment.policy import AugmentationPolicy
from utils.augment.transforms import Augmenter, LabeledImage
from utils.errors import DataError

SPATIAL = """
- HorizontalFlip
- VerticalFlip
- Transpose
- RandomSizedBBoxSafeCrop: {height: 40, width: 50, p: 0.3}
- Affine: {scale: [0.8, 1.2], translate_percent: [-0.2, 0.2], p: 0.5}
"""


def parse(text: str) -> AugmentationConfig:
    return parse_augmentation_config(text, Path("aug.yaml"))


def augmenter(text: str) -> Augmenter:
    return Augmenter(AugmentationPolicy(config=parse(text)))


def apply(augment: Augmenter, picture: LabeledImage, seed: int) -> LabeledImage:
    return augment(lambda _: picture, [0], picture.image.shape[:2], np.random.default_rng(seed))


def test_a_pipeline_in_words() -> None:
    assert str(parse(EXAMPLE_PIPELINE)) == (
        "aug.yaml: HorizontalFlip 0.5; OneOf 0.3 (MotionBlur, GaussNoise); RandomBrightnessContrast 0.5"
    )


WRONG = {  # text -> what the message must have
    "": "aug.yaml: expected a list of Albumentations transforms such as - HorizontalFlip",
    "Blur: {}": "aug.yaml: expected a list",
    "- [Blur]": "aug.yaml:1: expected one transform",
    "- {Blur: {}, Sharpen: {}}": "aug.yaml:1: expected one transform",
    "- Blur: 3": "aug.yaml:1: expected keys and values",
    "- 3: {}": "aug.yaml:1: expected keys and values",
    "- Blur: {p: 0.1, p: 0.2}": "aug.yaml:1: Blur has a key twice",
    "\n- HorizontlFlip": "aug.yaml:2: unknown transform 'HorizontlFlip'; did you mean HorizontalFlip?",
    "- os: {}": "unknown transform 'os'; https",
    "- Lambda: {}": "aug.yaml:1: Lambda cannot be used: it needs Python code",
    "- Compose: {transforms: [Blur]}": "use Sequential",
    "- MotionBlur: {blur_limits: 5}": "aug.yaml:1: MotionBlur has no 'blur_limits'; did you mean blur_limit?",
    "- Blur: {strict: true}": "Blur has no 'strict'",
    "- MotionBlur: {blur_limit: abc}": "aug.yaml:1: MotionBlur: blur_limit",
    "- HorizontalFlip: {p: 7}": "HorizontalFlip: p Input should be less than or equal to 1",
    "- OneOf: {p: 7, transforms: [Blur]}": "OneOf: p is 7, expected a number from 0 to 1",
    "- SomeOf: {n: x, transforms: [Blur]}": "SomeOf: n is 'x', expected a whole number",
    "- OneOf: {}": "OneOf needs transforms",
    "- OneOf: {transforms: 3}": "expected a list of transforms",
    "- OneOf:\n    p: 0.01\n    transforms:\n    - Blur\n    - Normalize": "aug.yaml:5: Normalize turns an image into",
    "- ToTensorV2": "aug.yaml:1: ToTensorV2 turns an image into a Tensor, expected uint8",
    "- ToGray: {num_output_channels: 1}": "ToGray turns an image into uint8 of shape",
    "- RandomCrop: {height: 600, width: 600, p: 0.01}": "RandomCrop fails on an image of 80 x 64 px: Crop size",
    "- Mosaic": "Mosaic fails on an image of 80 x 64 px: Mosaic requires ['mosaic_metadata']",
    "- FDA": "FDA fails on an image",
    "- Blur: &a {p: 1}\n- Blur: *a": "aug.yaml:2: not valid YAML: *a repeats a list",
    "- !!python/object/apply:os.system [ls]": "aug.yaml:1: not valid YAML",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", WRONG)
def test_mistakes_are_refused_with_file_and_line(text: str) -> None:
    with pytest.raises(DataError) as error:
        parse(text).check([(64, 80)])
    assert WRONG[text] in str(error.value)
    assert str(error.value).startswith("aug.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_file_names_its_neighbor(tmp_path: Path) -> None:
    (tmp_path / "augs.yaml").write_text(EXAMPLE_PIPELINE)
    with pytest.raises(DataError, match=r"aug\.yaml: no such file; did you mean .*augs\.yaml\?"):
        load_augmentation_config(tmp_path / "aug.yaml")
    load_augmentation_config(tmp_path / "augs.yaml").check([(64, 80), (1, 80)])


def test_a_transform_that_fails_later_is_named() -> None:
    small = LabeledImage(np.zeros((10, 10, 3), np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64))
    with pytest.raises(DataError, match=r"aug\.yaml fails on an image of 10 x 10 px: Crop size"):
        apply(augmenter("- RandomCrop: {height: 32, width: 32, p: 1}"), small, 0)


FLIP = augmenter("- HorizontalFlip: {p: 1}")
SPATIALLY = augmenter(SPATIAL)


def test_boxes_are_not_rounded() -> None:
    boxes = np.array([[0.1, 0.2, 30.3, 7.7], [10.25, 3.125, 39.9, 29.99]], np.float32)
    flipped = apply(FLIP, LabeledImage(np.zeros((30, 40, 3), np.uint8), boxes, np.array([7, 3])), 0)
    np.testing.assert_allclose(flipped.boxes, [[9.7, 0.2, 39.9, 7.7], [0.1, 3.125, 29.75, 29.99]], atol=1e-5)
    assert flipped.labels.tolist() == [7, 3]


@examples(50)
@given(pictures(), st.integers(0, 1000))
def test_boxes_and_labels_move_with_their_pixels(picture: LabeledImage, seed: int) -> None:
    moved = apply(SPATIALLY, picture, seed)
    assert_boxes_inside(moved)
    assert_boxes_hold_their_colors(moved)


def test_boxes_stay_exactly_where_only_pixels_change() -> None:
    boxes = np.array([[0.1, 0.2, 0.30001, 1.7]], np.float32)
    picture = LabeledImage(np.zeros((10, 10, 3), np.uint8), boxes, np.array([4]))
    changed = apply(augmenter("- GaussNoise: {p: 1}\n- ColorJitter"), picture, 0)
    np.testing.assert_array_equal(changed.boxes, boxes)
    assert changed.image.any()


def test_a_sample_does_not_depend_on_those_before() -> None:
    """albumentations' label fields behave differently if the first image had no boxes."""
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    full = LabeledImage(image, np.array([[1, 2, 30, 40], [5, 5, 20.5, 9]], np.float32), np.array([300, 2]))
    empty = LabeledImage(image, np.empty((0, 4), np.float32), np.empty(0, np.int64))
    one, other = (augmenter("- HorizontalFlip\n- GaussNoise: {p: 1}\n- RandomRain: {p: 1}") for _ in range(2))
    first = [apply(one, picture, seed) for seed in range(5) for picture in (empty, full)]
    second = [apply(other, picture, seed) for seed in reversed(range(5)) for picture in (full, empty)][::-1]
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert sorted(first[1].labels.tolist()) == [2, 300]


def test_only_a_picture_that_others_see_is_copied() -> None:
    """Some transforms work in place: the pixels of a cache are read-only, and are copied before."""
    untouched = parse("- HorizontalFlip: {p: 0}").pipeline()
    image, no_boxes = np.zeros((8, 8, 3), np.uint8), np.empty((0, 4), np.float32)
    assert np.shares_memory(untouched(image, no_boxes, np.random.default_rng(0))[0], image)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    image.flags.writeable = False
    before = image.copy()
    augment = augmenter("- RandomBrightnessContrast: {p: 1}\n- CoarseDropout: {p: 1}\n- GaussNoise: {p: 1}")
    picture = LabeledImage(image, np.empty((0, 4), np.float32), np.empty(0, np.int64))
    for seed in range(10):
        assert not np.array_equal(apply(augment, picture, seed).image, before)
        np.testing.assert_array_equal(image, before)
