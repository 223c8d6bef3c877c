import numpy as np
import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn, fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from models.building.build_options import RANDOM, BuildOptions
from models.create_fasterrcnn_model import create_model
from models.rcnn import rpn
from models.rcnn.detector import FasterRCNN
from models.rcnn.errors import ModelError
from models.rcnn.layers import Float32Predictor
from models.rcnn.losses import ClassifierLoss
from models.rcnn.reference import float_images, targets_of
from tests.support.batches import batch_of
from utils.loading.batch import collate
from utils.loading.sample import Sample

NANO = "fasterrcnn_nano"


def mixed_batch():
    """Images of two sizes, one without boxes."""
    one, other = batch_of([3, 0], (96, 128)), batch_of([2], (64, 160))
    samples = []
    for batch in (one, other):
        start = 0
        for image, (h, w), count in zip(batch.images, batch.sizes.tolist(), batch.counts.tolist(), strict=True):
            rows = slice(start, start + count)
            samples.append(
                Sample(image[:h, :w].numpy(), (h, w), 0, batch.boxes[rows].numpy(), batch.labels[rows].numpy())
            )
            start += count
    return collate(samples)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_gpu_gets_weights_in_the_order_of_the_maps(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(FasterRCNN, "to", lambda model, device: model)
    model = create_model[NANO](3, pretrained=False).to_device(torch.device(kind))
    weights = [p for part in (model.backbone, model.rpn.head) for p in part.parameters() if p.ndim == 4]
    large = [weight for weight in weights if min(weight.shape) > 1]
    assert len(large) > 3
    assert {weight.is_contiguous(memory_format=torch.channels_last) for weight in large} == {kind == "cuda"}


def test_detections_are_in_original_pixels() -> None:
    torch.manual_seed(0)
    model = create_model[NANO](3, pretrained=False, box_score_thresh=0.0).eval()
    batch = mixed_batch()
    doubled = type(batch)(**{**vars(batch), "original_sizes": batch.sizes * 2})
    with torch.inference_mode():
        plain, twice = model(batch), model(doubled)
    for one, other in zip(plain, twice, strict=True):
        assert len(one["boxes"]) > 0
        assert torch.equal(one["boxes"] * 2, other["boxes"])


@pytest.mark.parametrize(
    ("name", "stock_builder"),
    [
        pytest.param("fasterrcnn_resnet50_fpn", fasterrcnn_resnet50_fpn, marks=pytest.mark.full),
        ("fasterrcnn_mobilenetv3_large_320_fpn", fasterrcnn_mobilenet_v3_large_320_fpn),
    ],
)
def test_a_list_of_float_images_gives_torchvisions_results(name: str, stock_builder) -> None:
    """What SAHI, notebooks and other people's code call."""
    torch.manual_seed(0)
    detector = {"box_score_thresh": 0.0, "min_size": 192}  # small, for time
    stock = stock_builder(weights=None, weights_backbone=None, num_classes=3, **detector).eval()
    ours = create_model[name](3, pretrained=False, options=RANDOM, **detector).eval()
    ours.load_state_dict({k: v for k, v in stock.state_dict().items() if not k.endswith("num_batches_tracked")})
    images = [torch.rand(3, 100, 160), torch.rand(3, 120, 90)]
    with torch.inference_mode():
        pairs = zip(ours(images), stock(images), strict=True)
    for own, other in pairs:
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(own[key], other[key], rtol=0, atol=0)


def test_padding_is_zero_after_normalization() -> None:
    model = create_model[NANO](3, pretrained=False)
    images = torch.full((2, 64, 96, 3), 200, dtype=torch.uint8)
    pixels = model._normalize(images, torch.tensor([[40, 96], [64, 50]]))
    assert pixels.shape == (2, 3, 64, 96)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert (pixels[0, :, 40:] == 0).all()
    assert (pixels[1, :, :, 50:] == 0).all()
    expected = (200 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0, :, 0, 0], expected)


def test_boxes_stay_float32_under_autocast() -> None:
    """Decoded in bfloat16 they would be whole pixels off."""
    torch.manual_seed(0)
    model = create_model[NANO](3, pretrained=False, box_score_thresh=0.0)
    batch = batch_of([2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.train()(batch)
        with torch.inference_mode():
            detections = model.eval()(batch)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert detections[0]["boxes"].dtype == torch.float32
    assert detections[0]["scores"].dtype == torch.float32
    fractions = detections[0]["boxes"] % 1
    assert np.unique(fractions.numpy().round(4)).size > 20


def test_state_dict_has_no_buffers_of_its_own() -> None:
    model = create_model[NANO](3, pretrained=False)
    assert not any("pixel" in key for key in model.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", [NANO, "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_anchors_under_autocast_are_those_of_float32(name: str, dtype: torch.dtype) -> None:
    """Fault: torchvision's are rounded to the features' format, up to 7 px at 1333."""
    model = create_model[name](3, pretrained=False).eval()
    images = ImageList(torch.zeros(1, 3, 64, 1344), [(50, 1333)])
    seen = []
    for enabled in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=enabled):
            features = model.backbone(images.tensors)
            maps = [features] if isinstance(features, torch.Tensor) else list(features.values())
            assert maps[0].dtype == (dtype if enabled else torch.float32)
            seen.append(model.rpn.anchor_generator(images, maps)[0])
    assert seen[1].dtype == torch.float32
    assert torch.equal(*seen)


def test_losses_and_proposals_under_autocast_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model[NANO](3, pretrained=False).train()
    seen = {}

    def watch(owner, method: str) -> None:
        real = getattr(owner, method)

        def wrapped(*args, **kwargs):
            results = real(*args, **kwargs)
            seen[f"{type(owner).__name__}.{method}"] = [*flat(args), *flat(kwargs.values()), *flat([results])]
            return results

        monkeypatch.setattr(owner, method, wrapped)

    def flat(values) -> list[torch.Tensor]:
        lists = [flat(v) for v in values if isinstance(v, (list, tuple))]
        return [v for v in values if isinstance(v, torch.Tensor)] + [t for part in lists for t in part]

    for owner, method in (
        (model.rpn.box_coder, "decode_single"),
        (model.rpn.box_coder, "encode_single"),
        (model.rpn, "_nms_per_image"),
        (rpn.F, "binary_cross_entropy_with_logits"),
        (model.roi_heads, "losses_per_proposal"),
        (model.roi_heads.box_predictor, "forward"),
    ):
        watch(owner, method)
    with torch.autocast("cpu", torch.bfloat16):
        model(batch_of([2]))
    features, *predictions = seen.pop("Float32Predictor.forward")
    assert features.dtype == torch.bfloat16
    assert len(seen) == 5, seen.keys()
    for tensors in (*seen.values(), predictions):
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}


def test_predictor_under_autocast_does_not_round_scores() -> None:
    """Scores from bfloat16 logits are equal where they should rank."""
    torch.manual_seed(0)
    predictor = Float32Predictor(16, 3)
    x = torch.randn(50, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        scores, deltas = predictor(x)
    exact = predictor(x.float())
    assert torch.equal(scores, exact[0])
    assert torch.equal(deltas, exact[1])


@pytest.mark.parametrize("form", ["uint8 batch", "list of images"])
@pytest.mark.parametrize("name", [NANO, "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_training_on_images_without_objects_and_without_proposals(name: str, form: str) -> None:
    """Fault: with a threshold on the RPN's scores there may be no proposal at all, and the losses were NaN."""
    torch.manual_seed(0)
    model = create_model[name](3, pretrained=False, options=RANDOM, min_size=96, max_size=160).train()
    model.rpn.score_thresh = 1.1
    batch = batch_of([0, 0])
    losses = model(batch) if form == "uint8 batch" else model(float_images(batch), targets_of(batch))
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_classifier"] > 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_proposal_in_place_of_none_is_the_whole_image_in_training_only() -> None:
    model = create_model[NANO](3, pretrained=False)
    model.rpn.score_thresh = 1.1
    images = ImageList(torch.zeros(2, 3, 64, 96), [(64, 80), (40, 96)])
    features = {"0": model.backbone(images.tensors)}
    no_boxes = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    proposals, _ = model.train().rpn(images, features, no_boxes)
    assert [p.tolist() for p in proposals] == [[[0, 0, 80, 64]], [[0, 0, 96, 40]]]
    proposals, _ = model.eval().rpn(images, features)
    assert [len(p) for p in proposals] == [0, 0]
    assert [len(found["boxes"]) for found in model(batch_of([0, 0]))] == [0, 0]  # with gradients: our own pooling


@pytest.mark.parametrize("name", ["fasterrcnn_resnet18", "fasterrcnn_resnet50_fpn"])
def test_batch_norm_on_one_image_of_one_cell_is_refused_in_words(name: str) -> None:
    """torch's own `Expected more than 1 value per channel` does not say what to do."""
    model = create_model[name](3, pretrained=False, options=RANDOM).train()
    message = r"one image of 32 x 32 px gives batch norm one value .*: use larger images \(--imgsz\), a batch size"
    with pytest.raises(ModelError, match=message):
        model(batch_of([0], (20, 32)))
    for batch in (batch_of([0, 0], (32, 32)), batch_of([0], (32, 33))):
        assert all(loss.isfinite() for loss in model(batch).values())
    model.eval()(batch_of([0], (32, 32)))


def test_batch_norms_within_attention_need_more_than_one_image() -> None:
    pytest.importorskip("timm")
    model = create_model["timm/rexnetr_100.untrained"](3, pretrained=False, options=RANDOM).train()
    with pytest.raises(ModelError, match="one image of 64 x 64 px gives batch norm one value"):
        model(batch_of([1], (64, 64)))


def test_images_that_are_too_small_for_a_net_are_refused_in_words() -> None:
    model = create_model["torchvision/inception_v3"](3, pretrained=False)
    with pytest.raises(ModelError, match=r"images of 64 x 64 px are too small for this backbone: use larger ones"):
        model(batch_of([1, 1], (64, 64)))


@pytest.mark.parametrize("name", ["fasterrcnn_mini_darknet_nano_head", "fasterrcnn_resnet50_fpn"])
def test_one_image_of_one_cell_trains_a_model_without_batch_norm(name: str) -> None:
    model = create_model[name](3, pretrained=False, options=BuildOptions()).train()
    assert all(loss.isfinite() for loss in model(batch_of([0], (32, 32))).values())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [NANO, pytest.param("fasterrcnn_mobilenetv3_large_320_fpn", marks=pytest.mark.full)])
def test_detections_beside_losses_are_the_same_to_the_bit_and_draw_nothing(name: str, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    model = create_model[name](3, pretrained=False, options=RANDOM, box_score_thresh=0.0).eval()
    batch, before = mixed_batch(), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        plain = model(batch)
        (detections, losses), (_, again) = model.detect_and_measure(batch), model.detect_and_measure(batch)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(plain, detections, strict=True):
        assert len(one["boxes"]) > 0
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    for key, values in losses.items():
        assert (values.shape, values.dtype) == ((len(batch),), torch.float32)
        assert torch.equal(values, again[key])


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("name", [NANO, "fasterrcnn_mobilenetv3_large_320_fpn"])
def test_measured_losses_are_the_trainings_where_nothing_is_left_to_chance(name: str, focal: bool) -> None:
    torch.manual_seed(0)
    model = create_model[name](3, pretrained=False, options=RANDOM).eval()
    if focal:
        model.set_classifier_loss(ClassifierLoss(torch.tensor([1.0, 3.0, 0.5]), 2.0))
    for part in (model.rpn, model.roi_heads):
        part.fg_bg_sampler.batch_size_per_image = 100_000  # all
    model.rpn._post_nms_top_n = {"training": 200, "testing": 200}
    model.rpn._pre_nms_top_n = {"training": 300, "testing": 300}
    for count in (3, 0):
        batch = batch_of([count])
        with torch.inference_mode():
            _, losses = model.detect_and_measure(batch)
            for part in (model, model.rpn, model.roi_heads):  # not their batch norms
                part.training = True
            expected = model(batch)
        model.eval()
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(losses[key], value[None], rtol=1e-4, atol=1e-6)
        assert all(value > 0 for key, value in losses.items() if count or "reg" not in key)


def test_measured_losses_of_an_image_do_not_depend_on_its_batch() -> None:
    """Nor do the proposals that are sampled, few of many, on the number of others' proposals and objects."""
    torch.manual_seed(0)
    model = create_model[NANO](3, pretrained=False, options=BuildOptions(rois_per_image=16)).eval()
    with torch.inference_mode():
        _, together = model.detect_and_measure(batch_of([3, 0, 9]))
        _, apart = model.detect_and_measure(batch_of([3]))
    for key, values in together.items():
        assert len(set(values.tolist())) > 1
        torch.testing.assert_close(values[:1], apart[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [0, 2])
def test_losses_are_measured_without_proposals(count: int) -> None:
    model = create_model[NANO](3, pretrained=False).eval()
    model.rpn.score_thresh = 1.1
    with torch.inference_mode():
        detections, losses = model.detect_and_measure(batch_of([count, 0]))
    assert [len(found["boxes"]) for found in detections] == [0, 0]
    assert all(values.isfinite().all() for values in losses.values())
    assert (losses["loss_classifier"] > 0).all()
