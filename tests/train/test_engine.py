"""Flags of the training engine, through train.py."""

import csv
import functools
from pathlib import Path

import pytest
import torch

import torch_utils.runs.validation
import train
from tests.support.training_runs import FAST, run_folder
from torch_utils.checkpoint import load_checkpoint
from torch_utils.training.network import compile_backbone
from utils.cli.flags import parse_options
from utils.cli.train_options import TrainOptions
from utils.errors import UserError


def test_the_average_is_what_is_evaluated_and_saved(make_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated = []
    real = torch_utils.runs.validation.evaluate

    def evaluate(model: torch.nn.Module, *args, **kwargs):
        evaluated.append({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *args, **kwargs)

    monkeypatch.setattr(torch_utils.runs.validation, "evaluate", evaluate)
    argv = ("--data", make_data().yaml, *FAST, "--epochs", 1, "--lr", 0.05, "--name", "a", "--ema", "--ema-decay", 0.9)
    train.main(parse_options(TrainOptions, "", list(map(str, argv))))
    folder = run_folder(tmp_path, "a")
    best, state, last = (
        load_checkpoint(folder / name) for name in ("best_model.pth", "last_model_state.pth", "last_model.pth")
    )
    for saved in (best, state, last):
        assert all(torch.equal(value, saved["model_state_dict"][name]) for name, value in evaluated[-1].items())
    trained = last["trained_state_dict"]
    assert trained.keys() == evaluated[-1].keys()
    assert any(not torch.equal(value, trained[name]) for name, value in evaluated[-1].items())
    assert not {"trained_state_dict"} & (best.keys() | state.keys())


@pytest.mark.full
def test_what_is_trained_with_is_in_the_log_and_a_resumed_run_may_change_it(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    done = run(
        "train.py", "--data", data.yaml, *FAST, "--epochs", 3, "--name", "a", "--lr", 0.002, "--scale-lr",
        "--accumulate", 3, "--schedule", "step", "--milestones", 1, 2, "--class-weights", "balanced",
        "--focal-loss", 2, "--repeat-factor", 0.9, "--precision", "bf16", "--optimizer", "AdamW",
        "--weight-decay", 0.05,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in (
        "Learning rate (--scale-lr): 0.002 x 6 images / 4 = 0.003", "Class weights (--class-weights balanced): red ",
        "Images shown in an epoch (--repeat-factor 0.9): ", "lr: 0.000030",
    ):  # fmt: skip
        assert line in done.stdout, line
    assert done.stdout.count("Class weights") == (run_folder(tmp_path, "a") / "train.log").read_text().count("Class w")
    last = run_folder(tmp_path, "a") / "last_model.pth"
    assert [g["weight_decay"] for g in load_checkpoint(last)["optimizer_state_dict"]["param_groups"]] == [0.05, 0.0]
    changes = ("--amp", "--cosine-annealing", "--weight-decay", 0.02, "--no-scale-lr", "--ema")
    resumed = run("train.py", "-r", "-w", last, "--epochs", 4, *changes)
    assert resumed.returncode == 0, resumed.stderr
    options = load_checkpoint(last)["options"]
    assert (options["precision"], options["amp"], options["schedule"]) == (None, True, None)
    assert "lr: 0.000020" in resumed.stdout, "a hundredth, at the last step"
    assert [g["weight_decay"] for g in load_checkpoint(last)["optimizer_state_dict"]["param_groups"]] == [0.02, 0.0]
    rows = list(csv.reader((last.parent / "results.csv").open()))
    assert len(rows) == 5
    assert all(float(row[3]) > 0 for row in rows[1:])


@pytest.mark.slow
def test_a_compiled_backbone_trains_to_the_same_losses(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    losses = []
    for more in ((), ("--compile",)):
        done = run("train.py", "--data", data.yaml, *FAST, "--epochs", 2, "--name", f"run{len(more)}", *more)
        assert done.returncode == 0, done.stderr
        last = load_checkpoint(run_folder(tmp_path, f"run{len(more)}") / "last_model.pth")
        losses.append(last["train_loss_list"])
        assert not any("_orig_mod" in key for key in last["model_state_dict"])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backbone", [torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), torch.nn.Conv2d(3, 4, 1)])
def test_what_is_compiled_runs_and_keeps_its_keys(monkeypatch: pytest.MonkeyPatch, backbone: torch.nn.Module) -> None:
    """torch's Module.compile() does nothing, without a word, to a Sequential, which many backbones are."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    keys, image = list(backbone.state_dict()), torch.rand(1, 3, 8, 8)
    expected = backbone(image)
    compile_backbone(backbone, torch.device("cpu"))
    probes = len(graphs)
    torch.testing.assert_close(backbone(image), expected)
    assert len(graphs) == probes + 1
    assert list(backbone.state_dict()) == keys


def test_a_machine_that_cannot_compile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(function):
        def fail(x: torch.Tensor):
            raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nmore")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(
        UserError, match=r"--compile needs a C\+\+ compiler \(g\+\+\), and does not work here"
    ) as raised:
        compile_backbone(torch.nn.Linear(1, 1), torch.device("cpu"))
    assert len(str(raised.value).splitlines()) == 1


def test_a_run_that_learns_nothing_says_so(make_data, run, tmp_path: Path) -> None:
    """Fault: with few updates an epoch a run that had exploded went on to its end, and to exit code 0."""
    data = make_data()
    done = run(
        "train.py", "--data", data.yaml, "--model", "fasterrcnn_nano", "--no-pretrained", "--imgsz", 64, "--epochs", 2,
        "--batch", 2, "--workers", 0, "--device", "cpu", "--lr", 1e9, "--project-dir", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 2
    assert "updates of the run were left out, since their loss was not finite. " in done.stderr
    assert "Traceback" not in done.stderr
