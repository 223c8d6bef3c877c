"""Folders of training runs, written without a training, and objects of the class Run."""

from pathlib import Path

import torch
from torch import nn

from torch_utils.distributed import Processes
from torch_utils.runs.background_writer import BackgroundWriter
from torch_utils.runs.interruption import SaveOrStop
from torch_utils.runs.run import Run
from torch_utils.training.non_finite import NonFiniteGuard
from torch_utils.training.optimization import Schedule, make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.training_state import TrainingState
from torch_utils.training.update import Updater

HEAD = "epoch,map,map_05,train loss,train cls loss,train box reg loss,train obj loss,train rpn loss\n"


def write_run(
    folder: Path, rows: str = "1,0.1,0.2,2,1,0.5,0.3,0.2\n2,0.3,0.4,1,0.5,0.2,0.2,0.1\n", **files: str
) -> Path:
    """A run's folder; files by name with _ for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.csv").write_text(HEAD + rows)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


ROW = {
    "map": 0.1, "map_05": 0.3, "train_loss": 2.0, "loss_classifier": 0.5, "loss_box_reg": 0.5, "loss_objectness": 0.5,
    "loss_rpn_box_reg": 0.5,
}  # fmt: skip

CPU = torch.device("cpu")
ABOUT = {"model_name": "m", "data": {"CLASSES": ["__background__", "x"]}, "options": {}}


def make_run(folder: Path, precision: Precision | None = None, **options) -> Run:
    model = nn.Linear(2, 2)
    updater = Updater(
        model, make_optimizer(model, "SGD", 0.1, **options), Schedule(0.1, 3, 2), precision or Precision(CPU),
        Processes(CPU),
    )  # fmt: skip
    alone = Processes(CPU)
    writer = BackgroundWriter()
    updater.pre_step_hook = writer.wait_until_copied
    guard, save_or_stop = NonFiniteGuard(None, alone, 10, ""), SaveOrStop(alone, 15)
    return Run(folder, updater, TrainingState(), writer, metadata=ABOUT, guard=guard, save_or_stop=save_or_stop)
