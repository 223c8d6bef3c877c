import torch

from torch_utils.precision import pick_precision

CPU = torch.device("cpu")


def test_amp_computes_in_half_precision() -> None:
    """Fault of the predecessor: --amp never ran in half precision."""
    precision = pick_precision(CPU, amp=True)
    layer = torch.nn.Linear(4, 4)
    with precision.autocast():
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    assert not precision.scaler.is_enabled()


def test_without_amp_it_does_not() -> None:
    with pick_precision(CPU, amp=False).autocast():
        assert torch.nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32
