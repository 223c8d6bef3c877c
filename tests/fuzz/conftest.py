from collections.abc import Iterator

import pytest

from tests.support.fuzz_guard import in_memory


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No reader needs much, whatever the file says."""
    with in_memory():
        yield
