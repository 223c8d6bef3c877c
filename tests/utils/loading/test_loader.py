import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import HANG, ROOT
from tests.support.numbered_loader import CPU, Numbers, loader
from utils.errors import DataError, UserError
from utils.loading.batch import Batch
from utils.loading.loader import Loader, LoaderError, max_batches_in_flight
from utils.loading.sample import Sample
from utils.loading.shared_memory import SharedBlock


def assert_same(one: Batch, other: Batch) -> None:
    for name, value in vars(one).items():
        same = value == getattr(other, name) if name == "faults" else torch.equal(value, getattr(other, name))
        assert same, name


@pytest.mark.parametrize("largest", [(3, 64, 32), (3, 10, 10)], ids=["in slots", "too large for slots"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(workers: int, largest: tuple[int, int, int]) -> None:
    alone, others = loader(0, count=100), loader(workers, count=100, largest=largest)
    for _ in range(3):
        for one, other in zip(alone, others, strict=True):
            assert_same(one, other)
    others.close()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_steps_in_work_are_one_after_the_other_and_at_most_so_many(workers: int, monkeypatch) -> None:
    """RecentImages rely on this limit of how far workers are ahead of each other."""
    given, give = [], Loader._assign

    def noting(self: Loader, worker: object, step: int, *more: object) -> None:
        given.append(step)
        give(self, worker, step, *more)

    monkeypatch.setattr(Loader, "_assign", noting)
    made, ahead = loader(workers, count=240), 0
    for step, _ in enumerate(made):
        ahead = max(ahead, given[-1] + 1 - step)
        time.sleep(0.02 * (step % 10 == 0))  # the workers get as far ahead as they can
    made.close()
    assert given == list(range(80))
    assert 2 * workers <= ahead <= max_batches_in_flight(workers)


def test_a_batch_is_good_while_the_next_is_made() -> None:
    made, before = loader(2, count=60), None
    for number, batch in enumerate(made):
        if before is not None:
            assert before[0].images[1, :5, :5].unique().tolist() == [before[1]]
            assert before[2].images[1, :5, :5].unique().tolist() == [before[1]]
        before = batch, 3 * number + 1, batch.clone()
        time.sleep(0.002)
    made.close()


def test_the_last_batch_is_good_while_the_next_iteration_starts() -> None:
    made = loader(2)
    for _ in range(5):
        *_, last = made
        kept, following = last.clone(), iter(made)
        next(following)
        time.sleep(0.02)
        assert_same(last, kept)
        next(following)  # and left in the middle
    made.close()


def test_one_iteration_at_a_time() -> None:
    made = loader(2)
    first = iter(made)
    next(first)
    assert len(list(made)) == 4
    with pytest.raises(RuntimeError, match="another iteration over this loader has begun"):
        next(first)
    made.close()


class Slow(Numbers):
    """Samples that take 10 ms each."""

    def __getitem__(self, k: int) -> Sample:
        time.sleep(0.01)
        return super().__getitem__(k)


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_for_batches_alone(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps and copies to a GPU do not count: each takes 60 ms, twice as long as a batch of three."""

    class Copying:
        def synchronize(self) -> None:
            time.sleep(0.06)

    keys = [[0, 1, 2]] * 8
    made = Loader(Slow(), keys, largest=(3, 64, 32), workers=workers, device=CPU)
    monkeypatch.setattr(made, "_copied", Copying)
    next(iter(made))  # starts the worker
    made.data_wait_seconds, started = 0.0, time.perf_counter()
    for _ in made:
        time.sleep(0.06)
    seconds = time.perf_counter() - started
    made.close()
    if workers:
        assert 0.02 < made.data_wait_seconds < 0.3  # the first batch; the worker has made the others by then
        assert seconds > 8 * 0.06 + 6 * 0.06
    else:
        assert 8 * 0.03 <= made.data_wait_seconds < seconds - 8 * 0.06


def test_closing_one_of_two_waits_for_nobody() -> None:
    one, other = loader(2), loader(2)
    for made in (one, other):
        list(made)
    started = time.monotonic()
    one.close()
    other.close()
    assert time.monotonic() - started < 4  # workers that are waited for in vain take 5 s each


def test_no_room_for_the_ring_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match=r"GiB for batches that are loaded .*: lower --batch or --workers"):
        list(loader(2, largest=(1 << 30, 1 << 12, 1 << 12)))


def test_padding_of_an_earlier_batch_is_wiped() -> None:
    tall_first = [[40], [0], [41], [1], [42], [2], [43], [3], [44], [4], [45], [6]]
    made = Loader(Numbers(), tall_first, largest=(1, 64, 32), workers=1, device=CPU)
    for _ in range(2):
        for batch in made:
            height, width = batch.sizes[0].tolist()
            assert batch.images[0, height:].sum() == batch.images[0, :, width:].sum() == 0
    made.close()


def test_processes_live_as_long_as_the_loader_and_its_memory_stays() -> None:
    made = loader(2)
    list(made)
    first = {process.pid for process in multiprocessing.active_children()}
    for _ in range(3):
        next(iter(made))  # left in the middle
        assert [batch.image_ids.tolist() for batch in made] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert {process.pid for process in multiprocessing.active_children()} == first
    made.close()
    assert not first & {process.pid for process in multiprocessing.active_children()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_is_raised_as_it_is(workers: int) -> None:
    made = loader(workers, "user's")
    for _ in range(2):
        with pytest.raises(DataError, match=r"^a\.jpg: no such file$"):
            list(made)
    made.close()


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("ours", "loader [01], a process that loads images, ended with exit code 1; see its error above"),
        ("killed", r"was ended by signal SIGKILL \(most often because the memory was full: fewer --workers\)"),
        ("exit", "ended with exit code 3"),
    ],
)
def test_a_worker_that_ends_ends_the_run_with_the_cause(trouble: str, message: str, capfd) -> None:
    made = loader(2, trouble)
    with pytest.raises(LoaderError, match=message):
        list(made)
    made.close()
    assert ("ZeroDivisionError: our mistake" in capfd.readouterr().err) == (trouble == "ours")


def test_a_worker_killed_while_it_has_nothing_to_do() -> None:
    made = loader(1)
    list(made)
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(LoaderError, match="SIGKILL"):
        list(made)


@pytest.mark.parametrize("workers", [0, 1])
def test_faults_are_logged_once(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    made = loader(workers)
    for _ in range(2):
        list(made)
    assert [record.getMessage() for record in caplog.records] == ["b.jpg: cut off; it is left out"]
    made.close()


_ORPHANS = """
import multiprocessing, os, signal
from tests.support.numbered_loader import loader
made = loader(2)
next(iter(made))
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
def test_no_worker_outlives_a_killed_main_process() -> None:
    done = subprocess.run([sys.executable, "-c", _ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=HANG)
    assert done.returncode == -signal.SIGKILL
    pids, until = list(map(int, done.stdout.split())), time.monotonic() + HANG
    assert len(pids) == 2
    while any(map(_is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(_is_alive, pids))


@pytest.mark.full
def test_where_processes_are_spawned() -> None:
    """With spawned workers, as on Windows and macOS, the ring is found by its name."""
    code = (
        "import multiprocessing\n"
        "from tests.support.numbered_loader import loader\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    made = loader(2)\n"
        "    print(sum(int(batch.images.sum()) for batch in made), sum(int(b.images.sum()) for b in loader(0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    one, other = done.stdout.split()
    assert (done.returncode, one) == (0, other), done.stderr
    assert set(done.stderr.splitlines()) == {"b.jpg: cut off; it is left out"}


def test_pages_that_cannot_be_locked_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It used to end the training, though copies from other memory are only slower."""

    def refuse(block: SharedBlock, start: int, length: int) -> None:
        raise RuntimeError("operation not supported")

    monkeypatch.setattr(SharedBlock, "lock_pages", refuse)
    monkeypatch.setattr(Loader, "_copied", lambda self: None)
    monkeypatch.setattr(torch, "zeros", lambda *size, **wishes: None)  # on a GPU
    made = loader(2)
    made._on_gpu = True
    for one, other in zip(made, loader(0), strict=True):
        assert_same(one, other)
    made.close()
    assert [r.getMessage() for r in caplog.records if "page-locked" in r.getMessage()] == [
        "copies of batches to the GPU are slower: their memory cannot be page-locked (operation not supported)"
    ]
