import pytest
import torch
from torch import nn

from torch_utils.training.ema import MovingAverage


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)).requires_grad_(True)


def test_it_is_the_average_that_its_decay_says() -> None:
    model = small()
    model[2].requires_grad_(False)
    average = MovingAverage(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for update in range(30):
        with torch.no_grad():
            for tensor in (*model[0].parameters(), model[1].running_var):
                tensor += torch.randn(tensor.shape)
            model[1].num_batches_tracked += 1
        taken = update % 3 != 2
        average.follow(update, torch.tensor(taken))
        decay = min(0.5, (1 + update) / (10 + update)) if taken else 1.0
        for name, value in model.state_dict().items():
            is_counter = not value.is_floating_point()
            expected[name] = value.clone() if is_counter else decay * expected[name] + (1 - decay) * value
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert torch.equal(average.model[2].weight, model[2].weight)
    assert average.model[1].num_batches_tracked == 30


def test_a_step_that_was_left_out_moves_nothing_and_no_gradient_reaches_it() -> None:
    model = small()
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model[0].weight += 1
    before = average.model[0].weight.clone()
    average.follow(0, torch.tensor(False))
    assert torch.equal(average.model[0].weight, before)
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.9998])
def test_the_decay_rises_to_what_was_asked_for(decay: float) -> None:
    decays = [MovingAverage(small(), decay).decay_at(update) for update in (0, 10, 1000, 10**6)]
    assert decays == sorted(decays)
    assert decays[0] <= 0.1
    assert decays[-1] == decay
