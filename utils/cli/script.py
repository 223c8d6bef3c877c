"""Command line and exit code of every script.

if __name__ == "__main__":
    OPTIONS = parse_command_line(TrainOptions, "Train a detector.")  # before the seconds that torch takes

import torch
...

if __name__ == "__main__":
    run_main(main, OPTIONS)
"""

import argparse
import contextlib
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from utils.cli.flags import OneLineParser, Options, OptionsType, parse_options
from utils.errors import USAGE, UserError, let_first_process_report
from utils.machine import out_of_memory_message

_REMEDIES = "lower --batch or --imgsz, or choose a smaller --model"
_SIGNALLED = 128  # plus the number of the signal that ended the process: the exit code of shells


class Interrupted(Exception):
    """A signal ended the work after it was saved; the message, if any, says where."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = _SIGNALLED + number


def parse_command_line(
    options_class: type[OptionsType],
    description: str,
    *,
    arguments: Sequence[str] | None = None,
    program: str | None = None,
) -> OptionsType:
    """Parse and check the command line; scripts call this before they import torch.

    A flag that does not parse, and options that contradict each other, become one line and exit code 2.

    Args:
        arguments: without it those of this process.
        program: name in the help; without it the script's.
    """
    options = parse_options(options_class, description, arguments, program=program)
    with _one_line_errors():
        options.check()
    return options


def parse_command(commands: Mapping[str, tuple[type[Options], str]], description: str) -> tuple[str, Options]:
    """Parse `script.py COMMAND --flags`: the name of the command and its options.

    Args:
        commands: name -> its options and the sentence that describes it in the help.
    """
    parser = OneLineParser(
        description=description, epilog="; ".join(f"{name}: {text}" for name, (_, text) in commands.items())
    )
    parser.add_argument("command", choices=commands, help="followed by --help: its flags")
    command = parser.parse_args(sys.argv[1:2]).command
    options_class, text = commands[command]
    program = f"{Path(sys.argv[0]).name} {command}"
    return command, parse_command_line(options_class, text, arguments=sys.argv[2:], program=program)


def run_main(
    main: Callable[[OptionsType], None], options: OptionsType, *, user_errors: tuple[type[Exception], ...] = ()
) -> NoReturn:
    """Call main and exit: UserError and `user_errors` become one line and exit code 2."""
    with _one_line_errors(*user_errors):
        main(options)
    sys.exit(0)


@contextlib.contextmanager
def _one_line_errors(*user_errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (UserError, *user_errors) as error:
        _exit_with(_last_line(error))
    except (MemoryError, RuntimeError) as error:
        message = out_of_memory_message(error)
        if message is None:
            raise
        _exit_with(f"{message}: {_REMEDIES}")
    except OSError as error:
        if error.filename is None:
            raise
        _exit_with(f"{error.filename}: {error.strerror}")
    except Interrupted as error:
        if str(error):
            with contextlib.suppress(OSError):
                print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_SIGNALLED + signal.SIGINT)


def run_other_script(script: str, *, weights: str, remedy: str) -> None:
    """Run the script beside this one with the same command line; this one is an alias of it.

    Args:
        script: its name without the suffix.
        weights: suffix that the value of --weights must have; --help and --version need none.
        remedy: how to get such a file.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-w", "-mw", "--weights", default="")
    given, _ = parser.parse_known_args()
    if not (given.help or given.version or given.weights.lower().endswith(weights)):
        _exit_with(f"--weights {given.weights or 'is missing'}: expected a file that ends in {weights}: {remedy}")
    runpy.run_module(script, run_name="__main__")


def _exit_with(message: str) -> NoReturn:
    let_first_process_report()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE)


def _last_line(error: Exception) -> str:
    """The message; PyTorch wraps the error of a loader's worker in a traceback that ends with it."""
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    return text
