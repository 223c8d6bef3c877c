import numpy as np
import pytest

from utils.detect.detector import DetectorInfo
from utils.errors import UserError
from utils.inference.settings import check_classes, output_folder, resolve_threshold
from utils.loading.size_rule import SizeRule

NAMES = ("__background__", "red", "green", "N/A", "blue")


def info(**known: object) -> DetectorInfo:
    return DetectorInfo("nano", NAMES, SizeRule(640), "cpu", "a.pth", **known)


def test_one_threshold() -> None:
    assert resolve_threshold(0.3, {}, info(), NAMES, typed=False) == 0.3
    assert resolve_threshold("best", {}, info(best_threshold=0.4), NAMES, typed=True) == 0.4


def test_thresholds_of_classes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    each = resolve_threshold(0.3, {"green": 0.7, "4": 0.1}, info(), NAMES, typed=True)
    np.testing.assert_array_equal(each[1:], [0.3, 0.7, 0.3, 0.1])
    assert caplog.messages == ["Score thresholds: red 0.300, green 0.700, blue 0.100"]


def test_the_checkpoints_thresholds_of_classes() -> None:
    """A class without boxes in validation has the common one; what is typed wins."""
    known = info(best_threshold=0.4, class_thresholds={"red": 0.6, "green": None, "blue": 0.2})
    each = resolve_threshold("best-per-class", {"blue": 0.9}, known, ("x", "a", "b", "N/A", "blue"), typed=True)
    np.testing.assert_array_equal(each[1:], [0.6, 0.4, 0.4, 0.9])


@pytest.mark.parametrize(
    ("wish", "known"),
    [("best", {}), ("best-per-class", {}), ("best-per-class", {"best_threshold": 0.5})],
)
def test_a_checkpoint_that_proposes_nothing(wish: str, known: dict) -> None:
    with pytest.raises(UserError, match=f"--threshold {wish}: a.pth stores no best threshold"):
        resolve_threshold(wish, {}, info(**known), NAMES, typed=True)


@pytest.mark.parametrize("name", ["yellow", "0", "5", "__background__", "-1"])
def test_thresholds_of_no_class(name: str) -> None:
    with pytest.raises(
        UserError, match=f"--class-thresholds {name}: no such class; the classes are 1 red, 2 green, 4 blue"
    ):
        resolve_threshold(0.3, {name: 0.5}, info(), NAMES, typed=True)


def test_classes_that_there_are_not() -> None:
    check_classes([1, 4], NAMES)
    with pytest.raises(UserError, match="--classes 0: no such class"):
        check_classes([1, 0], NAMES)


def test_results_never_take_the_place_of_inputs(tmp_path) -> None:
    own = tmp_path / "in" / "a.jpg"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(UserError, match="holds the input images"):
        output_folder(str(tmp_path / "in"), [own], ["a.jpg"])
    assert output_folder(str(tmp_path / "in"), [own], ["a_2.jpg"]) == tmp_path / "in"
