import numpy as np
import pytest

from utils.detect.detections import Detections
from utils.visualize.drawing import class_color, draw_detections, draw_ground_truth, grid

GRAY = np.full((100, 150, 3), 90, np.uint8)
NAMES = ("__background__", "cat", "Straßenbahn")


def found(*boxes: tuple, label: int = 1) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes), np.float32), np.full(len(boxes), label)
    )


def test_box_is_drawn_where_it_is_and_the_argument_left_alone() -> None:
    before = GRAY.copy()
    drawn = draw_detections(GRAY, found((20, 30, 60, 70)), NAMES, show_labels=False)
    np.testing.assert_array_equal(GRAY, before)
    changed = np.argwhere((drawn != GRAY).any(2))
    assert changed.min(0).tolist() == [30, 20]
    assert changed.max(0).tolist() == [69, 59]
    assert tuple(drawn[30, 40]) == class_color(1)
    np.testing.assert_array_equal(drawn[40:60, 30:50], GRAY[40:60, 30:50])


def test_labels_add_text_unless_switched_off() -> None:
    box = (20, 30, 60, 70)
    bare = draw_detections(GRAY, found(box), NAMES, show_labels=False)
    labeled = draw_detections(GRAY, found(box), NAMES)
    assert (labeled[:30] != bare[:30]).any()


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (140, 90, 150, 100), (0, 0, 150, 100), (149, 0, 150, 1)])
def test_labels_stay_inside_the_image(box: tuple) -> None:
    assert draw_detections(GRAY, found(box, label=2), NAMES).shape == GRAY.shape


def test_a_label_beyond_the_names_is_shown_as_a_number() -> None:
    draw_detections(GRAY, found((1, 1, 5, 5), label=7), NAMES)


@pytest.mark.parametrize("shape", [(90, 40, 3), (40, 90, 3), (2000, 1, 3)])
def test_portrait_images_are_not_halved(shape: tuple) -> None:
    """Fault of the predecessor: portrait images were halved."""
    image = np.full(shape, 90, np.uint8)
    box = (0, shape[0] - 6, shape[1], shape[0])
    for labels in (False, True):
        drawn = draw_detections(image, found(box), NAMES, show_labels=labels)
        assert drawn.shape == shape
        assert tuple(drawn[-1, 0]) == class_color(1)
    assert draw_ground_truth(image, np.array([box]), np.array([1]), NAMES).shape == shape


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\x1b[2J", "\udcff.jpg", "\ud800", "x" * 100_000, "", "猫"])
def test_names_that_no_font_can_draw_are_no_fault(name: str) -> None:
    assert draw_detections(GRAY, found((20, 30, 60, 70)), ("__background__", name)).shape == GRAY.shape
    draw_ground_truth(GRAY, np.array([(20, 30, 60, 70)]), np.array([1]), ("__background__", name))


def test_nothing_to_draw() -> None:
    np.testing.assert_array_equal(draw_detections(GRAY, found(), NAMES), GRAY)
    np.testing.assert_array_equal(draw_ground_truth(GRAY, np.empty((0, 4)), np.empty(0, int), NAMES), GRAY)


def test_an_image_smaller_than_its_label() -> None:
    tiny = np.zeros((4, 6, 3), np.uint8)
    assert draw_detections(tiny, found((0, 0, 3, 3)), NAMES).shape == (4, 6, 3)


def test_classes_have_distinct_colors() -> None:
    colors = {class_color(i) for i in range(1, 92)}
    assert len(colors) > 85


def test_grid_holds_every_image() -> None:
    images = [np.full((h, w, 3), v, np.uint8) for h, w, v in ((50, 50, 10), (100, 40, 20), (600, 900, 30))]
    picture = grid(images, cell=100, columns=2)
    for value in (10, 20, 30):
        assert (picture == value).any()
    assert picture.shape[1] <= 2 * 104
