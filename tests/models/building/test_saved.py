from dataclasses import fields

import pytest
import torch

from models.building.build_options import BuildOptions
from models.building.saved import SIZE_RULE
from models.create_fasterrcnn_model import create_from_checkpoint, create_model, open_detector
from models.rcnn.errors import ModelError
from tests.support.networks import NANO, checkpoint_of
from utils.loading.size_rule import SizeRule

BIAS = "backbone.0.bias"


@pytest.fixture(scope="module")
def nano():
    return create_model[NANO](3, pretrained=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"norm": "batch", "depth": 3},
            "model_options of the checkpoint has depth, expected only norm, .*: a newer ver",
        ),
        ({1: 2}, "model_options of the checkpoint has 1, expected only"),
        (["batch"], "model_options of the checkpoint is a list, expected a dict"),
        (
            {"norm": ["batch"]},
            r"model_options of the checkpoint: norm is \['batch'\], expected one of own, frozen, batch",
        ),
        ({"rois_per_image": None}, "rois_per_image is None, expected a whole number of at least 1"),
        ({"proposals": "many"}, "proposals is 'many', expected a whole number of at least 1"),
        ({"freeze": -1}, "freeze is -1, expected a whole number of at least 0"),
        ({"freeze": True}, "freeze is True, expected a whole number"),
    ],
)
def test_model_options_that_this_version_does_not_know(nano, options, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_from_checkpoint(checkpoint_of(nano, model_options=options))


def test_model_options_may_lack_what_a_later_version_added(nano) -> None:
    again = create_from_checkpoint(checkpoint_of(nano, model_options={"norm": "batch"}))
    assert again.build_options == BuildOptions(norm="batch")


def test_more_frozen_stages_than_the_backbone_has() -> None:
    with pytest.raises(ModelError, match="freeze is 7, and this backbone has 5 stages: give at most those"):
        create_model["fasterrcnn_resnet50_fpn"](3, pretrained=False, options=BuildOptions(freeze=7))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "model_state_dict of the checkpoint is a list, expected a dict of names and tensors"),
        ({0: torch.ones(1)}, "has the key 0, expected names such as backbone"),
        ({BIAS: "ones"}, f"has a str for {BIAS}, expected a tensor"),
        ({BIAS: [1.0]}, f"has a list for {BIAS}, expected a tensor"),
        (
            {BIAS: torch.ones(64).to_sparse()},
            rf"has a tensor of torch.float32, torch.sparse_coo for {BIAS}, expected a de",
        ),
        ({BIAS: torch.ones(64, device="meta")}, f"has a tensor without values for {BIAS}, expected a dense one"),
        ({BIAS: torch.ones(64, dtype=torch.complex64)}, "has a tensor of torch.complex64"),
        ({BIAS: torch.ones(64, dtype=torch.bool)}, "has a tensor of torch.bool"),
    ],
)
@pytest.mark.parametrize("num_classes", [None, 5])
def test_model_state_dict_of_other_things_than_dense_tensors(nano, state, message: str, num_classes) -> None:
    whole = {**nano.state_dict(), **state} if isinstance(state, dict) else state
    with pytest.raises(ModelError, match=message):
        create_from_checkpoint({**checkpoint_of(nano), "model_state_dict": whole}, num_classes=num_classes)


@pytest.mark.parametrize("bias", [None, torch.tensor(1.0), torch.zeros(0), torch.zeros(3, 1)])
def test_a_box_predictor_that_is_missing_or_counts_no_classes(nano, bias) -> None:
    state = dict(nano.state_dict())
    key = "roi_heads.box_predictor.cls_score.bias"
    state.pop(key) if bias is None else state.update({key: bias})
    with pytest.raises(ModelError, match="the weights do not fit this model"):
        open_detector({**checkpoint_of(nano), "model_state_dict": state}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["__background__", "a"]}, "classes of the checkpoint has 2 names, expected 3, one for each class"),
        ({"classes": []}, "classes of the checkpoint has 0 names, expected 3"),
        ({"classes": 3}, "classes of the checkpoint is a int, not all of it text, expected the list of class names"),
        ({"classes": ["__background__", 1, 2]}, "classes of the checkpoint is a list, not all of it text"),
        ({"data": {"CLASSES": ["__background__", "a"]}}, "CLASSES in data of the checkpoint has 2 names, expected 3"),
        ({"data": {"CLASSES": "a b c"}}, "CLASSES in data of the checkpoint is a str"),
        ({"data": {}}, "CLASSES in data of the checkpoint is missing"),
        ({"data": ["a", "b", "c"]}, "CLASSES in data of the checkpoint is missing"),
    ],
)
def test_class_names_that_are_not_those_of_the_box_predictor(nano, change, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_detector({**checkpoint_of(nano), **change}, None)


def test_a_checkpoint_without_data_at_all_has_no_class_names(nano) -> None:
    checkpoint = checkpoint_of(nano)
    del checkpoint["data"]
    with pytest.raises(ModelError, match="CLASSES in data of the checkpoint is missing"):
        open_detector(checkpoint, None)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"size": 320, "stride": 64},
            "size_rule of the checkpoint has stride, expected only size, max_size, square: a new",
        ),
        (320, "size_rule of the checkpoint is a int, expected a dict"),
        ({}, "size_rule of the checkpoint: size is None, expected a whole number from 1 to 32768"),
        ({"size": "320"}, "size is '320', expected a whole number"),
        ({"size": 0}, "size is 0, expected a whole number"),
        ({"size": 10**6}, "size is 1000000, expected a whole number from 1 to 32768"),
        ({"size": 320, "max_size": 1333.0}, r"max_size is 1333\.0, expected a whole number"),
        ({"size": 320, "square": 1}, "square is 1, expected true or false"),
    ],
)
def test_size_rule_that_this_version_does_not_know(nano, rule, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_detector(checkpoint_of(nano, size_rule=rule), None)


def test_size_rule_has_the_fields_of_the_class_that_reads_it(nano) -> None:
    assert tuple(field.name for field in fields(SizeRule)) == SIZE_RULE
    rule = open_detector(checkpoint_of(nano, size_rule={"size": 320}), None).size_rule
    assert SizeRule(**rule) == SizeRule(320)


def test_a_proposed_threshold_is_a_score(nano) -> None:
    assert open_detector(checkpoint_of(nano), None).best_threshold is None
    assert open_detector(checkpoint_of(nano, best_threshold=0.62), None).best_threshold == 0.62
    for wrong in (1.5, float("nan"), "0.5", True, torch.ones(()), [0.5] * 10_000):
        with pytest.raises(ModelError, match=r"best_threshold of the checkpoint is .*, expected a number from 0 to 1"):
            open_detector(checkpoint_of(nano, best_threshold=wrong), None)
