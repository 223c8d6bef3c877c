from dataclasses import fields

import pytest

from utils.augment.policy import POLICIES, SCALES, AugmentationPolicy, policy_of
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions

OLD = {"flip": 0.5, "mosaic": 0.0, "use_train_aug": False}  # what runs saved before there was --aug


def policy(*argv: str, saved: dict | None = None) -> AugmentationPolicy:
    return policy_of_options(parse_options(TrainOptions, "", argv).over(saved or {}))


def policy_of_options(options: TrainOptions) -> AugmentationPolicy:
    """Return the policy of --aug and the other flags, as train.py makes it."""
    names = ("flip", "mosaic", "multi_scale", "use_train_aug")
    return policy_of(options.aug, **{name: getattr(options, name) for name in names})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), AugmentationPolicy(flip=0.5)),
        (("--aug", "none"), AugmentationPolicy()),
        (("--aug", "none", "--multi-scale"), AugmentationPolicy(scales=SCALES)),
        (("--flip", "0"), AugmentationPolicy()),
        (("--mosaic", "0.5", "-uta"), AugmentationPolicy(flip=0.5, mosaic=0.5, photometric=True)),
        (("--aug", "light"), AugmentationPolicy(flip=0.5, scales=SCALES)),
        (("--aug", "light", "--no-multi-scale", "--flip", "0.1"), AugmentationPolicy(flip=0.1)),
    ],
)
def test_a_policy_has_a_name_and_flags_change_parts_of_it(argv: tuple, expected: AugmentationPolicy) -> None:
    assert policy(*argv) == expected


def test_strong_can_be_weakened() -> None:
    weaker = policy("--aug", "strong", "--no-use-train-aug", "--mosaic", "0", "--no-multi-scale", "--flip", "0")
    assert weaker == AugmentationPolicy(crop=0.5, mixup=0.1, copy_paste=0.1)


def test_runs_from_before_policies_go_on_as_they_were() -> None:
    assert policy(saved=OLD) == AugmentationPolicy(flip=0.5)
    assert policy(saved={"flip": 0.25, "mosaic": 0.5, "use_train_aug": True}) == AugmentationPolicy(0.25, 0.5, True)


def test_saved_options_give_the_same_policy() -> None:
    options = parse_options(TrainOptions, "", ["--aug", "strong", "--no-use-train-aug", "--flip", "0.25"])
    assert policy(saved=options.as_dict()) == policy_of_options(options)


def test_a_policy_is_described_for_the_log() -> None:
    assert list(POLICIES["none"].lines()) == ["none"]
    assert list(POLICIES["default"].lines()) == ["left-right flip 0.5"]
    assert list(POLICIES["strong"].lines()) == [
        "mosaic 0.5; crop 0.5; mixup 0.1; copy-paste 0.1; left-right flip 0.5; size times 0.75 to 1.25; "
        "blur, gray, brightness, contrast, color, gamma"
    ]


def test_the_flag_lists_every_policy() -> None:
    flag = next(field for field in fields(TrainOptions) if field.name == "aug")
    assert tuple(flag.metadata["choices"]) == tuple(POLICIES)
