"""Count operators, waits of the host, and copies between host and device."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# operators whose output size depends on the data, so that the host waits for it
_DATA_DEPENDENT = (
    "_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nms", "nonzero", "repeat_interleave",
    "_unique", "_unique2", "unique_dim", "unique_consecutive",
)  # fmt: skip
_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh")
_MASKED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")


class OpCounter(TorchDispatchMode):
    """Context manager that counts operators, backward passes included.

    On a GPU an operator launches one kernel, or a few. Views, allocations and work on host tensors are not counted. If
    `device` is the CPU there are no copies.

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
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if (name in _DATA_DEPENDENT and self._on_device(inputs)) or (name in _MASKED and self._is_masked(args[1])):
            self.syncs[name] += 1  # before it runs, as the meta device refuses it
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if name in ("_to_copy", "copy_"):
            source, target = inputs[-1] if name == "copy_" else inputs[0], tensors[0]
            if source.device.type != target.device.type:
                self.copies += 1
                if source.device.type == self.device.type:
                    self.syncs[f"{name} to the host"] += 1
        elif name == "lift_fresh" and self._on_device(tensors) and self.device.type != "cpu":
            self.copies += 1  # torch.tensor(..., device=...)
        if self._on_device([*inputs, *tensors]) and name not in _FREE and not _is_view(func):
            self.operators[name] += 1
        return result

    def _on_device(self, tensors: list[Tensor]) -> bool:
        return any(tensor.device.type == self.device.type for tensor in tensors)

    def _is_masked(self, indices: Any) -> bool:
        masks = [i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
        return self._on_device(masks)


def _is_view(func: Any) -> bool:
    return any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
