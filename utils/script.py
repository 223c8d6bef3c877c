"""The frame of every script: options in, exit code out."""

import sys
from collections.abc import Callable
from typing import NoReturn

from utils.errors import USAGE, UserError
from utils.flags import OptionsType, parse_options

_FULL = "the memory of the GPU is full: lower --batch or --imgsz, or choose a smaller --model"
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def run_script(
    main: Callable[[OptionsType], None],
    options_class: type[OptionsType],
    description: str,
    *,
    user_errors: tuple[type[Exception], ...] = (),
) -> NoReturn:
    """Parse the command line, call main, and leave: UserError and `user_errors` become one line and exit code 2."""
    options = parse_options(options_class, description)
    try:
        main(options)
    except (UserError, *user_errors) as error:
        print(f"error: {_last_words(error)}", file=sys.stderr)
        sys.exit(USAGE)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; importing torch for it would make --help slow
            raise
        print(f"error: {_FULL} ({_last_words(error).splitlines()[0]})", file=sys.stderr)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    sys.exit(0)


def _last_words(error: Exception) -> str:
    """The message; of an error that a loader's worker raised, PyTorch makes a traceback that ends in it."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    return text
