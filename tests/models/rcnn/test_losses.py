"""Losses of the box classifier."""

import pytest
import torch
import torch.nn.functional as F

from models.building.build_options import RANDOM
from models.create_fasterrcnn_model import create_model
from models.rcnn.losses import ClassifierLoss
from tests.support.toy_training import toy_batch

LOGITS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 3


def test_without_weights_and_gamma_it_is_cross_entropy() -> None:
    torch.testing.assert_close(ClassifierLoss(None, 0.0)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_weights_and_gamma_are_those_of_the_paper() -> None:
    weights = torch.tensor([1.0, 0.5, 3.0])
    p = LOGITS.softmax(1)[torch.arange(50), LABELS]
    expected = (weights[LABELS] * (1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(ClassifierLoss(weights, 2.0)(LOGITS, LABELS), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_are_finite_where_the_classifier_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0, 0], [-200.0, 0, 0]], requires_grad=True)
    loss = ClassifierLoss(None, gamma)(logits, torch.zeros(2, dtype=torch.int64))
    loss.backward()
    assert loss > 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 2.0])])
def test_a_detector_trains_with_it_and_keeps_its_keys(weights: torch.Tensor | None) -> None:
    plain, other = (create_model["fasterrcnn_nano"](3, pretrained=False, options=RANDOM) for _ in range(2))
    other.load_state_dict(plain.state_dict())
    other.set_classifier_loss(ClassifierLoss(weights, 0.0))
    assert other.state_dict().keys() == plain.state_dict().keys()
    losses = []
    for model in (plain, other):
        torch.manual_seed(0)
        losses.append(model.train()(toy_batch(1, 2)))
    for name in ("loss_box_reg", "loss_objectness", "loss_rpn_box_reg"):
        assert torch.equal(losses[0][name], losses[1][name])
    if weights is None:
        torch.testing.assert_close(losses[1]["loss_classifier"], losses[0]["loss_classifier"])
    else:
        assert losses[1]["loss_classifier"] > losses[0]["loss_classifier"]
    losses[1]["loss_classifier"].backward()
    for model in (plain, other):
        model.eval()
    with torch.inference_mode():
        found = [model(toy_batch(1))[0] for model in (plain, other)]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
