"""Random numbers determined by seed, epoch and image."""

import numpy as np

_WORD = (1 << 64) - 1


class SampleRng:
    """Independent random numbers for every pair (epoch, image), whatever was drawn before.

    One generator is reset each time, as making one costs more than drawing a sample's numbers. Philox suits this: its
    numbers are a function of a seed and a counter (https://doi.org/10.1145/2063384.2063405). Not thread-safe.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(0))
        self._key = (int(seed) & _WORD, int(seed) >> 64 & _WORD)

    def at(self, first: int, second: int) -> np.random.Generator:
        """Generator of this pair of non-negative numbers, valid until the next call."""
        self._generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": (0, 0, second, first), "key": self._key},  # the lowest word counts the numbers drawn
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # it is empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator
