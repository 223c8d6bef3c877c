"""The detector against torchvision's own modules around the same layers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from benchmarks.common.lively import lively, picture
from models.building.build_options import RANDOM, BuildOptions
from models.create_fasterrcnn_model import create_model
from models.rcnn import sampling
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.losses import ClassifierLoss
from models.rcnn.reference import as_torchvision, float_images, targets_of
from models.rcnn.sampling import fixed_priorities, sample_balanced
from utils.loading.batch import Batch, collate
from utils.loading.sample import Sample

SINGLE, PYRAMID, V2 = (
    "fasterrcnn_mini_darknet_nano_head",
    "fasterrcnn_mobilenetv3_large_320_fpn",
    "fasterrcnn_resnet50_fpn_v2",
)
MODELS = (SINGLE, PYRAMID, pytest.param(V2, marks=pytest.mark.slow))
PICTURE = picture()
LEAST = {"min_size": 96, "max_size": 256}  # px: as the images are, for lists of images


def crops_of_a_picture(objects: list[int], classes: int = 3, seed: int = 0) -> Batch:
    """Images of different sizes, each with so many objects, some of which overlap."""
    rng = np.random.default_rng(seed)
    samples = []
    for i, count in enumerate(objects):
        height, width = rng.integers(60, 200, 2).tolist()
        low = rng.uniform(0, 0.7, (count, 2)) * (width, height)
        boxes = np.concatenate([low, low + rng.uniform(0.05, 0.3, (count, 2)) * (width, height)], 1)
        top, left = (int(rng.integers(0, most)) for most in (PICTURE.shape[0] - height, PICTURE.shape[1] - width))
        image = PICTURE[top : top + height, left : left + width]
        labels = rng.integers(1, classes, count)
        size = (2 * height, 3 * width)
        samples.append(Sample(image, size, i, boxes.astype(np.float32), labels))
    return collate(samples)


def reference_detections(model: FasterRCNN, batch: Batch) -> list[dict[str, Tensor]]:
    """What torchvision's modules find in the very pixels that ours see."""
    twin = as_torchvision(model)
    sizes = [tuple(size) for size in batch.sizes.tolist()]
    images = ImageList(model._normalize(batch.images, batch.sizes), sizes)
    features = model._run_backbone(images.tensors)
    proposals, _ = twin.rpn(images, features)
    found, _ = twin.roi_heads(features, proposals, sizes)
    return twin.transform.postprocess(found, sizes, [tuple(size) for size in batch.original_sizes.tolist()])


@torch.inference_mode()
def compare_detections(model: FasterRCNN, objects: list[int], tolerance: float = 0.0) -> int:
    """How many there are; with a tolerance, those of scores that are equal within it may come in any order."""
    batch = crops_of_a_picture(objects)
    return compare(model(batch), reference_detections(model, batch), tolerance, model.roi_heads.detections_per_img)


def compare(ours: list[dict[str, Tensor]], stock: list[dict[str, Tensor]], tolerance: float, most: int) -> int:
    """See compare_detections; of an image with `most`, boxes that score as the last may be others that do so too."""
    for own, other in zip(ours, stock, strict=True):
        assert own.keys() == other.keys()
        assert own["scores"].shape == other["scores"].shape
        assert all(value.dtype == other[key].dtype for key, value in own.items())
        if tolerance == 0:
            assert all(torch.equal(value, other[key]) for key, value in own.items())
        torch.testing.assert_close(own["scores"], other["scores"], rtol=tolerance, atol=tolerance)
        if len(own["boxes"]):
            apart = (own["boxes"][:, None] - other["boxes"]).abs().amax(2)
            apart[own["labels"][:, None] != other["labels"]] = torch.inf
            least, partners = apart.min(1)
            sure = own["scores"] > (own["scores"][-1] + tolerance if len(own["scores"]) == most else 0)
            assert float(least[sure].max()) <= 1e-3
            assert len(partners[sure].unique()) == sure.sum()
    return sum(len(own["boxes"]) for own in ours)


@pytest.mark.parametrize("images", [1, 3, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("classes", "threshold"), [(2, 0.05), (5, 0.3), (91, 0.02), (3, 1.0)])
@pytest.mark.parametrize("name", MODELS)
def test_detections_are_torchvisions_to_the_bit(name: str, images: int, classes: int, threshold: float) -> None:
    model = lively(name, classes, box_score_thresh=threshold)
    found = compare_detections(model, [0] * images)
    assert (found > 0) == (threshold < 1)


@pytest.mark.parametrize(("classes", "threshold"), [(2, 0.05), (5, 0.3), (91, 0.02), (3, 1.0)])
@pytest.mark.parametrize("name", MODELS)
def test_detections_with_fixed_shapes_are_torchvisions(name: str, classes: int, threshold: float) -> None:
    """As on a GPU, where not even the number of boxes is known to the host."""
    model = lively(name, classes, box_score_thresh=threshold)
    model.use_static_shapes(True)
    found = compare_detections(model, [0] * 3, tolerance=1e-5)
    assert (found > 0) == (threshold < 1)


@pytest.mark.parametrize("static_shapes", [False, True])
def test_options_of_proposals_and_detections_hold(static_shapes: bool) -> None:
    options = BuildOptions(proposals=7, detections=3, rpn_nms=0.3, nms=0.2, class_agnostic=True)
    model = lively(PYRAMID, 4, options=options, box_score_thresh=0.02)
    model.use_static_shapes(static_shapes)
    assert 0 < compare_detections(model, [0] * 2, tolerance=1e-5 if static_shapes else 0.0) <= 6


@pytest.mark.parametrize("static_shapes", [False, True])
def test_lists_of_images_give_torchvisions_detections(static_shapes: bool) -> None:
    model = lively(PYRAMID, 4, box_score_thresh=0.02, **LEAST)
    model.use_static_shapes(static_shapes)
    images = float_images(crops_of_a_picture([0, 0, 0]))
    with torch.inference_mode():
        ours, stock = model(images), as_torchvision(model)(images)
    assert compare(ours, stock, 1e-5 * static_shapes, model.roi_heads.detections_per_img) > 0


class Same:
    """torchvision's sampler's place taken by ours, with keys that do not change."""

    def __init__(self, rule, objects: list[int], seen: list[int]) -> None:
        self.rule, self.objects, self.seen = rule, objects, seen

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Ours has the objects behind a block of proposals."""
        own = [len(each) - count for each, count in zip(labels, self.objects, strict=True)]
        most = self.seen[-1] if any(self.objects) else max(own)
        widths = [most, max(1, *self.objects)] if any(self.objects) else [most]
        block = torch.full((len(labels), sum(widths)), -1.0)
        places = [torch.cat([torch.arange(n), torch.arange(k) + most]) for n, k in zip(own, self.objects, strict=True)]
        for row, place, each in zip(block, places, labels, strict=True):
            row[place] = each.float()
        sample = sample_balanced(block, self.rule, fixed_priorities(block, widths))
        masks = []
        for wanted in (sample.positive, sample.sampled & ~sample.positive):
            chosen = torch.zeros_like(block, dtype=torch.uint8)
            for row, index, mask in zip(chosen, sample.index, wanted, strict=True):
                row[index[mask]] = 1
            masks.append([row[place] for row, place in zip(chosen, places, strict=True)])
        return tuple(masks)


def with_same_samples(model: FasterRCNN, monkeypatch: pytest.MonkeyPatch, objects: list[int]):
    """torchvision's twin, and where ours puts its proposals; both take the same samples, once ours has trained."""
    monkeypatch.setattr(sampling, "random_priorities", fixed_priorities)
    seen, proposed, sample_proposals = [], [], model.roi_heads.sample_proposals

    def watched(proposals, *others):
        seen.append(proposals.valid.shape[1])
        proposed.append(proposals.lists())
        return sample_proposals(proposals, *others)

    monkeypatch.setattr(model.roi_heads, "sample_proposals", watched)
    twin = as_torchvision(model)
    twin.rpn.fg_bg_sampler = Same(twin.rpn.fg_bg_sampler, [0] * len(objects), seen)
    twin.roi_heads.fg_bg_sampler = Same(twin.roi_heads.fg_bg_sampler, objects, seen)
    return twin, proposed


def in_our_order(theirs: list[Tensor], ours: list[Tensor]) -> list[Tensor]:
    """Samples are taken by position, and proposals of the same score may come in any order."""
    for one, other in zip(theirs, ours, strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())
        assert (one != other).any(1).float().mean() < 0.05
    return ours


def make_smooth(head: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kink of ReLU, where rounding decides whether a gradient passes: which do depends on the processor."""
    monkeypatch.setattr(nn.functional, "relu", nn.functional.silu)
    for part in list(head.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.SiLU())


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize(
    ("name", "objects"),
    [
        *((SINGLE, objects) for objects in ([3], [0], [4, 0, 9])),
        (PYRAMID, [4, 0, 9]),
        *(pytest.param(PYRAMID, objects, marks=pytest.mark.full) for objects in ([3], [0])),
        *(pytest.param(V2, objects, marks=pytest.mark.slow) for objects in ([3], [0], [4, 0, 9])),
    ],
)
def test_losses_and_gradients_are_torchvisions(
    name: str, objects: list[int], static_shapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(name, 4, options=RANDOM).eval()  # batch norms that do not depend on what was seen before
    make_smooth(model.roi_heads.box_head, monkeypatch)
    model.use_static_shapes(static_shapes)
    twin, proposed = with_same_samples(model, monkeypatch, objects)
    for part in (model.rpn, model.roi_heads, twin.rpn, twin.roi_heads):
        part.training = True
    model.training = True
    batch = crops_of_a_picture(objects, 4)
    ours = model(batch)
    sizes = [tuple(size) for size in batch.sizes.tolist()]
    images = ImageList(model._normalize(batch.images, batch.sizes), sizes)
    features = model._run_backbone(images.tensors)
    proposals, rpn_losses = twin.rpn(images, features, targets_of(batch))
    proposals = in_our_order(proposals, *proposed)
    _, losses = twin.roi_heads(features, proposals, sizes, targets_of(batch))
    stock = losses | rpn_losses
    assert list(ours) == list(stock)
    for key, value in stock.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-6)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = (torch.autograd.grad(sum(each.values()), parameters) for each in (ours, stock))
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_stock_takes_our_batches() -> None:
    torch.manual_seed(0)
    model = create_model[SINGLE](3, pretrained=False, box_score_thresh=0.0)
    twin, batch = as_torchvision(model), crops_of_a_picture([2, 0])
    assert list(twin.train()(batch)) == list(model.train()(batch))
    assert twin.state_dict().keys() == model.state_dict().keys()
    with torch.inference_mode():
        ours, stock = model.eval()(batch), twin.eval()(batch)
    for own, other in zip(ours, stock, strict=True):
        assert len(own["scores"]) > 0
        torch.testing.assert_close(own["scores"], other["scores"], rtol=1e-4, atol=1e-5)
        assert (own["boxes"] - other["boxes"]).abs().max() < 0.1


def test_torchvisions_code_is_selected_by_a_build_option() -> None:
    torch.manual_seed(0)
    batch = crops_of_a_picture([2, 0])
    model = create_model[SINGLE](3, pretrained=False, options=BuildOptions(detector="torchvision"))
    plain = create_model[SINGLE](3, pretrained=False, options=BuildOptions())
    plain.load_state_dict(model.state_dict())
    for training in (True, False):
        model.train(training), plain.train(training)
        torch.manual_seed(1)
        ours = model(batch)
        torch.manual_seed(1)
        stock = as_torchvision(plain)(batch)
        for own, other in zip(*([each] if training else each for each in (ours, stock)), strict=True):
            assert own.keys() == other.keys()
            assert all(torch.equal(value, other[key]) for key, value in own.items())
    with torch.inference_mode():
        found, losses = model.detect_and_measure(batch)
        assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(found, model(batch), strict=True))
        for key, value in plain.detect_and_measure(batch)[1].items():
            assert torch.equal(losses[key], value)
    with pytest.raises(ModelError, match="no class weights and no focal loss: drop one"):
        model.set_classifier_loss(ClassifierLoss(None, 2.0))
    with pytest.raises(ModelError, match="detector is 'mine', expected one of fast, torchvision"):
        BuildOptions(detector="mine")
