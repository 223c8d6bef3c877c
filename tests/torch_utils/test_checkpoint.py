import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_utils.checkpoint import (
    load_checkpoint,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
)
from utils.errors import UserError

MODEL = {"model_state_dict": {"a": torch.ones(2)}, "data": {"CLASSES": ["__background__", "x"]}, "model_name": "m"}


def renamed_numpy(source: Path, target: Path) -> None:
    """The same file as numpy 1 would have written it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def deflated(path: Path, checkpoint: dict) -> None:
    torch.save(checkpoint, path)
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in content.items():
            new.writestr(name, data)


def in_itself() -> list:
    values = []
    values.append(values)
    return values


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", {**MODEL, "more": [1, 2.5, "x", None, {"k": True}]})
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert loaded["more"] == [1, 2.5, "x", None, {"k": True}]
    assert torch.equal(loaded["model_state_dict"]["a"], torch.ones(2))
    torch.load(tmp_path / "a.pth", weights_only=True)  # as anyone may, without our help


def test_predecessors_numpy_numbers_are_read(tmp_path: Path) -> None:
    """Fault of the predecessor: last_model.pth could not be read with weights_only."""
    torch.save({**MODEL, "val_map": [np.float64(0.25), np.float64(0.5)], "n": np.int64(3)}, tmp_path / "numpy2.pth")
    renamed_numpy(tmp_path / "numpy2.pth", tmp_path / "numpy1.pth")
    for name in ("numpy2.pth", "numpy1.pth"):
        loaded = load_checkpoint(tmp_path / name)
        assert loaded["val_map"] == [0.25, 0.5]
        assert [type(v) for v in loaded["val_map"]] == [float, float]
        assert loaded["n"] == 3


def test_ddp_keys_are_read(tmp_path: Path) -> None:
    """Fault of the predecessor: `module.` keys did not load."""
    torch.save({**MODEL, "model_state_dict": {"module.backbone.module.x": torch.ones(1)}}, tmp_path / "a.pth")
    assert list(load_checkpoint(tmp_path / "a.pth")["model_state_dict"]) == ["backbone.module.x"]


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**MODEL, "x": Attack()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: holds more than tensors and numbers"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "not a PyTorch checkpoint, or cut off"),
        (lambda p: p.write_bytes(b"hello"), "not a PyTorch checkpoint, or cut off"),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "not a PyTorch checkpoint, or cut off"),
        (lambda p: torch.save([1], p), "no checkpoint of a detector: it lacks model_state_dict, data, model_name of"),
        (lambda p: torch.save({"a": 1, "data": {}}, p), "it lacks model_state_dict, model_name of"),
        (lambda p: torch.save({**MODEL, "data": "x"}, p), "it lacks data of the right kind"),
        (lambda p: torch.save({**MODEL, "model_state_dict": [1]}, p), "it lacks model_state_dict of the right kind"),
        (lambda p: zipfile.ZipFile(p, "w").close(), "or is no checkpoint"),
        (lambda p: deflated(p, MODEL), r"a\.pth: compressed, which PyTorch never does"),
        (lambda p: torch.save({**MODEL, "x": in_itself()}, p), r"a\.pth: damaged: a list in it holds itself"),
    ],
)
def test_other_files_are_named(tmp_path: Path, write, message: str) -> None:
    write(tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "a.pth")


def test_a_file_cut_off_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", MODEL)
    content = (tmp_path / "a.pth").read_bytes()
    for part in (10, len(content) // 2, len(content) - 10):
        (tmp_path / "b.pth").write_bytes(content[:part])
        with pytest.raises(UserError, match=r"b\.pth"):
            load_checkpoint(tmp_path / "b.pth")


def test_a_missing_file_names_its_neighbors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"c\.pth: no such checkpoint; there is none in {tmp_path}; a training leaves"):
        load_checkpoint(tmp_path / "c.pth")
    with pytest.raises(UserError, match=rf"c\.pth: no such checkpoint; there is no folder {tmp_path / 'x'}$"):
        load_checkpoint(tmp_path / "x" / "c.pth")
    save_checkpoint(tmp_path / "last_model.pth", MODEL)
    with pytest.raises(UserError, match=r"c\.pth: no such checkpoint; .* has last_model\.pth"):
        load_checkpoint(tmp_path / "c.pth")


def test_an_onnx_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.onnx: an ONNX file, where a checkpoint is needed"):
        load_checkpoint(tmp_path / "a.onnx")


def test_a_model_alone_cannot_be_resumed(tmp_path: Path) -> None:
    torch.save(MODEL, tmp_path / "best_model.pth")
    torch.save({**MODEL, "optimizer_state_dict": {}, "epoch": 3}, tmp_path / "last_model.pth")
    with pytest.raises(UserError, match=r"best_model\.pth: holds a model, not a run"):
        load_checkpoint(tmp_path / "best_model.pth", whole_run=True)
    load_checkpoint(tmp_path / "last_model.pth", whole_run=True)


def test_a_number_is_taken_for_the_workers_of_old_commands(tmp_path: Path) -> None:
    """-w was workers in the predecessor's eval.py."""
    with pytest.raises(
        UserError, match="4: no such checkpoint: -w is short for --weights; the number of workers is -j"
    ):
        load_checkpoint(Path("4"))


def draw() -> tuple:
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_random_state_comes_back_from_a_file(tmp_path: Path) -> None:
    seed_everything(3, rank=0)
    draw()
    np.random.normal()  # leaves a second gaussian in store
    save_checkpoint(tmp_path / "a.pth", {**MODEL, "rng": rng_state()})
    expected = draw(), np.random.normal()
    draw()
    set_rng_state(load_checkpoint(tmp_path / "a.pth")["rng"])
    assert (draw(), np.random.normal()) == expected


def test_seeds_are_reproducible_and_differ_by_rank() -> None:
    seed_everything(3, rank=0)
    first = draw()
    seed_everything(3, rank=0)
    assert draw() == first
    seed_everything(3, rank=1)
    assert draw() != first
