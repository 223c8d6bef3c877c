import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torch_utils.training.optimization import Schedule, make_optimizer, set_learning_rate
from utils.cli.train_options import SCHEDULES


def test_rises_over_the_warmup_and_stays() -> None:
    schedule = Schedule(0.01, steps_per_epoch=50, epochs=10)
    rates = [schedule.at(step) for step in range(500)]
    assert rates[0] < 0.01 / 20
    assert rates[:51] == sorted(rates[:51])
    assert set(rates[50:]) == {0.01}


def test_cosine_reaches_its_floor() -> None:
    """Fault of the predecessor: --cosine-annealing crashed."""
    schedule = Schedule(0.01, steps_per_epoch=50, epochs=10, kind="cosine")
    rates = [schedule.at(step) for step in range(500)]
    assert max(rates) == pytest.approx(0.01)
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == pytest.approx(0.0001)


@given(st.integers(1, 400), st.integers(1, 40), st.sampled_from(SCHEDULES))
def test_every_run_leaves_the_warmup(steps_per_epoch: int, epochs: int, kind: str) -> None:
    """Fault of the predecessor: warm-up with one batch per epoch left the LR at 1e-6."""
    schedule = Schedule(1.0, steps_per_epoch, epochs, kind)
    rates = [schedule.at(step) for step in range(steps_per_epoch * epochs)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) > 0.5
    if kind == "constant":
        assert rates[-1] == 1.0


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)])
def test_both_optimizers_train_what_is_trainable(name: str, kind: type) -> None:
    """Fault of the predecessor: --optimizer AdamW crashed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    optimizer = make_optimizer(model, name, 0.05)
    assert isinstance(optimizer, kind)
    x, y = torch.randn(32, 4), torch.ones(32, 1)
    losses = []
    for _ in range(50):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert torch.equal(model[0].weight, frozen)


def test_parameter_order_is_the_models() -> None:
    """The predecessor's optimizer states are one group in this order."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    (group,) = make_optimizer(model, "SGD", 0.1, decay_all=True).param_groups
    assert [p.shape for p in group["params"]] == [p.shape for p in model.parameters()]
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_earlier_stages_learn_more_slowly() -> None:
    model = nn.ModuleDict({"body": nn.ModuleList([nn.Linear(1, 1) for _ in range(12)]), "head": nn.Linear(1, 1)})
    stages = [("body.0", "body.10"), ("body.1",)]  # body.11 is none of them: prefixes end at a dot
    optimizer = make_optimizer(model, "AdamW", 0.1, stages=stages, layer_decay=0.5)
    set_learning_rate(optimizer, 0.1)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    expected = {"body.0": 0.025, "body.10": 0.025, "body.1": 0.05, "body.11": 0.1, "head": 0.1}
    for name, rate in expected.items():
        assert [rates[p] for p in model.get_submodule(name).parameters()] == pytest.approx([rate, rate])


@pytest.mark.parametrize(("name", "decay"), [("SGD", 1e-4), ("AdamW", 1e-2)])
def test_norms_biases_embeddings_and_tokens_do_not_decay(name: str, decay: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.LayerNorm(8), nn.Linear(8, 2), nn.Module())
    for parameter_name in ("pos_embed", "cls_token", "rel_pos_h", "kernel"):
        model[4].register_parameter(parameter_name, nn.Parameter(torch.zeros(1, 4, 2)))
    optimizer = make_optimizer(model, name, 0.1)
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    decayed = {key for key, p in model.named_parameters() if decays[p] == decay}
    assert decayed == {"0.weight", "3.weight", "4.kernel"}
    assert {decays[p] for key, p in model.named_parameters() if key not in decayed} == {0.0}
    assert {g["weight_decay"] for g in make_optimizer(model, name, 0.1, weight_decay=0.5).param_groups} == {0.5, 0}


def test_the_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=90, cycle_momentum=False)
    schedule = Schedule(0.01, steps_per_epoch=9, epochs=10, kind="one-cycle")
    for step in range(90):
        assert schedule.at(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if step < 89 else None


@pytest.mark.parametrize(
    ("milestones", "expected"), [((), (0.1, 0.01, 0.001)), ((2, 7), (0.01, 0.001, 0.001)), ((20,), (0.1, 0.1, 0.1))]
)
def test_steps_fall_after_their_epochs(milestones: tuple, expected: tuple) -> None:
    schedule = Schedule(0.1, steps_per_epoch=20, epochs=9, kind="step", milestones=milestones)
    assert [schedule.at(20 * epoch) for epoch in (5, 7, 8)] == pytest.approx(list(expected))
    assert schedule.at(20 * 2 - 1) == pytest.approx(0.1)


def test_groups_do_not_depend_on_the_decay() -> None:
    """Fault: a run could not be resumed with --weight-decay 0, since its two groups became one."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2))
    groups = [make_optimizer(model, "SGD", 0.1, weight_decay=decay).param_groups for decay in (0.0, 0.1)]
    assert [[len(g["params"]) for g in some] for some in groups] == [[2, 2], [2, 2]]
    assert [g["weight_decay"] for g in groups[0]] == [0.0, 0.0]
