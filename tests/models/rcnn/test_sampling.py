import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from models.rcnn.sampling import fixed_priorities, random_priorities, sample_balanced
from tests.conftest import examples

LABELS = st.lists(st.sampled_from([-1, 0, 0, 1, 3]), min_size=1, max_size=60)


@examples(150)
@given(st.lists(LABELS, min_size=1, max_size=3), st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_it_takes_as_many_of_each_kind_as_torchvisions(rows: list[list[int]], size: int, fraction: float) -> None:
    labels = torch.full((len(rows), max(map(len, rows))), -1.0)
    for row, values in zip(labels, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    rule = BalancedPositiveNegativeSampler(size, fraction)
    sample = sample_balanced(labels, rule, random_priorities(labels, [labels.shape[1]]))
    positives, negatives = rule(list(labels))
    assert sample.index.shape == sample.sampled.shape == (len(rows), min(size, labels.shape[1]))
    assert not (sample.positive & ~sample.sampled).any()
    for i, (positive, negative) in enumerate(zip(positives, negatives, strict=True)):
        taken = sample.index[i][sample.sampled[i]]
        assert len(set(taken.tolist())) == len(taken), "none twice"
        assert (labels[i][sample.index[i][sample.positive[i]]] >= 1).all()
        assert (labels[i][sample.index[i][sample.sampled[i] & ~sample.positive[i]]] == 0).all()
        assert sample.positive[i].sum() == positive.sum()
        assert sample.sampled[i].sum() == positive.sum() + negative.sum()


def test_every_place_is_as_likely_and_a_seed_repeats_it() -> None:
    labels = torch.tensor([[0.0] * 20 + [1.0] * 10 + [-1.0] * 5]).expand(2000, -1)
    rule = BalancedPositiveNegativeSampler(8, 0.5)
    samples = []
    for _ in range(2):
        torch.manual_seed(0)
        samples.append(sample_balanced(labels, rule, random_priorities(labels, [labels.shape[1]])).index)
    assert torch.equal(*samples)
    counts = samples[0].flatten().bincount(minlength=35) / 2000
    torch.testing.assert_close(counts, torch.tensor([4 / 20] * 20 + [4 / 10] * 10 + [0.0] * 5), rtol=0, atol=0.05)


def test_fixed_priorities_are_the_same_for_every_image_and_leave_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    keys = fixed_priorities(torch.zeros(3, 1010), [1000, 10])
    assert torch.equal(torch.get_rng_state(), before)
    assert (keys == keys[:1]).all()
    assert keys[0].topk(10).indices.max() > 500, "from everywhere, not the first ones"


def test_fixed_priorities_of_an_index_do_not_depend_on_the_widths() -> None:
    wide, narrow = (fixed_priorities(torch.zeros(1, sum(n)), n)[0] for n in ([900, 30], [17, 5]))
    assert torch.equal(narrow, torch.cat([wide[:17], wide[900:905]]))
