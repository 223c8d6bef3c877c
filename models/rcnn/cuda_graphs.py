"""Detection on a GPU as CUDA graphs: one launch instead of hundreds, for batches of a shape that came before.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. A recording holds addresses: a replay reads its
inputs where they were, writes its result where it was, and calls nothing in Python. So only code that never waits for
the GPU can be recorded: here everything up to the padded detections.

Not run on a GPU yet. Before a recording is used, its scores of a batch must be those computed without it.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from models.rcnn.detector import FasterRCNN, rescale_boxes
from models.rcnn.roi_heads import unpad_detections
from models.rcnn.structures import UintBatch

MOST_SHAPES = 8  # recorded: each has memory of its own for images and result, and shares the rest
_WARM_UPS = 3  # libraries choose kernels, Triton compiles
_CLOSE = 1e-3  # of score
log = logging.getLogger(__name__)


class GraphedDetector:
    """A FasterRCNN in eval mode on a GPU, its weights fixed.

    The first batch of a shape (B, H, W) is detected as ever. When the shape comes again, a graph is recorded and from
    then on replayed. Sides are multiples of 32 px, so images of similar sizes share a graph. Where a graph cannot be
    recorded, or would find something else, this is logged as a warning, once, and detection goes on as ever. Threads
    take turns.
    """

    def __init__(self, model: FasterRCNN) -> None:
        self._model = model
        self._came: Counter[tuple[int, ...]] = Counter()
        self._recordings: dict[tuple[int, ...], Recording] = {}
        self._refused = False
        self._pool: object = None  # of memory; what one replay leaves there, no other reads
        self._turn = threading.Lock()

    @torch.inference_mode()
    def __call__(self, batch: UintBatch) -> list[dict[str, Tensor]]:
        """See FasterRCNN in eval mode."""
        shape = tuple(batch.images.shape)
        with self._turn:  # until the result is on the host: the next replay writes over it
            if shape in self._recordings:
                block = self._recordings[shape](batch.images, batch.sizes)
            else:
                block = self._step_by_step(shape, batch)
            detections = unpad_detections(block)
        return rescale_boxes(detections, batch)

    def _step_by_step(self, shape: tuple[int, ...], batch: UintBatch) -> Tensor:
        device = self._model.pixel_scale.device
        images, sizes = (part.to(device, non_blocking=True) for part in (batch.images, batch.sizes))
        block = self._model.detect_padded(images, sizes)
        self._came[shape] += 1
        if self._came[shape] > 1 and len(self._recordings) < MOST_SHAPES and not self._refused:
            self._record(shape, images, sizes, block)
        return block

    def _record(self, shape: tuple[int, ...], images: Tensor, sizes: Tensor, block: Tensor) -> None:
        count, height, width, _ = shape
        try:
            recording = Recording(self._model.detect_padded, images, sizes, pool=self._pool)
            recording.keep = self._model.rpn.anchor_generator.cached((height, width))
            same = torch.allclose(recording(images, sizes)[..., 4], block[..., 4], rtol=0, atol=_CLOSE)
        except RuntimeError as error:  # CUDA's and PyTorch's, too little memory too
            self._recordings.clear()  # which have memory that the steps may need
            self._pool = None
            self._refuse(str(error.__context__ or error).strip().splitlines()[0])
            return
        if not same:
            self._refuse("a graph finds something else than the same steps one by one")
            return
        self._recordings[shape], self._pool = recording, recording.pool
        log.info("CUDA graph for batches of %d x %d x %d px", count, width, height)
        if len(self._recordings) == MOST_SHAPES:
            log.info("%d CUDA graphs: images of other sizes are detected without", MOST_SHAPES)

    def _refuse(self, reason: str) -> None:
        self._refused = True
        log.warning("no CUDA graphs, detection is slower without: %s", reason)


class Recording:
    """A function of tensors, recorded as a CUDA graph on inputs of these shapes; its result lies in the same memory.

    pool: of memory, for other recordings too, as long as a result is read before another one is replayed.
    keep: further tensors that the graph reads, held here because their owner may release them.

    Raises:
        RuntimeError: the function cannot be recorded.
    """

    def __init__(self, function: Callable[..., Tensor], *inputs: Tensor, pool: object = None) -> None:
        self._inputs = [torch.zeros_like(given) for given in inputs]
        self.keep: object = None
        with torch.cuda.device_of(inputs[0]):  # that of a thread is the first one, whatever the main thread's is
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side), _autocast_without_cache():
                for _ in range(_WARM_UPS):
                    function(*inputs)
            current = torch.cuda.current_stream()
            current.wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # of this thread: others may ask CUDA for pinned memory meanwhile
            recorder = torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local")
            try:
                with recorder, _autocast_without_cache():
                    self._result = function(*self._inputs)
            finally:
                torch.cuda.set_stream(current)  # which torch 2.7 does not do where a recording fails
            self.pool = self._graph.pool()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result, valid until the next call."""
        for recorded, given in zip(self._inputs, inputs, strict=True):
            recorded.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result


def _autocast_without_cache() -> torch.autocast:
    """Autocast as it is, but casting weights anew: those in its cache are gone when a graph reads them."""
    kind = "cuda"
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
