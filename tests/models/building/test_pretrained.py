from pathlib import Path

import pytest
import torch

import models.building.pretrained
from models.create_fasterrcnn_model import create_coco_model, create_model, open_detector
from models.rcnn.errors import ModelError
from tests.conftest import full_among


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fasterrcnn_resnet18", "resnet18-f37072fd.pth"),
        ("fasterrcnn_squeezenet1_1_small_head", "squeezenet1_1-b8a52dc0.pth"),
        ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
        ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
        ("fasterrcnn_mobilenetv3_large_fpn", "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"),
        ("fasterrcnn_mobilenetv3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"),
    ],
)
def test_without_network_the_message_says_what_to_do(weights_folder: Path, name: str, file: str) -> None:
    with pytest.raises(ModelError) as error:
        create_model[name](5, pretrained=True)
    message = str(error.value)
    for part in (file, f"https://download.pytorch.org/models/{file}", str(weights_folder), "--no-pretrained"):
        assert part in message
    assert not list(weights_folder.parent.rglob("*.pth*"))  # no half file is left to be taken for a whole one


@pytest.mark.parametrize("name", [None, "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_without_network_a_detector_to_use_has_another_way_out_than_train_has(weights_folder: Path, name) -> None:
    """--no-pretrained is a flag of train.py only."""
    with pytest.raises(ModelError) as error:
        open_detector(None, name)
    message = str(error.value)
    for part in ("https://download.pytorch.org/models/fasterrcnn_", str(weights_folder), "or give --weights of a"):
        assert part in message
    assert "--no-pretrained" not in message


def test_the_default_coco_model_is_the_callers(weights_folder: Path) -> None:
    """eval.py's has always been fasterrcnn_resnet50_fpn, inference.py's fasterrcnn_resnet50_fpn_v2."""
    with pytest.raises(ModelError, match="fasterrcnn_resnet50_fpn_v2_coco"):
        open_detector(None, None)
    with pytest.raises(ModelError, match="fasterrcnn_resnet50_fpn_coco"):
        open_detector(None, None, default="fasterrcnn_resnet50_fpn")
    with pytest.raises(ModelError, match="fasterrcnn_mobilenet_v3_large_fpn"):
        open_detector(None, "fasterrcnn_mobilenetv3_large_fpn", default="fasterrcnn_resnet50_fpn")


@pytest.mark.parametrize("name", ["fasterrcnn_nano", "fasterrcnn_mini_darknet_nano_head"])
def test_models_without_published_weights_need_no_network(name: str) -> None:
    create_model[name](5, pretrained=True)


@pytest.mark.parametrize(
    "name", full_among(create_model, [name for number, name in enumerate(create_model) if number % 4])
)
def test_not_pretrained_needs_no_network(name: str) -> None:
    """Fault of the predecessor: pretrained=False was ignored."""
    build = create_model[name]
    with torch.device("meta"):
        build(5, pretrained=False)


def test_a_file_put_by_hand_is_used(weights_folder: Path) -> None:
    from torchvision.models import resnet18

    net = resnet18()
    torch.save(net.state_dict(), weights_folder / "resnet18-f37072fd.pth")
    model = create_model["fasterrcnn_resnet18"](5, pretrained=True)
    assert torch.equal(model.backbone[0].weight, net.conv1.weight)


def test_coco_weights_keep_their_predictor_for_cocos_classes_only(weights_folder: Path) -> None:
    name = "fasterrcnn_mobilenetv3_large_320_fpn"
    published = create_model[name](91, pretrained=False)
    torch.save(published.state_dict(), weights_folder / "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth")
    fine_tuned = create_model[name](5, pretrained=True)
    assert fine_tuned.roi_heads.box_predictor.cls_score.out_features == 5
    assert torch.equal(fine_tuned.roi_heads.box_head.fc6.weight, published.roi_heads.box_head.fc6.weight)
    coco = create_coco_model(name)
    assert torch.equal(
        coco.roi_heads.box_predictor.cls_score.weight, published.roi_heads.box_predictor.cls_score.weight
    )
    opened = open_detector(None, name)
    assert opened.class_names[1] == "person"
    assert opened.size_rule == {"size": 320, "max_size": 640, "square": False}


def test_a_damaged_file_is_named(weights_folder: Path) -> None:
    (weights_folder / "resnet18-f37072fd.pth").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"resnet18-f37072fd\.pth: not a weights file, or damaged"):
        create_model["fasterrcnn_resnet18"](5, pretrained=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], r"resnet18-f37072fd\.pth: the content is a list, expected a dict of names and tensors"),
        (
            {"model_state_dict": {}},
            r"resnet18-f37072fd\.pth: the content has a dict for model_state_dict, expected a te",
        ),
        ({"conv.weight": torch.ones(1)}, r"the weights do not fit this model: they lack conv1\.weight"),
    ],
)
def test_another_file_under_the_name_of_published_weights(weights_folder: Path, content, message: str) -> None:
    torch.save(content, weights_folder / "resnet18-f37072fd.pth")
    with pytest.raises(ModelError, match=message):
        create_model["fasterrcnn_resnet18"](5, pretrained=True)


def test_a_cache_that_cannot_be_written_is_as_good_as_no_network(
    weights_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (weights_folder.parent / "file").touch()
    monkeypatch.setattr(models.building.pretrained, "get_dir", lambda: str(weights_folder.parent / "file" / "hub"))
    with pytest.raises(ModelError, match="are not here and cannot be fetched"):
        create_model["fasterrcnn_resnet18"](5, pretrained=True)
