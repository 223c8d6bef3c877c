"""Checkpoints that a thread writes."""

import threading
import time
from pathlib import Path

import pytest
import torch

from torch_utils.runs import background_writer as background
from torch_utils.runs.background_writer import BackgroundWriter


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The thread writes nothing until it is set."""
    event, save = threading.Event(), background.save_checkpoint

    def wait_and_save(path: Path, checkpoint: dict) -> None:
        assert event.wait(30)
        save(path, checkpoint)

    monkeypatch.setattr(background, "save_checkpoint", wait_and_save)
    return event


def test_what_is_written_is_of_the_moment_of_the_call(tmp_path: Path, gate: threading.Event) -> None:
    writer = BackgroundWriter()
    weights, counter = torch.arange(4.0), torch.tensor(7)
    writer.write([(tmp_path / "a.pth", {"model": {"w": weights}, "list": [counter, "x"], "epoch": 3})])
    weights.add_(1)
    counter.add_(1)
    assert writer.busy
    gate.set()
    writer.close()
    found = read(tmp_path / "a.pth")
    assert found["model"]["w"].tolist() == [0, 1, 2, 3]
    assert found["list"][0] == 7
    assert (found["list"][1], found["epoch"]) == ("x", 3)


def test_memory_is_used_again_and_shared_tensors_are_copied_once(tmp_path: Path, gate: threading.Event) -> None:
    gate.set()
    writer = BackgroundWriter()
    model = {"w": torch.ones(3, 2).t(), "b": torch.zeros(1)}
    addresses = []
    for epoch in range(3):
        model["w"].fill_(epoch)
        writer.write([(tmp_path / "state.pth", {"model": model}), (tmp_path / "run.pth", {"model": model, "e": epoch})])
        addresses.append({place: tensor.data_ptr() for place, tensor in writer._memory.items()})
        writer.wait()
        for name in ("state.pth", "run.pth"):
            found = read(tmp_path / name)["model"]["w"]
            assert torch.equal(found, model["w"])
            assert found.stride() == model["w"].stride()
    assert addresses[0] == addresses[1] == addresses[2]
    assert addresses[0].keys() == {("state.pth", "model", "w"), ("state.pth", "model", "b")}
    grown = {"w": torch.ones(5), "b": model["b"]}
    writer.write([(tmp_path / "state.pth", {"model": grown})])
    writer.close()
    assert torch.equal(read(tmp_path / "state.pth")["model"]["w"], grown["w"])


def test_at_most_one_is_behind_and_the_order_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(background, "save_checkpoint", lambda path, content: written.append((path.name, content["e"])))
    writer = BackgroundWriter()
    for epoch in range(20):
        writer.write([(tmp_path / name, {"e": epoch}) for name in ("best", "last")])
        assert len(written) >= 2 * epoch
    writer.close()
    assert written == [(name, epoch) for epoch in range(20) for name in ("best", "last")]


def test_a_file_that_cannot_be_written_is_told_at_the_next_call(tmp_path: Path) -> None:
    (tmp_path / "best.pth").mkdir()
    writer = BackgroundWriter()
    files = [(tmp_path / name, {"e": 1}) for name in ("best.pth", "last.pth")]
    writer.write(files)
    with pytest.raises(OSError, match="best"):
        writer.write(files)
    assert not (tmp_path / "last.pth").exists(), "the last must not be ahead of the best"
    writer.close()


def test_a_disk_that_has_room_again_gets_the_next_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fault: the error of the write before ended the run with the new state untried."""
    path = tmp_path / "last.pth"
    path.mkdir()
    writer = BackgroundWriter()
    writer.write([(path, {"e": 1})])
    while writer.busy:
        time.sleep(0.01)
    path.rmdir()
    writer.write([(path, {"e": 2})])
    assert "by now it can be written again" in caplog.text
    assert read(path) == {"e": 2}
    writer.close()


def test_tensors_of_one_place_in_two_files_are_two(tmp_path: Path) -> None:
    writer = BackgroundWriter()
    for _ in range(2):
        writer.write([(tmp_path / f"{i}.pth", {"w": torch.full((2,), float(i))}) for i in range(2)])
        writer.wait()
        assert [read(tmp_path / f"{i}.pth")["w"].tolist() for i in range(2)] == [[0, 0], [1, 1]]
    writer.close()


def test_a_run_is_saved_in_validation_and_then_in_training(tmp_path: Path) -> None:
    """Fault: memory taken in inference mode cannot be filled outside it."""
    writer, weights = BackgroundWriter(), torch.zeros(3)
    with torch.inference_mode():
        writer.write([(tmp_path / "a.pth", {"w": weights})])
    weights.add_(1)
    writer.write([(tmp_path / "a.pth", {"w": weights})])
    writer.close()
    assert read(tmp_path / "a.pth")["w"].tolist() == [1, 1, 1]


def test_what_is_at_rest_is_copied_before_it_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, fill = threading.Event(), background._Copying.fill_rest

    def wait_and_fill(copying: background._Copying) -> None:
        assert go_on.wait(30)
        fill(copying)

    monkeypatch.setattr(background._Copying, "fill_rest", wait_and_fill)
    writer, weights, statistics = BackgroundWriter(), torch.arange(4.0), torch.zeros(2)
    writer.wait_until_copied()
    content = {"w": weights, "s": statistics}
    writer.write([(tmp_path / "a.pth", content)], {weights.data_ptr()})
    statistics.add_(1)
    threading.Timer(0.2, go_on.set).start()
    writer.wait_until_copied()
    assert go_on.is_set()
    weights.add_(1)
    writer.close()
    found = read(tmp_path / "a.pth")
    assert found["w"].tolist() == [0, 1, 2, 3]
    assert found["s"].tolist() == [0, 0]
