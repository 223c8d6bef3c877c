"""Logging of the scripts: set up here and nowhere else; every module logs to logging.getLogger(__name__)."""

import logging
import sys
from pathlib import Path

from utils.text import encodable

PROGRESS = "progress"  # extra of a record that a progress bar shows already


class _Console(logging.StreamHandler):
    """Falls silent when nobody reads any more (`train.py ... | head`); the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called in the handling of an exception of `emit`."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger().removeHandler(self)
        else:
            super().handleError(record)


class _Lines(logging.Formatter):
    """The message, in a form that every terminal and file takes."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return encodable(super().format(record))


def setup_logging(*, log_file: Path | None = None, quiet: bool = False) -> None:
    """Plain lines to standard output, and to `log_file`, which is appended to.

    `quiet` leaves only errors, for all but one process of a distributed run: what they warn of, the one does too. Where
    standard output is a terminal, the progress bar stands in for progress lines.
    """
    console: logging.Handler = _Console(sys.stdout)
    if sys.stdout.isatty():
        console.addFilter(lambda record: not getattr(record, PROGRESS, False))
    handlers: list[logging.Handler] = [console]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    level = logging.ERROR if quiet else logging.INFO
    for handler in handlers:
        handler.setFormatter(_Lines("%(message)s"))
    logging.basicConfig(level=level, handlers=handlers, force=True)
