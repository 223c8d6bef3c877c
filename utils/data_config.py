"""A data set's YAML file as a checked, typed DataConfig. README.md explains every key to users."""

import difflib
import os
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from utils.errors import DataError

BACKGROUND = "__background__"
SPLITS = ("train", "valid", "test")
_FOLDER_KEYS = tuple(f"{split.upper()}_DIR_{kind}" for split in SPLITS for kind in ("IMAGES", "LABELS"))
_LIST_KEYS = tuple(f"{split.upper()}_LIST" for split in SPLITS)
_TYPES: dict[str, type] = dict.fromkeys((*_FOLDER_KEYS, *_LIST_KEYS), str) | {
    "CLASSES": list,
    "NC": int,
    "SAVE_VALID_PREDICTION_IMAGES": bool,
    "COCO_91_CLASSES": list,
    "GENERATE": str,  # our own key: a data set that the project draws by itself on first use
    "image_path": str,
    "video_path": str,
}
_WORDS = {str: "text", list: "a list", int: "a whole number", bool: "true or false"}
_MAX_YAML_BYTES = 1 << 20  # a data YAML has a few hundred lines
_MAX_DEPTH = 10  # of values in values; ours have two
_MAX_NUMBER = 100  # characters of a number, date or the like
_MAX_NAME = 200  # characters of a class name
_QUOTED = 80  # characters of a value that a message quotes
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control, surrogate, line and paragraph separator


@dataclass(frozen=True)
class Split:
    """Where one split is. Images and labels may share a folder."""

    images: Path  # folder
    labels: Path  # folder, or COCO's json
    list: Path | None = None  # text file with the names of its images, one a line, without suffix; None: all of them


@dataclass(frozen=True)
class DataConfig:
    """What a data YAML says, checked. Paths are relative to the working directory."""

    path: Path
    classes: tuple[str, ...]  # classes[0] is the background
    splits: Mapping[str, Split]
    save_valid_prediction_images: bool
    generate: str | None
    image_path: str | None
    video_path: str | None
    raw: Mapping[str, Any]  # the whole YAML; checkpoints carry it

    def split(self, name: str) -> Split:
        """Train, valid or test; DataError where the YAML lacks it, or a folder or file of it does not exist."""
        if name not in self.splits:
            keys = f"{name.upper()}_DIR_IMAGES and {name.upper()}_DIR_LABELS"
            raise DataError(f"{self.path}: {keys} are missing: add them, as in data_configs/smoke.yaml")
        split = self.splits[name]
        for kind, folder in (("IMAGES", split.images), ("LABELS", split.labels)):
            is_json = kind == "LABELS" and os.path.isfile(folder)
            if not os.path.isdir(folder) and not is_json:  # which take any text, Path.is_dir not
                problem = "is not a folder" if os.path.exists(folder) else "does not exist"
                raise DataError(
                    f"{self.path}: {name.upper()}_DIR_{kind} is {str(folder)!r}, which {problem} "
                    f"(paths are relative to the working directory, {Path.cwd()})"
                )
        return split


def load_data_config(path: str | Path) -> DataConfig:
    """Read and check a data YAML.

    Raises:
        DataError: naming file, line where there is one, value and remedy.
    """
    path = Path(path)
    try:
        raw, lines = _parse(_read(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        words = " ".join((getattr(error, "problem", None) or str(error)).split())  # some have two lines
        raise DataError(f"{where}: not valid YAML: {words[: 3 * _QUOTED]}") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: expected keys such as CLASSES and TRAIN_DIR_IMAGES, got {type(raw).__name__}")
    return parse_data_config(raw, path, lines)


def parse_data_config(raw: Mapping[str, Any], path: Path, lines: Mapping[str, int] | None = None) -> DataConfig:
    """A DataConfig from the YAML's content; `path` and `lines` (key -> line number) serve the messages."""
    lines = lines or {}
    for key, value in raw.items():
        where = f"{path}:{lines[key]}" if key in lines else str(path)
        _check_value(where, key, value)
    where = f"{path}:{lines['CLASSES']}" if "CLASSES" in lines else str(path)
    return DataConfig(
        path=path,
        classes=_classes(where, raw),
        splits=_splits(path, raw),
        save_valid_prediction_images=raw.get("SAVE_VALID_PREDICTION_IMAGES", False),
        generate=raw.get("GENERATE"),
        image_path=raw.get("image_path"),
        video_path=raw.get("video_path"),
        raw=dict(raw),
    )


def _read(path: Path) -> str:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise DataError(f"{path}: no such file{hint}")
    if path.stat().st_size > _MAX_YAML_BYTES:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes is too large for a data YAML: is this the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, whose every complaint is a YAMLError with its line, and whose results are small."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As the base class, for `*name` of plain values and so many levels only: others can blow up the result."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) and isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
            raise ConstructorError(None, None, f"*{event.anchor} repeats a list: write it out", event.start_mark)
        if self.depth == _MAX_DEPTH:
            raise ConstructorError(None, None, f"more than {_MAX_DEPTH} levels of values in values", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As the base class, which raises half a dozen other errors on values such as 2024-13-45 and !!bool maybe."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        kind = node.tag.rpartition(":")[2]
        problem = f"{_brief(node.value)} is no {kind}: put it in quotes if it is text"
        if kind != "str" and len(node.value) > _MAX_NUMBER:
            raise ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ConstructorError(None, None, problem, node.start_mark) from None


def _parse(text: str) -> tuple[Any, dict[str, int]]:
    """The content, and the line number, from 1, of every top-level key."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        content = loader.construct_document(root) if root else None
    finally:
        loader.dispose()
    keys = [key for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    return content, {key.value: key.start_mark.line + 1 for key in keys if isinstance(key, yaml.ScalarNode)}


def _brief(value: object) -> str:
    """repr, but short whatever the value."""
    short = reprlib.Repr()
    short.maxlevel = 1
    short.maxstring = short.maxother = _QUOTED
    return short.repr(value)


def _check_value(where: str, key: str, value: Any) -> None:
    if key not in _TYPES:
        near = difflib.get_close_matches(str(key)[:_QUOTED], _TYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(_TYPES)}"
        raise DataError(f"{where}: unknown key {_brief(key)}; {hint}")
    expected = _TYPES[key]
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise DataError(f"{where}: {key} is {_brief(value)}, expected {_WORDS[expected]}")


def _classes(where: str, raw: Mapping[str, Any]) -> tuple[str, ...]:
    if "CLASSES" not in raw:
        raise DataError(f"{where}: CLASSES is missing: list {BACKGROUND!r} first, then your class names")
    names = raw["CLASSES"]
    for name in names:
        if not isinstance(name, str):
            raise DataError(
                f"{where}: CLASSES has {_brief(name)}, which YAML reads as {type(name).__name__}: put it in quotes"
            )
        if len(name) > _MAX_NAME or any(unicodedata.category(character) in _UNPRINTABLE for character in name):
            raise DataError(
                f"{where}: CLASSES has {_brief(name)}: a name is one line of at most {_MAX_NAME} characters"
            )
    if not names or names[0] != BACKGROUND:
        raise DataError(f"{where}: CLASSES starts with {names[0] if names else None!r}: put {BACKGROUND!r} before it")
    if len(names) < 2:
        raise DataError(f"{where}: CLASSES has only {BACKGROUND!r}: add the names of your classes")
    twice = sorted(name for name, n in Counter(names).items() if n > 1 and name != "N/A")  # COCO's 91 names repeat N/A
    if twice:
        raise DataError(f"{where}: CLASSES names {twice[0]!r} twice: drop one")
    nc = raw.get("NC", len(names))
    if nc != len(names):
        raise DataError(
            f"{where}: CLASSES has {len(names)} entries but NC is {nc}; NC counts {BACKGROUND}: "
            f"set NC: {len(names)}, or drop NC"
        )
    return tuple(names)


def _splits(path: Path, raw: Mapping[str, Any]) -> dict[str, Split]:
    splits = {}
    for split in SPLITS:
        images, labels = f"{split.upper()}_DIR_IMAGES", f"{split.upper()}_DIR_LABELS"
        if (images in raw) != (labels in raw):
            present, absent = (images, labels) if images in raw else (labels, images)
            raise DataError(f"{path}: {present} is there but {absent} is missing: add it (both may name one folder)")
        if images in raw:
            names = raw.get(f"{split.upper()}_LIST")
            splits[split] = Split(Path(raw[images]), Path(raw[labels]), Path(names) if names is not None else None)
    return splits
