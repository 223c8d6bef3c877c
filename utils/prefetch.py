"""Work that threads do ahead of the one who needs it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int, threads: int = 1
) -> Iterator[Result]:
    """work(item) of each item, in order, while `threads` threads are at most `ahead` items further.

    What `work` raises is raised where its result would come. Leaving the iterator early waits for what is under way.
    """
    waiting: deque[Future[Result]] = deque()
    items = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting.extend(pool.submit(work, item) for item in islice(items, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(items, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
