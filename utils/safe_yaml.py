"""Read users' YAML files safely: every fault is a DataError with its line, and the size of the result is limited."""

import reprlib
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.constructor import ConstructorError

from utils.errors import DataError
from utils.text import did_you_mean_file

QUOTED = 80  # characters of a value that a message quotes
_MAX_BYTES = 1 << 20  # a data YAML has a few hundred lines
_MAX_DEPTH = 10  # nesting levels; a data YAML has two
_COLLECTIONS = ("map", "seq", "set", "omap", "pairs")
_MAX_NUMBER = 100  # characters of a number, date or the like


class Document(NamedTuple):
    """Content of a YAML file, and its nodes, which have line numbers; None for an empty file."""

    content: Any
    root: yaml.Node | None


def read_yaml(path: Path, kind: str) -> str:
    """Read the text of a small UTF-8 file; messages call it `kind`, for example "data YAML".

    Raises:
        DataError: it cannot be read; the message has the file, or a similar name if it does not exist.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file{did_you_mean_file(path, '*.yaml')}")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes is too large for {kind}: is this the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def parse_yaml(text: str, path: Path) -> Document:
    """Parse YAML text; DataError, with the line, if it is invalid or not safe to read."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return Document(loader.construct_document(root) if root else None, root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        message = " ".join((getattr(error, "problem", None) or str(error)).split())  # some have two lines
        raise DataError(f"{where}: not valid YAML: {message[: 3 * QUOTED]}") from None
    except ValueError as error:  # a %YAML line with a version of thousands of digits
        raise DataError(f"{path}: not valid YAML: {short_repr(str(error))}") from None


def short_repr(value: object) -> str:
    """Short repr of any value."""
    short = reprlib.Repr()
    short.maxlevel = 1
    short.maxstring = short.maxother = QUOTED
    return short.repr(value)


class _Loader(yaml.SafeLoader):
    """SafeLoader that raises a YAMLError with its line for every fault, and limits the size of the result."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Like the base class, but without aliases of collections and deep nesting, which can blow up the result."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) and isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
            raise ConstructorError(None, None, f"*{event.anchor} repeats a list: write it out", event.start_mark)
        if self.depth == _MAX_DEPTH:
            raise ConstructorError(None, None, f"more than {_MAX_DEPTH} levels of nesting", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Like the base class, with one error type; it raises various others for 2024-13-45 or !!bool maybe."""
        kind = node.tag.rpartition(":")[2]
        if not isinstance(node, yaml.ScalarNode):
            if kind not in _COLLECTIONS:  # from a mapping such as {=: 5} the base class would take the 5
                raise ConstructorError(None, None, f"a list or mapping is not a {short_repr(kind)}", node.start_mark)
            return super().construct_object(node, deep)
        problem = f"{short_repr(node.value)} is not a valid {kind}: put it in quotes if it is text"
        if kind != "str" and len(node.value) > _MAX_NUMBER:
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ConstructorError(None, None, problem, node.start_mark) from None
