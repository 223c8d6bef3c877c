import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from models.create_fasterrcnn_model import create_model
from models.rcnn.steady_sampler import SteadySampler, steady

LABELS = [
    torch.tensor([-1.0, 0, 1] * 40),  # more than enough of both
    torch.tensor([2, 2, -1, 0, 0] + [0] * 60),  # few positives
    torch.tensor([1] * 30 + [0] * 2),  # few negatives
    torch.zeros(5),
    torch.empty(0),
]


def test_it_takes_as_many_of_each_kind_as_torchvisions() -> None:
    stock, ours = (kind(20, 0.25)(LABELS) for kind in (BalancedPositiveNegativeSampler, SteadySampler))
    for theirs, own, wanted in zip(stock, ours, (lambda x: x >= 1, lambda x: x == 0), strict=True):
        for labels, a, b in zip(LABELS, theirs, own, strict=True):
            assert (a.sum(), a.dtype, a.shape) == (b.sum(), b.dtype, b.shape)
            assert wanted(labels)[b.bool()].all()


def test_it_takes_the_same_of_an_image_wherever_it_comes_and_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    sampler = SteadySampler(20, 0.25)
    masks, reverse = zip(*sampler(LABELS), strict=True), zip(*sampler(LABELS[::-1]), strict=True)
    for image, again in zip(masks, list(reverse)[::-1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(image, again, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    taken = sampler([torch.zeros(1000)])[1][0].nonzero()
    assert taken.max() > 500, "from everywhere, not the first ones"


def test_a_steady_part_shares_its_parameters_and_leaves_the_other_as_it_was() -> None:
    rpn = create_model["fasterrcnn_nano"](3, pretrained=False, rpn_batch_size_per_image=64).rpn
    twin = steady(rpn)
    assert type(rpn.fg_bg_sampler) is BalancedPositiveNegativeSampler
    assert (twin.fg_bg_sampler.batch_size_per_image, twin.fg_bg_sampler.positive_fraction) == (64, 0.5)
    assert all(a is b for a, b in zip(twin.parameters(), rpn.parameters(), strict=True))
