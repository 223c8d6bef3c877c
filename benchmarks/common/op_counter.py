"""What a piece of work asks of a device: operators, waits of the host, and copies between host and device."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# operators whose result has as many elements as the data say: the host must hear the number
_ASKING = (
    "_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nms", "nonzero", "repeat_interleave",
    "_unique", "_unique2", "unique_dim", "unique_consecutive",
)  # fmt: skip
_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh")
_MASKED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class OpCounter(TorchDispatchMode):
    """Counts while it is entered; a backward pass counts too.

    On a GPU an operator is a launch of one kernel, or of a few. Views and allocations do not count, nor does work on
    tensors of the host. Where `device` is the CPU, host and device are one: there are no copies then.

    Attributes:
        operators: name -> number.
        syncs: name -> number of times the host waits for the device.
        copies: between host and device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.operators: Counter[str] = Counter()
        self.syncs: Counter[str] = Counter()
        self.copies = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """See TorchDispatchMode."""
        del types
        name = func._schema.name.split("::")[1]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if (name in _ASKING and self._on_device(given)) or (name in _MASKED and self._is_masked(args[1])):
            self.syncs[name] += 1  # before it runs: a device without data, meta, refuses it
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name in ("_to_copy", "copy_"):
            source, target = given[-1] if name == "copy_" else given[0], tensors[0]
            if source.device.type != target.device.type:
                self.copies += 1
                if source.device.type == self.device.type:
                    self.syncs[f"{name} to the host"] += 1
        elif name == "lift_fresh" and self._on_device(tensors) and self.device.type != "cpu":
            self.copies += 1  # torch.tensor(..., device=...)
        if self._on_device([*given, *tensors]) and name not in _FREE and not _is_view(func):
            self.operators[name] += 1
        return result

    def _on_device(self, tensors: list[Tensor]) -> bool:
        return any(tensor.device.type == self.device.type for tensor in tensors)

    def _is_masked(self, indices: Any) -> bool:
        masks = [i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return self._on_device(masks)


def _is_view(func: Any) -> bool:
    return any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
