"""Detector that runs an exported ONNX file in onnxruntime."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch  # imported before onnxruntime: it loads the CUDA libraries that onnxruntime needs

from utils.detect.detections import Detections
from utils.detect.detector import BatchDetector, DetectorInfo
from utils.detect.onnx_file import OnnxMetadata, parse_metadata, read_onnx
from utils.errors import UserError, requires_package
from utils.loading.batch import Batch
from utils.loading.size_rule import Canvas, SizeRule

CUDA_REMEDY = "onnxruntime-gpu for NVIDIA GPUs"
TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
_INPUTS = {"images": "tensor(uint8)", "sizes": "tensor(int64)"}
_OUTPUTS = {"boxes": "tensor(float)", "scores": "tensor(float)", "labels": "tensor(int64)"}
_MISSING = {  # messages where onnxruntime lacks a provider or cannot load it
    TENSORRT: "cannot use TensorRT on {device}: install the TensorRT version of its release notes, or drop --tensorrt",
    CUDA: "cannot use {device} and runs on the CPU: install onnxruntime-gpu as in requirements.txt, "
    "without the package onnxruntime beside it, or give --device cpu",
}
_ERRORS_ONLY = 3  # log level of onnxruntime
log = logging.getLogger(__name__)


class OnnxDetector(BatchDetector):
    """An ONNX file written by export.py; its detections equal those of the PyTorch model on the same pixels.

    Args:
        path: the file; with `content` used in messages only.
        content: bytes of the file, if already read.
        device: device to run on.
        require_device: raise if `device` cannot be used; otherwise warn and run on the CPU.
        tensorrt: run in TensorRT; anything else is an error.

    Raises:
        UserError: the file was not written by export.py, onnxruntime is missing, or it cannot run the file, not on
            this device, or not with TensorRT.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        *,
        content: bytes | None = None,
        require_device: bool = False,
        tensorrt: bool = False,
    ) -> None:
        content, metadata = read_onnx(path) if content is None else (content, parse_metadata(content, path))
        self._path, self._batch = path, metadata.batch
        self._session, provider = _session(path, content, device, require_device=require_device, tensorrt=tensorrt)
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

    def set_input_size(self, *, imgsz: int | None, square: bool) -> None:
        """Change the size to which images are resized.

        Raises:
            UserError: the graph has one fixed size, and it is another.
        """
        rule, canvas = self.info.size_rule, self._canvas
        if canvas is None and imgsz is not None:
            rule = SizeRule(imgsz, square=square)
        elif canvas is not None and imgsz is not None and (canvas.height, canvas.width) != (imgsz, imgsz):
            raise UserError(
                f"--imgsz {imgsz}: {self._path} was exported for images of {canvas.width} x {canvas.height} px "
                "only: drop --imgsz, or export again with this --width and --height, or with --dynamic"
            )
        self.info = replace(self.info, size_rule=replace(rule, square=True) if square else rule)

    def detect_batch(self, batch: Batch) -> list[Detections]:
        """See BatchDetector."""
        if self._canvas is not None:
            batch = pad_to_canvas(batch, self._canvas)
        images, sizes = batch.images.numpy(), batch.sizes.numpy()
        detections: list[Detections] = []
        for start in range(0, len(images), self._batch):
            chunk = slice(start, start + self._batch)
            detections += self._run(images[chunk], sizes[chunk], batch.original_sizes.numpy()[chunk])
        return detections

    def _run(self, images: np.ndarray, sizes: np.ndarray, original_sizes: np.ndarray) -> list[Detections]:
        """Detect in at most as many images as the graph takes; fewer are filled up with black ones."""
        missing = self._batch - len(images)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            sizes = np.concatenate([sizes, np.ones((missing, 2), np.int64)])
        try:
            boxes, scores, labels = self._session.run(list(_OUTPUTS), {"images": images, "sizes": sizes})
        except _onnxruntime_errors() as error:
            raise UserError(f"{self._path}: onnxruntime cannot run it ({_first_line(error)})") from None
        if labels.max(initial=0) >= len(self.info.class_names) or labels.min(initial=0) < 0:
            raise UserError(f"{self._path}: returned labels without a class name: the file is damaged, export it again")
        scales = original_sizes.astype(np.float32) / sizes[: len(original_sizes)].astype(np.float32)
        return [
            Detections(boxes[i] * scales[i, [1, 0, 1, 0]], scores[i], labels[i]).where(scores[i] > 0)
            for i in range(len(original_sizes))
        ]


def pad_to_canvas(batch: Batch, canvas: Canvas) -> Batch:
    """Pad the images of a batch to the canvas's size."""
    count, height, width, _ = batch.images.shape
    if (height, width) == (canvas.height, canvas.width):
        return batch
    images = batch.images.new_zeros(count, canvas.height, canvas.width, 3)
    images[:, :height, :width] = batch.images
    return replace(batch, images=images)


def _session(
    path: Path, content: bytes, device: torch.device, *, require_device: bool, tensorrt: bool
) -> tuple[Any, str]:
    """Open an InferenceSession; return it and the name of the provider that runs it."""
    with requires_package("onnxruntime", str(path), remedy=CUDA_REMEDY):
        import onnxruntime

    if tensorrt and device.type != "cuda":
        raise UserError(f"--tensorrt: TensorRT runs on GPUs, not on {device}: drop --tensorrt, or give --device cuda")
    requested = [*([TENSORRT] if tensorrt else []), *([CUDA] if device.type == "cuda" else []), CPU]
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = _ERRORS_ONLY
    session_options.intra_op_num_threads = torch.get_num_threads()
    available = [
        (provider, {} if provider == CPU else {"device_id": device.index or 0})
        for provider in requested
        if provider in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(content, session_options, providers=available)
    except _onnxruntime_errors() as error:
        raise UserError(f"{path}: onnxruntime cannot open it ({_first_line(error)})") from None
    running = session.get_providers()[0]
    if running != requested[0]:
        message = f"{path}: onnxruntime {onnxruntime.__version__} {_MISSING[requested[0]].format(device=device)}"
        if require_device or tensorrt:
            raise UserError(message)
        log.warning("%s", message)
    return session, running


def _check_signature(path: Path, session: Any, metadata: OnnxMetadata) -> None:
    """Raise a UserError unless inputs and outputs have the exported names, types and shapes."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    matches = ({v.name: v.type for v in inputs}, {v.name: v.type for v in outputs}) == (_INPUTS, _OUTPUTS)
    if matches:
        images, sizes = (value.shape for value in inputs)
        rule = metadata.size_rule
        sides = [rule.height, rule.width] if isinstance(rule, Canvas) else images[1:3]
        matches = (images, sizes) == ([metadata.batch, *sides, 3], [metadata.batch, 2])
        matches &= [len(value.shape) for value in outputs] == [3, 2, 2]
    if not matches:
        raise UserError(f"{path}: inputs and outputs do not match its metadata: the file was changed, export it again")


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Exception types of onnxruntime, which share no base class but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds: Sequence[Any] = [value for value in vars(state).values() if isinstance(value, type)]
    return (*(kind for kind in kinds if issubclass(kind, Exception)), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
