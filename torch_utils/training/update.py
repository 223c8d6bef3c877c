"""The optimizer step: gradient accumulation, loss scaling, clipping, and skipping of losses that are not finite."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from torch_utils.distributed import Processes
from torch_utils.training.ema import MovingAverage
from torch_utils.training.optimization import Schedule, set_learning_rate
from torch_utils.training.precision import Precision


@dataclass
class Updater:
    """Updates the weights with the mean gradient of `accumulate` batches (fewer at the end of an epoch).

    An update whose loss or gradient is not finite in any process is skipped in all of them: weights, optimizer, moving
    average and the statistics of batch norms stay as they were. A GPU decides this by itself; the host does not wait.
    float16 gradients that overflow their scale are no fault: the update is skipped and the scale lowered.

    Args:
        model: what is saved, without wrappers; the optimizer has its parameters.
        clip: largest norm of the gradient over all parameters; what is longer is shortened.
        average: follows the model.
        pre_step_hook: called before the weights, the optimizer's state and the average change.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    processes: Processes
    accumulate: int = 1
    clip: float | None = None
    average: MovingAverage | None = None
    pre_step_hook: Callable[[], None] | None = None
    _batches: int = field(default=0, init=False)  # of the current update

    def __post_init__(self) -> None:
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._statistics = [s for m in norms for s in (m.running_mean, m.running_var) if s is not None]
        self._fused = bool(self.optimizer.defaults["fused"])
        if self._fused:
            for parameter in _parameters(self.optimizer):
                self._prepare_state(parameter)

    def start(self, update: int) -> float:
        """Start an update, counted from 0 over the whole run, and return its learning rate."""
        lr = self.schedule.at(update)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self._batches = 0
        self._kept = _joined(self._statistics)
        return lr

    def batch_of(self, network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Context of a forward and backward pass; gradients are all-reduced at the last batch of an update."""
        self._batches += 1
        shares = last or not isinstance(network, nn.parallel.DistributedDataParallel)
        return contextlib.nullcontext() if shares else network.no_sync()

    def finish(self, update: int, losses: Tensor) -> Tensor:
        """Update the weights with the mean gradient of the batches since `start`.

        Args:
            losses: of these batches, any shape.

        Returns:
            () bool on the device: whether loss or gradient is not finite in some process.
        """
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in _parameters(self.optimizer) if p.grad is not None]
        if self._batches > 1:
            torch._foreach_div_(gradients, self._batches)
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        if self.clip is not None:
            torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1))
        bad_loss = self._any_process(~losses.isfinite().all())
        skipped = bad_loss | ~norm.isfinite()  # the gradient is the same in all processes
        if self.pre_step_hook is not None:
            self.pre_step_hook()
        self._step(skipped)
        scaler.update()
        if self.average is not None:
            self.average.follow(update, ~skipped)
        if not scaler.is_enabled():
            return skipped
        return bad_loss | (skipped & (scaler.scale(torch.ones_like(norm)) < 1))  # smaller than any that would help

    def stable_tensors(self) -> set[int]:
        """Addresses (data_ptr) of the tensors that do not change between two updates."""
        tensors = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors += self.model.parameters()
        if self.average is not None:
            tensors += self.average.model.state_dict().values()
        return {tensor.data_ptr() for tensor in tensors if isinstance(tensor, Tensor)}

    def _prepare_state(self, parameter: nn.Parameter) -> None:
        """Prepare a parameter's state for the fused optimizers.

        A skipped first step of SGD would leave the momentum unset. Strides must equal the parameter's, also in a state
        that was saved on another device.
        """
        state = self.optimizer.state[parameter]
        if isinstance(self.optimizer, torch.optim.SGD) and state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = _with_strides_of(parameter, value)

    @torch.no_grad()
    def _step(self, skipped: Tensor) -> None:
        if self._fused:  # as torch's GradScaler tells such an optimizer; it looks at the flag on the device
            for parameter in _parameters(self.optimizer):
                if parameter.grad is not None:
                    parameter.grad = _with_strides_of(parameter, parameter.grad)
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skipped.float()
            self.optimizer.step()
        elif not skipped:
            self.optimizer.step()
        if self._statistics:
            flat = torch.where(skipped, self._kept, _joined(self._statistics))
            parts = flat.split([s.numel() for s in self._statistics])
            torch._foreach_copy_(self._statistics, list(parts))

    def _any_process(self, flag: Tensor) -> Tensor:
        """() bool: whether the flag is set in any process."""
        if not self.processes.several:
            return flag
        number = flag.float()
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return number > 0


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _with_strides_of(model: Tensor, tensor: Tensor) -> Tensor:
    """Convolutions of 1 x 1 have weights and gradients of different strides where their input is channels-last."""
    return tensor if tensor.stride() == model.stride() else torch.empty_like(model).copy_(tensor)


def _joined(tensors: list[Tensor]) -> Tensor:
    """A copy of their values in one vector."""
    return torch.cat(tensors) if tensors else torch.empty(0)
