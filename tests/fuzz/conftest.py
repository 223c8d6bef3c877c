from collections.abc import Iterator

import pytest

from tests.support.fuzzing.guard import in_memory


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Limit the memory of every reader, whatever the file says."""
    with in_memory():
        yield
