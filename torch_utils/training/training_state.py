"""State of a run besides model, optimizer and random generators: epochs, history, progress of the current epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

LOSS_TERMS = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
TRAIN_LOSS = "train_loss"
_PROGRESS_KEYS = {"images": "images", "losses": "losses", "left_out": "skipped"}  # key in checkpoints -> attribute


@dataclass(frozen=True)
class EpochProgress:
    """Progress of an epoch: images and losses of the updates so far."""

    images: int = 0  # that were shown, by all processes
    losses: Tensor = field(default_factory=lambda: torch.empty(0, len(LOSS_TERMS)))  # (steps, 4) float32, on the CPU
    skipped: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))  # (steps,) losses not finite

    def __post_init__(self) -> None:
        if type(self.images) is not int or not 0 <= self.images < 1 << 53:
            raise ValueError(f"an epoch of {self.images!r} images")
        forms = (self.losses, torch.float32, (len(LOSS_TERMS),)), (self.skipped, torch.bool, ())
        if any(type(t) is not Tensor or t.dtype != dtype or t.shape != (len(t), *rest) for t, dtype, rest in forms):
            raise ValueError("an epoch whose losses are of another form")
        if len(self.losses) != len(self.skipped):
            raise ValueError(f"an epoch of {len(self.losses)} and {len(self.skipped)} steps")

    @property
    def counted(self) -> Tensor:
        """(N, 4) losses of the steps that were not skipped."""
        return self.losses[~self.skipped]

    def joined(self, images: int, losses: Tensor, skipped: Tensor) -> "EpochProgress":
        """With further images and steps."""
        joined = torch.cat([self.losses, losses]), torch.cat([self.skipped, skipped])
        return EpochProgress(self.images + images, *joined)


@dataclass(frozen=True)
class TrainingState:
    """After `epoch` whole epochs, and perhaps a part of the next."""

    epoch: int = 0
    best_map: float = float("-inf")
    epochs_without_improvement: int = 0
    history: tuple[Mapping[str, float], ...] = ()  # a row an epoch, see docs/checkpoints.md
    iteration_losses: Tensor = field(
        default_factory=lambda: torch.empty(0)
    )  # (steps,) float32, total loss of every step of the whole epochs
    progress: EpochProgress = field(default_factory=EpochProgress)

    def after(
        self,
        losses: Tensor,
        ap: float,
        ap50: float,
        *,
        val_losses: Mapping[str, float] | None = None,
        train_maps: tuple[float, float] | None = None,
        kept: bool = True,
    ) -> "TrainingState":
        """The state one epoch on.

        Args:
            losses: (steps, 4) LOSS_TERMS of every step.
            ap, ap50: validation mAP; NaN or -1 (nothing to measure) counts as no improvement, but for the first time.
            val_losses: LOSS_TERMS of the validation images.
            train_maps: mAP and mAP at IoU 0.50 of the sample of training images.
            kept: False for an epoch that is not saved, since its last updates were skipped: it is no improvement.
        """
        means = losses.double().mean(0)
        row = {
            "map": ap,
            "map_05": ap50,
            TRAIN_LOSS: float(means.sum()),
            **dict(zip(LOSS_TERMS, means.tolist(), strict=True)),
        }
        if val_losses is not None:
            row["val_loss"] = sum(val_losses.values())
            row |= {f"val_{name}": value for name, value in val_losses.items()}
        if train_maps is not None:
            row["train_map"], row["train_map_05"] = train_maps
        improved = kept and (ap > self.best_map or not self.history)
        return TrainingState(
            epoch=self.epoch + 1,
            best_map=ap if improved and ap == ap else self.best_map,
            epochs_without_improvement=0 if improved else self.epochs_without_improvement + 1,
            history=(*self.history, row),
            iteration_losses=torch.cat([self.iteration_losses, losses.sum(1)]),
        )

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.epoch > 0 and self.epochs_without_improvement == 0

    def as_checkpoint(self) -> dict[str, Any]:
        """Under the predecessor's keys where it had some."""
        return {
            "epoch": self.epoch,
            "best_map": self.best_map,
            "epochs_without_improvement": self.epochs_without_improvement,
            "history": [dict(row) for row in self.history],
            "train_loss_list": self.iteration_losses,
            "train_loss_list_epoch": [row[TRAIN_LOSS] for row in self.history],
            "val_map": [row["map"] for row in self.history],
            "val_map_05": [row["map_05"] for row in self.history],
            "epoch_under_way": {key: getattr(self.progress, name) for key, name in _PROGRESS_KEYS.items()},
        }

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any]) -> "TrainingState":
        """Of a last_model.pth, ours or the predecessor's, which knew less."""
        history = checkpoint.get("history")
        if history is None:
            keys = (("val_map", "map"), ("val_map_05", "map_05"), ("train_loss_list_epoch", TRAIN_LOSS))
            columns = {ours: checkpoint.get(theirs, []) for theirs, ours in keys}
            epochs = max(map(len, columns.values()))
            history = [{k: float(c[i]) for k, c in columns.items() if i < len(c)} for i in range(epochs)]
        maps = [row["map"] for row in history if row.get("map") == row.get("map") is not None]
        state = cls(
            epoch=int(checkpoint["epoch"]),
            history=tuple(history),
            iteration_losses=torch.as_tensor(checkpoint.get("train_loss_list", []), dtype=torch.float32),
            progress=EpochProgress(
                **{_PROGRESS_KEYS[key]: value for key, value in checkpoint.get("epoch_under_way", {}).items()}
            ),
        )
        return replace(
            state,
            best_map=checkpoint.get("best_map", max(maps, default=state.best_map)),
            epochs_without_improvement=checkpoint.get("epochs_without_improvement", 0),
        )
