"""Going on with a run: its options, what they may change, its folder, and all that is restored."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_utils.checkpoint import load_checkpoint, set_rng_state
from torch_utils.distributed import Processes
from torch_utils.runs.epoch_report import REPORT_FILES
from torch_utils.runs.run import BEST, LAST, LAST_WEIGHTS, TRAINED
from torch_utils.runs.training_log import RESULTS
from torch_utils.training.optimization import LR_SCALE
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import TrainingState
from utils.cli.train_options import TrainOptions
from utils.errors import UserError

_OWN = (LR_SCALE, "weight_decay", "fused", "foreach")  # of a parameter group: by options and device, not by the file
# What is settled when a run starts: its weights, or the state of its optimizer, would not fit.
_SETTLED = (
    "freeze", "unfreeze", "layer_decay", "norm", "anchors", "anchor_sizes", "anchor_ratios", "head_width",
    "class_agnostic",
)  # fmt: skip
# What a run keeps of the command that started it when another command goes on with it in the same folder.
_OWN_OPTIONS = ("weights", "resume_training", "name", "project_dir", "data")
_OVERRULED = {  # typed option -> saved ones that it makes void
    "aug": ("flip", "mosaic", "multi_scale", "use_train_aug", "aug_config"),
    "amp": ("precision",),
    "precision": ("amp",),
    "schedule": ("cosine_annealing", "milestones"),
    "cosine_annealing": ("schedule", "milestones"),
}


def with_checkpoint(options: TrainOptions) -> tuple[TrainOptions, Mapping[str, Any] | None]:
    """The checkpoint of --weights, and the options with those of the run that is resumed filled in."""
    if options.weights is None:
        if options.resume_training:
            raise UserError("--resume-training needs --weights outputs/training/NAME/last_model.pth")
        return options, None
    checkpoint = load_checkpoint(Path(options.weights), whole_run=options.resume_training)
    if "model" in options.given and options.model != checkpoint["model_name"]:
        raise UserError(
            f"--model {options.model} is not the model of {options.weights}, which is {checkpoint['model_name']}: "
            "drop --model or --weights"
        )
    saved = {"model": checkpoint["model_name"]}
    if options.resume_training:
        _check_resumed(options, checkpoint)
        dropped = {*_OWN_OPTIONS, *(old for new in options.given for old in _OVERRULED.get(new, ()))}
        saved = {k: v for k, v in checkpoint.get("options", {}).items() if k not in dropped} | saved
        saved |= recipe_of_older_run(checkpoint)
    return options.over(saved), checkpoint


def _check_resumed(options: TrainOptions, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to change in mid-run what cannot be changed there."""
    before = TrainOptions().over(checkpoint.get("options", {}))
    for name in _SETTLED:
        if name in options.given and getattr(options, name) != getattr(before, name):
            raise UserError(
                f"--{name.replace('_', '-')} cannot change in a run that goes on: drop it, or start a new run from "
                "these weights, without --resume-training"
            )


def own_options(options: TrainOptions, checkpoint: Mapping[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Options that a checkpoint keeps of the command that started the run, when one in its folder goes on with it."""
    if not options.resume_training or folder.resolve() != Path(options.weights).parent.resolve():
        return {}
    saved = checkpoint.get("options", {})
    return {name: saved[name] for name in _OWN_OPTIONS if name in saved}


def carry_over(old: Path, new: Path) -> None:
    """Copy what a run has so far into the folder in which it goes on."""
    for name in (RESULTS, BEST, LAST_WEIGHTS, LAST, *REPORT_FILES):
        if (old / name).is_file():
            shutil.copyfile(old / name, new / name)


def restore(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    processes: Processes,
) -> TrainingState:
    """Put trained weights, optimizer, scaler and random numbers back as they were saved, and return the state.

    Args:
        model: has the checkpoint's model_state_dict; if that is a moving average, the trained weights take its place.

    Raises:
        UserError: the run had another optimizer, or trained other parameters, or its state is damaged.
    """
    saved = checkpoint["optimizer_state_dict"]
    try:
        kind = "AdamW" if "betas" in saved["param_groups"][0] else "SGD"
        if kind != type(optimizer).__name__:
            raise UserError(
                f"--optimizer {type(optimizer).__name__}: the run to resume has the state of {kind}: drop --optimizer, "
                "or start a new run from its weights, without --resume-training"
            )
        if TRAINED in checkpoint:
            model.load_state_dict(checkpoint[TRAINED])
        _load_optimizer(optimizer, saved)
        if checkpoint.get("scaler_state_dict"):
            precision.scaler.load_state_dict(checkpoint["scaler_state_dict"])
        rng = checkpoint.get("rng", [])
        if len(rng) == processes.world_size:  # else the run changes hands, and draws new numbers
            set_rng_state(rng[processes.rank])
        return TrainingState.from_checkpoint(checkpoint)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the run's state is damaged, or does not fit its model ({error}): start a new run from these weights, "
            "without --resume-training"
        ) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load momenta and the like. What options and device decide of a group stays as the optimizer has it."""
    groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    sizes, saved_sizes = ([len(group["params"]) for group in of] for of in (groups, saved_groups))
    if sizes != saved_sizes and sum(sizes) == sum(saved_sizes):
        raise UserError(
            f"the run to resume has its parameters in {len(saved_sizes)} group(s), and --decay-all, --weight-decay and "
            f"--layer-decay make {len(sizes)}: drop these flags, or start a new run, without --resume-training"
        )
    mixed = [
        {**theirs, **{name: ours[name] for name in _OWN if name in ours}}
        for ours, theirs in zip(groups, saved_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": mixed})


def recipe_of_older_run(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a run had before there were flags for them, or other defaults, by what its optimizer has.

    It decayed all parameters, in one group or by stages. The predecessor's do not say their learning rate either.
    """
    options = checkpoint.get("options", {})
    if "decay_all" in options:
        return {}
    groups = checkpoint["optimizer_state_dict"].get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], Mapping) else {}
    recipe = {"decay_all": True, "weight_decay": first.get("weight_decay")}
    return recipe if "lr" in options else {**recipe, "lr": first.get("initial_lr", first.get("lr"))}
