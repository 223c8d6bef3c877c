"""Resume a run: its options, its folder, and the state of model, optimizer, scaler and random generators."""

import logging
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
from utils.cli.flags import options_with
from utils.cli.train_options import TrainOptions
from utils.errors import UserError
from utils.run_folder import TRAINING, given_folder, named_folder, numbered_folder

# Of a parameter group: set by options and device, not by the checkpoint.
_GROUP_SETTINGS = (LR_SCALE, "weight_decay", "fused", "foreach")
log = logging.getLogger(__name__)


def with_checkpoint(options: TrainOptions) -> tuple[TrainOptions, Mapping[str, Any] | None]:
    """Load the checkpoint of --weights; fill in the options of the run if it is resumed.

    What is typed wins over what the run was started with; metadata of the flags says which options stay with a command
    and which may not change in a run.
    """
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
        overrides = options_with(TrainOptions, "overrides")
        dropped = {
            *options_with(TrainOptions, "of_command"),
            *(old for new in options.given for old in overrides.get(new, ())),
        }
        saved = {k: v for k, v in checkpoint.get("options", {}).items() if k not in dropped} | saved
        saved |= recipe_of_older_run(checkpoint)
    return options.over(saved), checkpoint


def _check_resumed(options: TrainOptions, checkpoint: Mapping[str, Any]) -> None:
    """Refuse typed options that differ from the run's and cannot change in it."""
    saved = TrainOptions().over(checkpoint.get("options", {}))
    for name in options_with(TrainOptions, "fixed_in_run"):
        if name in options.given and getattr(options, name) != getattr(saved, name):
            raise UserError(
                f"--{name.replace('_', '-')} cannot change in a run that goes on: drop it, or start a new run from "
                "these weights, without --resume-training"
            )


def options_of_first_command(
    options: TrainOptions, checkpoint: Mapping[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """Options of the command that started the run, which checkpoints keep when it is resumed in its own folder."""
    if not options.resume_training or folder.resolve() != Path(options.weights).parent.resolve():
        return {}
    saved = checkpoint.get("options", {})
    return {name: saved[name] for name in options_with(TrainOptions, "of_command") if name in saved}


def run_folder(options: TrainOptions) -> Path:
    """The folder of the resumed run, or a new one; a run resumed in another folder is copied there first."""
    resumed = Path(options.weights).parent if options.resume_training else None
    if options.project_dir:
        requested = Path(options.project_dir)
    else:
        requested = TRAINING / options.name if options.name else resumed
    if resumed is not None and requested.resolve() == resumed.resolve():
        return resumed
    if requested is None:
        folder = numbered_folder(TRAINING)
    elif options.project_dir:
        folder = given_folder(requested, LAST)
    else:
        folder = named_folder(TRAINING, options.name)
        if folder != requested:
            log.info("%s holds an earlier run: this one goes to %s", requested, folder)
    if resumed is not None:
        _copy_run(resumed, folder)
    return folder


def _copy_run(old: Path, new: Path) -> None:
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
    """Restore trained weights, optimizer, scaler and random generators, and return the state of the run.

    Args:
        model: has the checkpoint's model_state_dict; if that is a moving average, the trained weights replace it.

    Raises:
        UserError: the run had another optimizer or other trained parameters, or its state is damaged.
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
        if len(rng) == processes.world_size:  # otherwise the processes keep their new seeds
            set_rng_state(rng[processes.rank])
        return TrainingState.from_checkpoint(checkpoint)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the run's state is damaged, or does not fit its model ({error}): start a new run from these weights, "
            "without --resume-training"
        ) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load the optimizer's state; settings of a group that options and device decide stay as they are."""
    groups, saved_groups = optimizer.param_groups, saved["param_groups"]
    sizes, saved_sizes = ([len(group["params"]) for group in of] for of in (groups, saved_groups))
    if sizes != saved_sizes and sum(sizes) == sum(saved_sizes):
        raise UserError(
            f"the run to resume has its parameters in {len(saved_sizes)} group(s), and --decay-all, --weight-decay and "
            f"--layer-decay make {len(sizes)}: drop these flags, or start a new run, without --resume-training"
        )
    mixed = [
        {**theirs, **{name: ours[name] for name in _GROUP_SETTINGS if name in ours}}
        for ours, theirs in zip(groups, saved_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": mixed})


def recipe_of_older_run(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run that is older than their flags or defaults, read from its optimizer's state.

    Such a run decayed all parameters. A file of the predecessor does not store its learning rate either.
    """
    options = checkpoint.get("options", {})
    if "decay_all" in options:
        return {}
    groups = checkpoint["optimizer_state_dict"].get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups and isinstance(groups[0], Mapping) else {}
    recipe = {"decay_all": True, "weight_decay": first.get("weight_decay")}
    return recipe if "lr" in options else {**recipe, "lr": first.get("initial_lr", first.get("lr"))}
