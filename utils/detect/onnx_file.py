"""Metadata and validation of the ONNX files that export.py writes. Files are treated as untrusted input."""

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError, requires_package
from utils.files import file_size
from utils.loading.size_rule import Canvas, SizeRule

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

SUFFIX = ".onnx"
FORMAT = "faster-rcnn 1"  # version of the metadata, inputs and outputs
MAX_ONNX_BYTES = 2**31 - 1  # limit of a protobuf message
_MAX_CHARACTERS = 100_000  # of one entry
_MAX_CLASSES = 65_536
_MAX_SIDE = 32_768  # px
_IN_JSON = ("names", "size_rule", "batch", "half", "best_threshold", "class_thresholds")
_EXPECTED = "expected a file written by export.py of this pipeline"


@dataclass(frozen=True)
class OnnxMetadata:
    """The entries of metadata_props; docs/onnx.md lists them."""

    model: str
    names: tuple[str, ...]  # names[0] is the background
    size_rule: SizeRule | Canvas  # Canvas: fixed input size
    batch: int  # images per call
    half: bool  # weights in half precision
    threshold: float | None  # the checkpoint's best_threshold
    version: str  # of this pipeline
    class_thresholds: Mapping[str, float | None] | None = None  # the checkpoint's

    def to_props(self) -> dict[str, str]:
        """Serialize to strings by name; numbers and lists as JSON."""
        entries = {
            "model": self.model,
            "names": json.dumps(self.names, ensure_ascii=False),
            "input": "fixed" if isinstance(self.size_rule, Canvas) else "dynamic",
            "size_rule": json.dumps(self.size_rule.as_dict()),
            "batch": json.dumps(self.batch),
            "half": json.dumps(self.half),
            "best_threshold": json.dumps(self.threshold),
            "class_thresholds": json.dumps(self.class_thresholds, ensure_ascii=False),
            "version": self.version,
        }
        return {"format": FORMAT, **entries}

    @classmethod
    def from_props(cls, props: Mapping[str, str], path: Path) -> "OnnxMetadata":
        """Parse and validate the output of `to_props`.

        Raises:
            UserError: an entry is missing or invalid; the message starts with `path`.
        """
        if props.get("format") != FORMAT:
            kind = f"its format is {reprlib.repr(props['format'])}" if "format" in props else "it has no format entry"
            raise UserError(f"{path}: not an ONNX file of this pipeline ({kind}, not {FORMAT!r}): {_EXPECTED}")
        values = {key: _json(props, key, path) for key in _IN_JSON}
        names, threshold, class_thresholds = values["names"], values["best_threshold"], values["class_thresholds"]
        is_invalid = {
            "model": not _is_text(props.get("model")),
            "names": not (isinstance(names, list) and 1 < len(names) <= _MAX_CLASSES and all(map(_is_text, names))),
            "batch": not _is_positive_int(values["batch"], 1024),
            "half": not isinstance(values["half"], bool),
            "best_threshold": not _is_score_or_none(threshold),
            "class_thresholds": not (class_thresholds is None or _are_class_scores(class_thresholds, names)),
            "version": not _is_text(props.get("version")),
        }
        if any(is_invalid.values()):
            raise UserError(f"{path}: invalid {', '.join(k for k, v in is_invalid.items() if v)}: {_EXPECTED}")
        rule = _size_rule(values["size_rule"], props.get("input"), path)
        return cls(
            model=props["model"],
            names=tuple(names),
            size_rule=rule,
            batch=values["batch"],
            half=values["half"],
            threshold=threshold,
            version=props["version"],
            class_thresholds=class_thresholds,
        )


def is_onnx(path: str | Path | None) -> bool:
    """Return True for the name of an ONNX file."""
    return path is not None and Path(path).suffix.lower() == SUFFIX


def read_onnx(path: Path) -> tuple[bytes, OnnxMetadata]:
    """Read an ONNX file; return its bytes and its metadata.

    Raises:
        UserError: the file is missing, is not ONNX, was not written by export.py, or refers to other files.
    """
    try:
        size = file_size(path)
        if size > MAX_ONNX_BYTES:
            raise UserError(f"{path}: {size / 2**30:.1f} GiB, but an ONNX file has at most 2 GiB: {_EXPECTED}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such ONNX file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return content, parse_metadata(content, path)


def parse_metadata(content: bytes, path: Path) -> OnnxMetadata:
    """Parse the metadata of the bytes of an ONNX file, see read_onnx; `path` is for messages."""
    with requires_package("onnx", str(path)):
        import onnx
        from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise UserError(f"{path}: not an ONNX file, or damaged") from None
    metadata = OnnxMetadata.from_props({entry.key: entry.value for entry in model.metadata_props}, path)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise UserError(f"{path}: stores weights in other files, which are never opened: {_EXPECTED}")
    return metadata


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """Iterate over every tensor stored in the model."""
    yield from _graph_tensors(model.graph)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in model.functions:
        for node in function.node:
            yield from _attribute_tensors(node.attribute)
        yield from _attribute_tensors(function.attribute_proto)


def _graph_tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: "list[AttributeProto]") -> Iterator["TensorProto"]:
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def _json(props: Mapping[str, str], key: str, path: Path) -> Any:
    text = props.get(key, "")
    try:
        return json.loads(text if len(text) <= _MAX_CHARACTERS else "")
    except (ValueError, RecursionError):
        raise UserError(f"{path}: invalid {key} {reprlib.repr(text)}: {_EXPECTED}") from None


def _size_rule(values: Any, kind: str | None, path: Path) -> SizeRule | Canvas:
    keys = {"fixed": ("height", "width", "square"), "dynamic": ("size", "max_size", "square")}.get(kind or "", ())
    has_keys = bool(keys) and isinstance(values, dict) and set(values) == set(keys)
    sides = [values[key] for key in keys[:2]] if has_keys else []
    if not (has_keys and isinstance(values["square"], bool) and all(_is_positive_int(s, _MAX_SIDE) for s in sides)):
        raise UserError(f"{path}: invalid size_rule {reprlib.repr(values)}: {_EXPECTED}")
    return Canvas(**values) if kind == "fixed" else SizeRule(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_CHARACTERS


def _is_positive_int(value: object, maximum: int) -> bool:
    return type(value) is int and 0 < value <= maximum


def _is_score_or_none(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1)


def _are_class_scores(thresholds: object, names: object) -> bool:
    """Return True for a dict of scores by class name."""
    if not (isinstance(thresholds, dict) and isinstance(names, list)):
        return False
    return set(thresholds) <= {*filter(_is_text, names)} and all(map(_is_score_or_none, thresholds.values()))
