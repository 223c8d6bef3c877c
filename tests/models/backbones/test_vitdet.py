import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.backbones.vit import ViT
from models.backbones.vitdet import load_mae
from models.building.build_options import BuildOptions
from models.create_fasterrcnn_model import create_from_checkpoint, create_model
from models.rcnn.errors import ModelError, WeightsNotHereError
from tests.support.batches import batch_of
from tests.support.networks import PREDECESSOR, randomized

PARAMETERS = {"fasterrcnn_vitdet": 106_046_264, "fasterrcnn_vitdet_tiny": 22_878_632}  # at 21 classes
TINY = "fasterrcnn_vitdet_tiny"
MAE_FILE = "mae_pretrain_vit_base.pth"


@pytest.mark.parametrize("name", PARAMETERS)
def test_keys_order_counts_and_maps_are_the_predecessors(name: str) -> None:
    with torch.device("meta"):
        model = create_model[name](21, pretrained=False).eval()
        maps = model.backbone(torch.empty(1, 3, 320, 320))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == PREDECESSOR[name]
    assert list(model.state_dict()) == list(PREDECESSOR[name])
    assert [key for key, _ in model.named_parameters()] == list(PREDECESSOR[name])
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(256, side, side) for side in (80, 40, 20, 10, 5)]


def test_it_trains_and_its_checkpoint_finds_the_same_boxes() -> None:
    torch.manual_seed(0)
    model = create_model[TINY](3, pretrained=False).train()
    sum(model(batch_of([2, 0])).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    checkpoint = {
        "model_name": TINY,
        "model_state_dict": model.state_dict(),
        "data": {"CLASSES": ["__background__", "a", "b"]},
    }
    again = create_from_checkpoint(checkpoint)
    with torch.inference_mode():
        found, expected = (m.eval()(batch_of([1])) for m in (again, model))
    assert len(expected[0]["boxes"]) > 0
    for key, value in expected[0].items():
        assert torch.equal(found[0][key], value)


def test_freezing_begins_at_the_image_and_leaves_branches_of_frozen_blocks_in() -> None:
    with torch.device("meta"):
        model = create_model[TINY](3, pretrained=False, options=BuildOptions(freeze=3)).train()
    net = model.backbone.net
    assert not net.pos_embed.requires_grad
    assert not net.patch_embed.proj.weight.requires_grad
    trained = [all(p.requires_grad for p in block.parameters()) for block in net.blocks]
    assert trained == [False] * 2 + [True] * 10
    assert [block.drop_path.training for block in net.blocks] == trained
    assert all(p.requires_grad for n, p in model.named_parameters() if not n.startswith("backbone.net."))


@pytest.mark.full
def test_activation_checkpointing_changes_neither_losses_nor_gradients() -> None:
    results = []
    for enable in (False, True):
        torch.manual_seed(0)
        options = BuildOptions(activation_checkpointing=enable, rois_per_image=32)
        model = create_model[TINY](3, pretrained=False, options=options).train()
        assert model.backbone.net.grad_checkpointing == enable
        losses = model(batch_of([2, 1]))
        gradients = torch.autograd.grad(sum(losses.values()), list(model.backbone.parameters()))
        results.append((*losses.values(), *gradients))
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))


def test_without_network_the_message_says_what_to_do(weights_folder: Path) -> None:
    with torch.device("meta"), pytest.raises(WeightsNotHereError) as error:
        create_model["fasterrcnn_vitdet"](5, pretrained=True)
    url = f"https://dl.fbaipublicfiles.com/mae/pretrain/{MAE_FILE}"
    for part in (MAE_FILE, url, str(weights_folder), "--no-pretrained"):
        assert part in str(error.value)


def test_the_published_file_is_loaded(weights_folder: Path) -> None:
    """Key names and shapes as a vision transformer with a class token and without a classifier has them."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        published = timm.create_model("vit_base_patch16_224", num_classes=0).state_dict()
    state = {key: torch.full(value.shape, float(i)) for i, (key, value) in enumerate(published.items())}
    torch.save({"model": state}, weights_folder / MAE_FILE)
    net = create_model["fasterrcnn_vitdet"](5, pretrained=True).backbone.net.state_dict()
    for key, value in net.items():
        assert torch.equal(value, state.get(key, torch.zeros(()).expand(value.shape))), key


def small_mae(path: Path, **changes: Tensor | None) -> dict[str, Tensor]:
    """Writes the file of a small masked autoencoder and returns its state dict; None takes a key out."""
    vision_transformer = importlib.import_module("timm.models.vision_transformer")
    net = randomized(vision_transformer.VisionTransformer(embed_dim=32, depth=2, num_heads=2, num_classes=0))
    state = {key: value for key, value in {**net.state_dict(), **changes}.items() if value is not None}
    torch.save({"model": state}, path)
    return state


def small_vit() -> ViT:
    return ViT(channels=32, depth=2, heads=2, global_blocks=(1,)).eval()


def test_at_the_size_of_pretraining_it_is_the_pretrained_transformer(tmp_path: Path) -> None:
    """timm's, which is the masked autoencoder's, without class token and last norm."""
    timm = pytest.importorskip("timm")
    state = small_mae(tmp_path / "mae.pth")
    ours = small_vit()
    load_mae(ours, tmp_path / "mae.pth")
    theirs = timm.models.vision_transformer.VisionTransformer(
        embed_dim=32, depth=2, num_heads=2, num_classes=0, class_token=False, global_pool="avg"
    ).eval()
    state = {key: value for key, value in state.items() if key in theirs.state_dict()}
    theirs.load_state_dict({**state, "pos_embed": state["pos_embed"][:, 1:]}, strict=False)
    theirs.norm = nn.Identity()
    images = torch.randn(2, 3, 224, 224)
    expected = theirs.forward_features(images).transpose(1, 2).unflatten(2, (14, 14))
    assert (ours(images) - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls_token": None}, "they lack cls_token: delete the file"),
        ({"blocks.0.attn.qkv.bias": None}, r"they lack blocks\.0\.attn\.qkv\.bias: delete the file"),
        ({"head.bias": torch.ones(2), "head.weight": torch.ones(2)}, r"they also have head\.bias, and 1 more keys"),
        ({"blocks.0.attn.rel_pos_h": torch.ones(27, 16)}, r"they also have blocks\.0\.attn\.rel_pos_h"),
        ({"pos_embed": torch.ones(1, 50, 32)}, "have another shape for pos_embed"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, changes: dict[str, Tensor | None], message: str) -> None:
    pytest.importorskip("timm")
    small_mae(tmp_path / "mae.pth", **changes)
    with pytest.raises(ModelError, match=message):
        load_mae(small_vit(), tmp_path / "mae.pth")


@pytest.mark.parametrize("content", [{"weight": torch.ones(1)}, [1], {"model": [1]}])
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mae.pth")
    with pytest.raises(ModelError, match=r'mae\.pth: not the weights of a masked autoencoder, which are under "model"'):
        load_mae(small_vit(), tmp_path / "mae.pth")
