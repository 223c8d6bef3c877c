import sys

import pytest
import torch

from utils.errors import DataError, UserError
from utils.flags import Options
from utils.script import run_script


def leave(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *also: type[Exception]) -> int:
    monkeypatch.setattr(sys, "argv", ["x.py"])

    def main(options: Options) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as left:
        run_script(main, Options, "test", user_errors=also)
    return left.value.code


@pytest.mark.parametrize("error", [UserError("what, and the way out"), DataError("what, and the way out")])
def test_a_users_mistake_is_one_line_and_code_2(monkeypatch, capsys, error) -> None:
    assert leave(monkeypatch, error) == 2
    assert capsys.readouterr().err == "error: what, and the way out\n"


def test_errors_of_other_rooms_can_be_users_mistakes(monkeypatch, capsys) -> None:
    assert leave(monkeypatch, KeyError("x"), KeyError) == 2


def test_our_own_mistakes_keep_their_traceback(monkeypatch) -> None:
    with pytest.raises(ZeroDivisionError):
        leave(monkeypatch, ZeroDivisionError())


def test_success_and_interrupt(monkeypatch) -> None:
    assert leave(monkeypatch, None) == 0
    assert leave(monkeypatch, KeyboardInterrupt()) == 130


def test_a_full_gpu_is_a_users_mistake_and_other_runtime_errors_are_not(monkeypatch, capsys) -> None:
    assert leave(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")) == 2
    message = capsys.readouterr().err
    assert "lower --batch or --imgsz" in message
    assert message.count("\n") == 1
    with pytest.raises(RuntimeError):
        leave(monkeypatch, RuntimeError("shapes"))


def test_a_workers_error_is_its_last_line(monkeypatch, capsys) -> None:
    text = 'Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x"\n'
    assert leave(monkeypatch, DataError(text + "utils.errors.DataError: a.jpg: cannot be read: remove it\n")) == 2
    assert capsys.readouterr().err == "error: a.jpg: cannot be read: remove it\n"
