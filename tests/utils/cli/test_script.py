import sys
import time
from dataclasses import dataclass

import pytest
import torch

from utils.cli.flags import Options, parse_options
from utils.cli.script import parse_command_line, run_main
from utils.errors import DataError, UserError


def leave(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, *also: type[Exception]) -> int:
    monkeypatch.setattr(sys, "argv", ["x.py"])

    def main(options: Options) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as left:
        run_main(main, parse_command_line(Options, "test"), user_errors=also)
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


@pytest.mark.parametrize(
    ("error", "what"),
    [(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "of the GPU is full (CUDA out"),
     (MemoryError(), "of this machine is full: ")],
)  # fmt: skip
def test_full_memory_is_a_users_mistake(monkeypatch, capsys, error: Exception, what: str) -> None:
    assert leave(monkeypatch, error) == 2
    message = capsys.readouterr().err
    assert f"error: the memory {what}" in message
    assert "lower --batch or --imgsz" in message
    assert message.count("\n") == 1


def test_other_runtime_errors_are_not(monkeypatch) -> None:
    with pytest.raises(RuntimeError):
        leave(monkeypatch, RuntimeError("shapes"))


@pytest.mark.parametrize(
    ("environment", "waits"),
    [
        ({}, 0),
        ({"RANK": "0"}, 0),
        ({"RANK": "1"}, 1),
        ({"SLURM_PROCID": "3"}, 1),
        ({"RANK": "0", "SLURM_PROCID": "3"}, 0),
    ],
)
def test_the_first_process_has_the_first_word(monkeypatch, capsys, environment: dict[str, str], waits: int) -> None:
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leave(monkeypatch, UserError("what, and the way out")) == 2
    assert capsys.readouterr().err == "error: what, and the way out\n"
    assert len(waited) == waits
    with pytest.raises(SystemExit):
        parse_options(Options, "", ["--no-such-flag"])
    assert len(waited) == 2 * waits


def test_a_workers_error_is_its_last_line(monkeypatch, capsys) -> None:
    text = 'Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x"\n'
    assert leave(monkeypatch, DataError(text + "utils.errors.DataError: a.jpg: cannot be read: remove it\n")) == 2
    assert capsys.readouterr().err == "error: a.jpg: cannot be read: remove it\n"


@dataclass(frozen=True, kw_only=True)
class Picky(Options):
    """picky"""

    def check(self) -> None:
        raise UserError("contradiction")


def test_options_are_checked_when_they_are_parsed(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        parse_command_line(Picky, "test", arguments=[])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: contradiction\n"
