import threading
import time

import pytest

from utils.prefetch import prefetched


def test_order_is_kept() -> None:
    def work(n: int) -> int:
        time.sleep(0.001 * (n % 3))
        return n * n

    assert list(prefetched(work, range(50), ahead=8, threads=4)) == [n * n for n in range(50)]


def test_no_more_than_asked_for_is_done_ahead() -> None:
    done: list[int] = []
    results = prefetched(done.append, range(100), ahead=3)
    next(results)
    time.sleep(0.05)
    assert done == [0, 1, 2, 3]
    results.close()
    assert len(done) <= 5


def test_endless_items_are_taken_one_by_one() -> None:
    def numbers():
        n = 0
        while True:
            yield n
            n += 1

    results = prefetched(str, numbers(), ahead=2)
    assert [next(results) for _ in range(5)] == ["0", "1", "2", "3", "4"]
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_errors_come_where_the_result_would() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    results = prefetched(work, range(5), ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
