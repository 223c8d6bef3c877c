"""The frame of every script: options in, exit code out."""

import argparse
import contextlib
import inspect
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from utils.cli.flags import OneLineParser, Options, OptionsType, parse_options
from utils.errors import USAGE, UserError, let_first_process_report
from utils.machine import out_of_memory_message

_REMEDIES = "lower --batch or --imgsz, or choose a smaller --model"
_SIGNALLED = 128  # and the signal's number: how shells say that it ended a process


class Interrupted(Exception):
    """A signal ended the work, which was put away first; the message, if any, says where."""

    def __init__(self, words: str, number: int) -> None:
        super().__init__(words)
        self.exit_code = _SIGNALLED + number


def run_script(
    main: Callable[[OptionsType], None],
    options_class: type[OptionsType],
    description: str,
    *,
    user_errors: tuple[type[Exception], ...] = (),
    command: str | None = None,
) -> NoReturn:
    """Parse the command line, call main, and leave: UserError and `user_errors` become one line and exit code 2.

    Args:
        command: the first word of the command line, where it chose this main.
    """
    program, words = (f"{Path(sys.argv[0]).name} {command}", sys.argv[2:]) if command else (None, sys.argv[1:])
    options = parse_options(options_class, description, words, program=program)
    try:
        main(options)
    except (UserError, *user_errors) as error:
        _tell(_last_words(error))
        sys.exit(USAGE)
    except (MemoryError, RuntimeError) as error:
        words = out_of_memory_message(error)
        if words is None:
            raise
        _tell(f"{words}: {_REMEDIES}")
        sys.exit(USAGE)
    except OSError as error:
        if error.filename is None:
            raise
        _tell(f"{error.filename}: {error.strerror}")
        sys.exit(USAGE)
    except Interrupted as error:
        if str(error):
            with contextlib.suppress(OSError):
                print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_SIGNALLED + signal.SIGINT)
    sys.exit(0)


def run_commands(commands: Mapping[str, tuple[Callable[[Any], None], type[Options]]], description: str) -> NoReturn:
    """A script with several mains: `script.py COMMAND --flags`. The docstring of each says what it does."""
    parser = OneLineParser(
        description=description,
        epilog="; ".join(f"{name}: {inspect.getdoc(main)}" for name, (main, _) in commands.items()),
    )
    parser.add_argument("command", choices=commands, help="followed by --help: its flags")
    command = parser.parse_args(sys.argv[1:2]).command
    main, options_class = commands[command]
    run_script(main, options_class, inspect.getdoc(main) or "", command=command)


def run_other_script(script: str, *, weights: str, remedy: str) -> None:
    """Run the script beside this one with the same command line: a door to it that has another name, which it says.

    Args:
        script: its name without the suffix.
        weights: what the value of --weights must end in; asking for --help needs none.
        remedy: where to get such a file.
    """
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("-h", "--help", action="store_true")
    words.add_argument("-w", "-mw", "--weights", default="")
    given, _ = words.parse_known_args()
    if not given.help and not given.weights.lower().endswith(weights):
        _tell(f"--weights {given.weights or 'is missing'}: expected a file that ends in {weights}: {remedy}")
        sys.exit(USAGE)
    runpy.run_module(script, run_name="__main__")


def _tell(words: str) -> None:
    let_first_process_report()
    print(f"error: {words}", file=sys.stderr)


def _last_words(error: Exception) -> str:
    """The message; of an error that a loader's worker raised, PyTorch makes a traceback that ends in it."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    return text
