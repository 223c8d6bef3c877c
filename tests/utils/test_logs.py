import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.logs import setup_logging


def test_lines_go_to_console_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(log_file=tmp_path / "train.log")
    logging.getLogger("x").info("hello %d", 3)
    assert capsys.readouterr().out == "hello 3\n"
    assert (tmp_path / "train.log").read_text() == "hello 3\n"
    setup_logging(log_file=tmp_path / "train.log")
    logging.getLogger("x").info("again")
    assert (tmp_path / "train.log").read_text() == "hello 3\nagain\n"


def test_file_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Logging itself printed a traceback instead of the line with the file name."""
    setup_logging(log_file=tmp_path / "train.log")
    logging.getLogger("x").warning("%s: cut off", os.fsdecode(b"\xff.jpg"))
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "train.log").read_text() == "\\udcff.jpg: cut off\n"
    assert printed.err == ""


def test_quiet_leaves_errors(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(quiet=True)
    logging.getLogger("x").info("hello")
    logging.getLogger("x").warning("careful")
    logging.getLogger("x").error("broken")
    assert capsys.readouterr().out == "broken\n"


def test_nobody_reading_any_more_is_no_reason_to_stop() -> None:
    """`train.py ... | head` printed a traceback for every line."""
    code = (
        "import logging, os\n"
        "from utils.logs import setup_logging\n"
        "setup_logging()\n"
        "for i in range(20000):\n"
        "    logging.getLogger().info('line %d', i)\n"
        "os.write(2, b'done')\n"
        "os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "done"
