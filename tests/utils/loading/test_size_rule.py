import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.loading.size_rule import SizeRule, padded

SIDE = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("rule", "image", "expected"),
    [
        (SizeRule(640), (480, 640), (640, 853)),
        (SizeRule(640), (640, 480), (853, 640)),
        (SizeRule(800), (480, 1920), (333, 1333)),  # the longer side is the limit
        (SizeRule(640, square=True), (480, 640), (640, 640)),
        (SizeRule(320, 640), (480, 640), (320, 427)),
        (SizeRule(240), (240, 320), (240, 320)),
        (SizeRule(640), (1, 2000), (1, 1333)),
    ],
)
def test_sizes(rule: SizeRule, image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rule.network_size(*image) == expected


@given(st.integers(32, 1333), SIDE, SIDE)
def test_rule_holds_for_every_image(size: int, height: int, width: int) -> None:
    new_height, new_width = SizeRule(size).network_size(height, width)
    assert min(new_height, new_width) >= 1
    assert max(new_height, new_width) <= 1333
    assert min(new_height, new_width) == size or max(new_height, new_width) == 1333
    assert (new_height <= new_width) == (height <= width) or abs(new_height - new_width) <= 1


def test_as_dict_comes_back() -> None:
    rule = SizeRule(320, 640, square=True)
    assert SizeRule(**rule.as_dict()) == rule


@given(SIDE)
def test_padded_is_the_next_multiple_of_32(side: int) -> None:
    assert padded(side) % 32 == 0
    assert side <= padded(side) < side + 32
