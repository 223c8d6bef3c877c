"""Set up logging of the scripts; every module logs to logging.getLogger(__name__)."""

import logging
import sys
from pathlib import Path

from utils.text import encodable

PROGRESS = "progress"  # `extra` key of records that a progress bar also shows


class _Console(logging.StreamHandler):
    """Stops writing when its reader has closed the pipe (`train.py ... | head`); the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Remove the handler after a BrokenPipeError of `emit`."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger().removeHandler(self)
        else:
            super().handleError(record)


class _Lines(logging.Formatter):
    """Formats messages with characters that every terminal and file accepts."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return encodable(super().format(record))


def setup_logging(*, log_file: Path | None = None, quiet: bool = False) -> None:
    """Log plain lines to standard output, and append them to `log_file`.

    `quiet` logs only errors: for all processes of a distributed run but one, which logs the same warnings. On a
    terminal a progress bar replaces the progress lines.
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
