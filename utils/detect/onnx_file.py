"""What an ONNX file of export.py says of itself, and opening such a file: it may come from a stranger."""

import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.files import file_size
from utils.loading.size_rule import Canvas, SizeRule

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

SUFFIX = ".onnx"
FORMAT = "faster-rcnn 1"  # of the metadata, and of inputs and outputs
MOST_BYTES = 2**31 - 1  # of a protobuf message, which the file is
_LONG = 100_000  # characters of one entry
_MOST_CLASSES = 65_536
_MOST_PIXELS = 32_768  # of a side
_IN_JSON = ("names", "size_rule", "batch", "half", "best_threshold", "class_thresholds")
_NOT_OURS = "export.py of this pipeline makes those that it can run"


@dataclass(frozen=True)
class OnnxMetadata:
    """The entries of metadata_props; docs/onnx.md lists them."""

    model: str
    names: tuple[str, ...]  # names[0] is the background
    size_rule: SizeRule | Canvas  # a Canvas: the graph has this one input size
    batch: int  # images per call
    half: bool  # weights in half precision
    threshold: float | None  # the checkpoint's best_threshold
    version: str  # of this pipeline
    class_thresholds: Mapping[str, float | None] | None = None  # the checkpoint's

    def props(self) -> dict[str, str]:
        """As text by name, numbers and lists in JSON."""
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
    def of_props(cls, props: Mapping[str, str], path: Path) -> "OnnxMetadata":
        """The inverse of `props`, checked.

        Raises:
            UserError: they are not of our form; the message starts with `path`.
        """
        if props.get("format") != FORMAT:
            has = f"it says {reprlib.repr(props['format'])}" if "format" in props else "it says nothing of itself"
            raise UserError(f"{path}: no ONNX file of this pipeline ({has}, expected {FORMAT!r}): {_NOT_OURS}")
        read = {key: _json(props, key, path) for key in _IN_JSON}
        names, threshold, of_classes = read["names"], read["best_threshold"], read["class_thresholds"]
        wrong = {
            "model": not _is_text(props.get("model")),
            "names": not (isinstance(names, list) and 1 < len(names) <= _MOST_CLASSES and all(map(_is_text, names))),
            "batch": not _is_whole(read["batch"], 1024),
            "half": not isinstance(read["half"], bool),
            "best_threshold": not _is_score_or_none(threshold),
            "class_thresholds": not (of_classes is None or _are_of(of_classes, names)),
            "version": not _is_text(props.get("version")),
        }
        if any(wrong.values()):
            raise UserError(f"{path}: its {', '.join(k for k, v in wrong.items() if v)} cannot be: {_NOT_OURS}")
        rule = _size_rule(read["size_rule"], props.get("input"), path)
        return cls(
            props["model"], tuple(names), rule, read["batch"], read["half"], threshold, props["version"], of_classes
        )


def is_onnx(path: str | Path | None) -> bool:
    """Whether the name is one of an ONNX file."""
    return path is not None and Path(path).suffix.lower() == SUFFIX


def read_onnx(path: Path) -> tuple[bytes, OnnxMetadata]:
    """The content of an ONNX file and what it says of itself; everything is in this one file.

    Raises:
        UserError: no such file, no ONNX, one that reads other files, or not one of export.py.
    """
    try:
        size = file_size(path)
        if size > MOST_BYTES:
            raise UserError(f"{path}: {size / 2**30:.1f} GiB, and an ONNX file has at most 2: {_NOT_OURS}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such ONNX file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return content, metadata_of(content, path)


def metadata_of(content: bytes, path: Path) -> OnnxMetadata:
    """See read_onnx."""
    import onnx  # here, so that what only asks for names needs it not
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise UserError(f"{path}: not an ONNX file, or damaged") from None
    metadata = OnnxMetadata.of_props({entry.key: entry.value for entry in model.metadata_props}, path)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise UserError(f"{path}: keeps weights in other files, which are not opened: {_NOT_OURS}")
    return metadata


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """Every tensor that is stored anywhere in the model."""
    yield from _of_graph(model.graph)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)
    for function in model.functions:
        for node in function.node:
            yield from _of_attributes(node.attribute)
        yield from _of_attributes(function.attribute_proto)


def _of_graph(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: "list[AttributeProto]") -> Iterator["TensorProto"]:
    for attribute in attributes:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)


def _json(props: Mapping[str, str], key: str, path: Path) -> Any:
    text = props.get(key, "")
    try:
        return json.loads(text if len(text) <= _LONG else "")
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its {key} is {reprlib.repr(text)}, which it cannot be: {_NOT_OURS}") from None


def _size_rule(values: Any, kind: str | None, path: Path) -> SizeRule | Canvas:
    wanted = {"fixed": ("height", "width", "square"), "dynamic": ("size", "max_size", "square")}.get(kind or "", ())
    good = isinstance(values, dict) and set(values) == set(wanted) and wanted
    if not (
        good and isinstance(values["square"], bool) and all(_is_whole(values[k], _MOST_PIXELS) for k in wanted[:2])
    ):
        raise UserError(f"{path}: its size_rule is {reprlib.repr(values)}, which it cannot be: {_NOT_OURS}")
    return Canvas(**values) if kind == "fixed" else SizeRule(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONG


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _is_score_or_none(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1)


def _are_of(thresholds: object, names: object) -> bool:
    """Whether they are scores by the names of classes."""
    good = isinstance(thresholds, dict) and isinstance(names, list) and set(thresholds) <= {*filter(_is_text, names)}
    return good and all(map(_is_score_or_none, thresholds.values()))
