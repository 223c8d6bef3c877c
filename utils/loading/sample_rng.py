"""Random numbers by the epoch and the image that they are for."""

import numpy as np

_WORD = (1 << 64) - 1


class SampleRng:
    """Independent random numbers for every pair of numbers, which do not depend on what was drawn before.

    There is one generator, set anew each time: to make one costs more than a sample draws. Philox is made for that, for
    its numbers are a function of a seed and a counter (https://doi.org/10.1145/2063384.2063405). For one thread.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(0))
        self._key = (int(seed) & _WORD, int(seed) >> 64 & _WORD)

    def at(self, first: int, second: int) -> np.random.Generator:
        """The numbers of this pair, valid until the next is asked for; neither may be negative."""
        self._generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": (0, 0, second, first), "key": self._key},  # the lowest word counts what is drawn
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,  # it is empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator
