"""Command-line flags as dataclass fields: one declaration gives name, type, default, help and the typed option.

    @dataclass(frozen=True, kw_only=True)
    class Recipe(Options):
        "recipe"

        epochs: PositiveInt = flag("-e", "--epochs", default=5, help="passes over the training images")

    options = parse_options(Recipe, "what the script does")

Scripts share flags by inheritance; the docstring of the class that declares a flag is its heading in --help.
"""

import argparse
import dataclasses
import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn, TypeVar

from utils.errors import USAGE, UserError, let_first_process_report
from utils.text import did_you_mean
from utils.version import versions

AUTO = 0  # what `auto` is as a number, which the script finds
OptionsType = TypeVar("OptionsType", bound="Options")
_SWITCHES = (bool, bool | None)


def flag(
    *names: str,
    default: Any = None,
    help: str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    **metadata: Any,
):
    """A dataclass field that is also a command-line flag.

    Without `default` it must be typed, unless its annotation allows None. The annotation parses it: `X | None` as X, a
    tuple as one or more values, `Annotated[X, parse]` as `parse`. A name without a dash makes a positional argument.

    Args:
        metadata: what else the option means; `options_with` lists the options that have a key. Flags of train.py use
            builds: argument of BuildOptions that it sets;
            fixed_in_run: True if a resumed run cannot change it;
            of_command: True if a resumed run does not restore it, since it belongs to one command;
            overrides: options of the run that are not restored if this one is typed.
    """
    metadata |= {"names": names, "help": help, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=metadata)


def switch(*names: str, default: bool | None = False, help: str, **metadata: Any):
    """A bool field whose flag takes no value and flips the default; `--no-` before its name flips it back.

    With the default None, where the annotation is `bool | None`, one sees whether it was typed.

    Args:
        metadata: as in `flag`.
    """
    return field(default=default, metadata=metadata | {"names": names, "help": help})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every script's options. `given` has the names of the options that were typed."""

    given: frozenset[str] = frozenset()

    def check(self) -> None:
        """Refuse options that contradict each other or lack something, before anything heavy is imported.

        Raises:
            UserError: they do.
        """

    def over(self: OptionsType, saved: Mapping[str, Any]) -> OptionsType:
        """These options on top of `saved` ones: what was typed wins, the rest is taken from `saved`.

        Raises:
            UserError: a saved value is none that could have been typed.
        """
        hints = typing.get_type_hints(type(self), include_extras=True)
        values = {}
        for option in _flag_fields(type(self)):
            if option.name in saved and option.name not in self.given:
                values[option.name] = _checked(option, hints[option.name], saved[option.name])
        return dataclasses.replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by option name, for YAML files and checkpoints."""
        values = {f.name: getattr(self, f.name) for f in _flag_fields(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def options_with(options_class: type[Options], key: str) -> dict[str, Any]:
    """Option name -> metadata `key` of its flag, for the flags that have it."""
    return {f.name: f.metadata[key] for f in _flag_fields(options_class) if key in f.metadata}


def parse_options(
    options_class: type[OptionsType], description: str, argv: Sequence[str] | None = None, *, program: str | None = None
) -> OptionsType:
    """Parse `argv` (the process's own by default). Usage errors leave with exit code 2, as argparse does."""
    parser = OneLineParser(program, description=description, argument_default=argparse.SUPPRESS)
    hints = typing.get_type_hints(options_class, include_extras=True)
    fields = {f.name: f for f in _flag_fields(options_class)}
    for declaring in reversed(options_class.__mro__):
        own = [fields[name] for name in inspect.get_annotations(declaring) if name in fields]
        target = parser.add_argument_group(declaring.__doc__) if own else parser
        for option in own:
            arguments = _argument(option, hints[option.name])
            if option.metadata["names"][-1].startswith("-"):
                target.add_argument(*option.metadata["names"], dest=option.name, **arguments)
            else:
                arguments.pop("required")
                target.add_argument(option.name, **arguments)
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.refuse(unknown)
    typed = {name: _frozen(value) for name, value in vars(found).items()}
    return options_class(**typed, given=frozenset(typed))


class OneLineParser(argparse.ArgumentParser):
    """Prints errors in one line, in the first process of a distributed run; knows --version."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_argument(
            "--version", action=_PrintVersion, help="print the versions of this project, Python and PyTorch"
        )

    def error(self, message: str) -> NoReturn:
        """See ArgumentParser."""
        let_first_process_report()
        self.exit(USAGE, f"error: {message} (see {self.prog} --help)\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Leave, naming what was typed and is no flag, with the nearest one that is."""
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not flags:
            self.error(f"{' '.join(unknown)!r} belongs to no flag")
        hints = (f"unknown flag {flag}{did_you_mean(flag, self._option_string_actions)}" for flag in flags)
        self.error(" ".join(hints))


class _PrintVersion(argparse.Action):
    """--version: ours, Python's, PyTorch's and the GPU's."""

    def __init__(self, option_strings: Sequence[str], **options: Any) -> None:
        super().__init__(
            option_strings, **options | {"dest": argparse.SUPPRESS, "nargs": 0, "default": argparse.SUPPRESS}
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """See argparse.Action."""
        parser.exit(message=f"{versions()}\n")


def _flag_fields(options_class: type[Options]) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(options_class) if "names" in f.metadata]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(option: dataclasses.Field, hint: Any, value: Any) -> Any:
    """A value that as_dict() gave, parsed as if it had been typed."""
    if (value is None and option.default is None) or (hint in _SWITCHES and isinstance(value, bool)):
        return value
    argument = _argument(option, hint)
    try:
        parsed = tuple(argument["type"](str(v)) for v in (value if "nargs" in argument else [value]))
        if argument["choices"] and not set(parsed) <= set(argument["choices"]):
            raise ValueError
    except (argparse.ArgumentTypeError, KeyError, TypeError, ValueError):
        name = option.metadata["names"][-1]
        raise UserError(f"{name} in the checkpoint is {reprlib.repr(value)}, which it cannot be: type {name}") from None
    return parsed if "nargs" in argument else parsed[0]


def _argument(option: dataclasses.Field, hint: Any) -> dict[str, Any]:
    """The keyword arguments of argparse's add_argument for a field annotated with `hint`."""
    text = option.metadata["help"]
    if hint in _SWITCHES:
        undoable = not option.metadata["names"][-1].startswith(("--no-", "--disable-"))  # by --no-... of its name
        plain = "store_false" if option.default else "store_true"
        return {"action": argparse.BooleanOptionalAction if undoable else plain, "help": text}
    if option.default is not None:
        text += f" (default: {option.default})"
    arguments = {"help": text, "choices": option.metadata["choices"], "metavar": option.metadata["metavar"]}
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    arguments["required"] = option.default is None and not optional
    if optional:
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
        arguments |= {"nargs": "+", "action": "extend"}  # given twice, it has the values of both
    if typing.get_origin(hint) is Annotated:
        hint = hint.__metadata__[0]
    return arguments | {"type": hint}


def _bounded(parse: Callable[[str], Any], accepts: Callable[[Any], bool], words: str) -> Callable[[str], Any]:
    def parse_bounded(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse_bounded


def _auto_or_positive(text: str) -> int:
    value = AUTO if text == "auto" else int(text)
    if value < 1 and text != "auto":
        raise ValueError(text)
    return value


PositiveInt = Annotated[int, _bounded(int, lambda v: v > 0, "a whole number above 0")]
NaturalInt = Annotated[int, _bounded(int, lambda v: v >= 0, "a whole number of at least 0")]
PositiveFloat = Annotated[float, _bounded(float, lambda v: 0 < v < float("inf"), "a number above 0")]
NaturalFloat = Annotated[float, _bounded(float, lambda v: 0 <= v < float("inf"), "a number of at least 0")]
PositiveIntOrAuto = Annotated[int, _bounded(_auto_or_positive, lambda _: True, "a whole number above 0, or auto")]
Fraction = Annotated[float, _bounded(float, lambda v: 0 <= v <= 1, "a number from 0 to 1")]
Share = Annotated[float, _bounded(float, lambda v: 0 < v <= 1, "a number above 0, at most 1")]
Overlap = Annotated[float, _bounded(float, lambda v: 0 <= v < 1, "a number of at least 0, below 1")]
