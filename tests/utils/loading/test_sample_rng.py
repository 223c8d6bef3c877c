import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utils.loading.sample_rng import SampleRng

WORDS = st.integers(0, 2**40)


@given(st.integers(0, 2**70), WORDS, WORDS, WORDS)
def test_numbers_depend_on_seed_and_pair_alone(seed: int, first: int, second: int, drawn: int) -> None:
    one, other = SampleRng(seed), SampleRng(seed)
    other.at(drawn, first).integers(10, size=drawn % 7, dtype=np.uint32)
    assert one.at(first, second).random(5).tolist() == other.at(first, second).random(5).tolist()
    assert one.at(first, second).permutation(9).tolist() == other.at(first, second).permutation(9).tolist()


def test_other_seeds_and_pairs_have_other_numbers() -> None:
    seeds = (0, 1, 2, 1 << 64, 3 << 64, (1 << 128) - 1)
    seen = {SampleRng(s).at(e, i).random() for s in seeds for e in range(12) for i in range(40)}
    assert len(seen) == len(seeds) * 12 * 40


def test_numbers_of_one_pair_do_not_run_into_those_of_the_next() -> None:
    random = SampleRng(3)
    pairs = [(e, i) for e in range(4) for i in range(4)]
    blocks = [random.at(*pair).integers(1 << 62, size=5000) for pair in pairs]
    assert len(np.unique(np.concatenate(blocks))) == 5000 * len(pairs)


def test_numbers_of_neighbors_are_independent_and_uniform() -> None:
    random = SampleRng(0)
    numbers = np.array([random.at(1, i).random(2) for i in range(4000)])
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.02
    columns = np.column_stack([numbers[:-1], numbers[1:]])
    assert np.abs(np.corrcoef(columns.T) - np.eye(4)).max() < 0.06


def test_it_travels_to_other_processes() -> None:
    random = SampleRng(5)
    assert pickle.loads(pickle.dumps(random)).at(2, 3).random() == random.at(2, 3).random()
