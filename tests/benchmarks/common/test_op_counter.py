"""Count the operators of a detector on the meta device, where operators that depend on data fail."""

import pytest
import torch

from benchmarks.common.op_counter import OpCounter
from benchmarks.operators import CPU, META, MODELS, count_ours, count_torchvision
from tests.conftest import full_among


def test_it_counts_operators_syncs_and_copies() -> None:
    x = torch.arange(6.0, requires_grad=True)
    with OpCounter(CPU) as counter:
        y = (x.view(2, 3) * 2).sum()
        y.backward()
        y.item()
        x.detach()[x.detach() > 2]
        torch.nonzero(x.detach())
    assert counter.operators["mul"] == 2, "forward and backward"
    assert counter.operators["view"] == 0
    assert counter.syncs == {"_local_scalar_dense": 1, "index": 1, "nonzero": 1}
    with OpCounter(META) as counter:
        torch.zeros(3).to(META) + 1
        torch.zeros(3).nonzero()  # of the host alone
    assert (counter.copies, counter.syncs, counter.operators["add"]) == (1, {}, 1)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", full_among(MODELS, MODELS[1:]))
def test_a_step_never_waits_and_does_not_grow_with_the_batch(name: str, train: bool) -> None:
    """Detection waits once, for its result, which is not counted here."""
    one, many = (count_ours(name, images, train=train) for images in (1, 16))
    for counter in (one, many):
        assert counter.syncs == {}
        assert counter.copies == 1, "sizes and counts"
    assert many.operators.total() < 1.3 * one.operators.total()


@pytest.mark.full
def test_torchvisions_waits_grow_with_the_batch() -> None:
    """Ours needs far fewer operators and waits than torchvision."""
    one, many = (count_torchvision(MODELS[0], images, train=True).syncs.total() for images in (1, 4))
    assert many > 2 * one > 10
