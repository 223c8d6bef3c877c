"""A detector that onnxruntime runs."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before onnxruntime: it brings the CUDA libraries that onnxruntime looks for

from utils.detect.detections import Detections
from utils.detect.detector import BatchDetector, DetectorInfo
from utils.detect.onnx_file import OnnxMetadata, metadata_of, read_onnx
from utils.errors import UserError
from utils.loading.batch import Batch
from utils.loading.size_rule import Canvas, SizeRule

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
_INPUTS = {"images": "tensor(uint8)", "sizes": "tensor(int64)"}
_OUTPUTS = {"boxes": "tensor(float)", "scores": "tensor(float)", "labels": "tensor(int64)"}
_MISSING = {  # what to say where onnxruntime has not, or cannot load, what is wanted
    TENSORRT: "cannot use TensorRT on {device}: install the TensorRT that its release notes name, or drop --tensorrt",
    CUDA: "cannot use {device} and runs on the CPU: install the onnxruntime-gpu of requirements.txt, "
    "without onnxruntime beside it, or give --device cpu",
}
_ERRORS_ONLY = 3  # onnxruntime's level of logging
log = logging.getLogger(__name__)


class OnnxDetector(BatchDetector):
    """A graph of export.py: it finds what the PyTorch detector finds on the same pixels.

    Args:
        path: of the file, for messages.
        content: of the file, where it was read already.
        device: where it is to run.
        must: whether anything but `device` is an error; else it is a warning.
        tensorrt: let TensorRT run it, and nothing else.

    Raises:
        UserError: the file is none of export.py's, onnxruntime cannot run it, or not on the device, or with TensorRT.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        *,
        content: bytes | None = None,
        must: bool = False,
        tensorrt: bool = False,
    ) -> None:
        content, metadata = read_onnx(path) if content is None else (content, metadata_of(content, path))
        self._path, self._batch = path, metadata.batch
        self._session, provider = _session(path, content, device, must=must, tensorrt=tensorrt)
        self._canvas = metadata.size_rule if isinstance(metadata.size_rule, Canvas) else None
        _check_signature(path, self._session, metadata)
        super().__init__(
            DetectorInfo(
                name=metadata.model,
                class_names=metadata.names,
                size_rule=metadata.size_rule,
                device="cpu" if provider == CPU else str(device),
                runtime=f"onnxruntime's {provider}",
                source=str(path),
                best_threshold=metadata.threshold,
                class_thresholds=metadata.class_thresholds,
            )
        )

    def resized(self, *, imgsz: int | None, square: bool) -> None:
        """Show images at another size.

        Raises:
            UserError: the graph has one size, which is not this.
        """
        rule, canvas = self.info.size_rule, self._canvas
        if canvas is None and imgsz is not None:
            rule = SizeRule(imgsz, square=square)
        elif canvas is not None and imgsz is not None and (canvas.height, canvas.width) != (imgsz, imgsz):
            raise UserError(
                f"--imgsz {imgsz}: {self._path} was exported for images of {canvas.width} x {canvas.height} px and "
                "takes no others: drop --imgsz, or export again with it as --width and --height, or with --dynamic"
            )
        self.info = replace(self.info, size_rule=replace(rule, square=True) if square else rule)

    def detect_batch(self, batch: Batch) -> list[Detections]:
        """See BatchDetector."""
        if self._canvas is not None:
            batch = on_canvas(batch, self._canvas)
        images, sizes = batch.images.numpy(), batch.sizes.numpy()
        found: list[Detections] = []
        for start in range(0, len(images), self._batch):
            chunk = slice(start, start + self._batch)
            found += self._run(images[chunk], sizes[chunk], batch.original_sizes.numpy()[chunk])
        return found

    def _run(self, images: np.ndarray, sizes: np.ndarray, original_sizes: np.ndarray) -> list[Detections]:
        """Of as many images as the graph takes, or fewer."""
        missing = self._batch - len(images)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            sizes = np.concatenate([sizes, np.ones((missing, 2), np.int64)])
        try:
            boxes, scores, labels = self._session.run(list(_OUTPUTS), {"images": images, "sizes": sizes})
        except _onnxruntime_errors() as error:
            raise UserError(f"{self._path}: onnxruntime cannot run it ({_first_line(error)})") from None
        if labels.max(initial=0) >= len(self.info.class_names) or labels.min(initial=0) < 0:
            raise UserError(f"{self._path}: finds classes that it has no names for: it is damaged, export it again")
        scales = original_sizes.astype(np.float32) / sizes[: len(original_sizes)].astype(np.float32)
        return [
            Detections(boxes[i] * scales[i, [1, 0, 1, 0]], scores[i], labels[i]).where(scores[i] > 0)
            for i in range(len(original_sizes))
        ]


def on_canvas(batch: Batch, canvas: Canvas) -> Batch:
    """The same images in blocks of the canvas's size."""
    count, height, width, _ = batch.images.shape
    if (height, width) == (canvas.height, canvas.width):
        return batch
    block = batch.images.new_zeros(count, canvas.height, canvas.width, 3)
    block[:, :height, :width] = batch.images
    return replace(batch, images=block)


def _session(path: Path, content: bytes, device: torch.device, *, must: bool, tensorrt: bool) -> tuple[Any, str]:
    """An InferenceSession, and the provider that it runs on."""
    import onnxruntime

    if tensorrt and device.type != "cuda":
        raise UserError(f"--tensorrt: TensorRT runs on GPUs, not on {device}: drop it, or give --device cuda")
    wanted = [*([TENSORRT] if tensorrt else []), *([CUDA] if device.type == "cuda" else []), CPU]
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = torch.get_num_threads()
    available = [
        (provider, {} if provider == CPU else {"device_id": device.index or 0})
        for provider in wanted
        if provider in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(content, settings, providers=available)
    except _onnxruntime_errors() as error:
        raise UserError(f"{path}: onnxruntime cannot open it ({_first_line(error)})") from None
    running = session.get_providers()[0]
    if running != wanted[0]:
        words = f"{path}: onnxruntime {onnxruntime.__version__} {_MISSING[wanted[0]].format(device=device)}"
        if must or tensorrt:
            raise UserError(words)
        log.warning("%s", words)
    return session, running


def _check_signature(path: Path, session: Any, metadata: OnnxMetadata) -> None:
    """UserError unless inputs and outputs have our names, types and shapes."""
    has = {value.name: value.type for value in session.get_inputs()}, {v.name: v.type for v in session.get_outputs()}
    good = has == (_INPUTS, _OUTPUTS)
    if good:
        images, sizes = (value.shape for value in session.get_inputs())
        rule = metadata.size_rule
        sides = [rule.height, rule.width] if isinstance(rule, Canvas) else images[1:3]
        good = (images, sizes) == ([metadata.batch, *sides, 3], [metadata.batch, 2])
        good &= [len(value.shape) for value in session.get_outputs()] == [3, 2, 2]
    if not good:
        raise UserError(f"{path}: inputs and outputs are not those of its metadata: it was changed, export it again")


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """All of them: they have no class in common but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds: Sequence[Any] = [value for value in vars(state).values() if isinstance(value, type)]
    return (*(kind for kind in kinds if issubclass(kind, Exception)), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
