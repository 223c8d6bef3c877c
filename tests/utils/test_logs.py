import logging
from pathlib import Path

import pytest

from utils.logs import setup_logging


@pytest.fixture(autouse=True)
def put_back_handlers():
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in logging.root.handlers:
        handler.close()
    logging.root.handlers[:], logging.root.level = handlers, level


def test_lines_go_to_console_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(log_file=tmp_path / "train.log")
    logging.getLogger("x").info("hello %d", 3)
    assert capsys.readouterr().out == "hello 3\n"
    assert (tmp_path / "train.log").read_text() == "hello 3\n"
    setup_logging(log_file=tmp_path / "train.log")
    logging.getLogger("x").info("again")
    assert (tmp_path / "train.log").read_text() == "hello 3\nagain\n"


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(quiet=True)
    logging.getLogger("x").info("hello")
    logging.getLogger("x").warning("careful")
    assert capsys.readouterr().out == "careful\n"
