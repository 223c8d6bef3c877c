"""Measure how long a checkpoint blocks training, written in a thread and in place.

python -m benchmarks.checkpoint --model fasterrcnn_resnet50_fpn
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from models.create_fasterrcnn_model import create_model
from torch_utils.checkpoint import save_checkpoint
from torch_utils.distributed import Processes
from torch_utils.runs.background_writer import BackgroundWriter
from torch_utils.training.optimization import Schedule, make_optimizer
from torch_utils.training.precision import Precision
from torch_utils.training.update import Updater


def main(options: argparse.Namespace) -> None:
    """Time the three files of an epoch."""
    model = create_model[options.model](91, pretrained=False)
    optimizer = make_optimizer(model, "SGD", 0.001)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()  # makes the momenta
    cpu = torch.device("cpu")
    updater = Updater(model, optimizer, Schedule(0.001, 1, 1), Precision(cpu), Processes(cpu))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:

        def files() -> list[tuple[Path, dict]]:
            weights = {"model_state_dict": model.state_dict()}
            last = {**weights, "optimizer_state_dict": optimizer.state_dict()}
            contents = {"best_model.pth": weights, "last_model_state.pth": weights, "last_model.pth": last}
            return [(Path(folder) / name, content) for name, content in contents.items()]

        writer, blocked, copied, steps = BackgroundWriter(), [], [], []
        for _ in range(options.rounds):
            blocked.append(seconds(lambda: writer.write(files(), updater.stable_tensors())))
            started = time.perf_counter()
            writer.wait_until_copied()
            copied.append(time.perf_counter() - started)
            while writer.busy:
                steps.append(seconds(step))
            writer.wait()
        alone = [seconds(step) for _ in range(len(steps))]
        in_place = [seconds(lambda: [save_checkpoint(*file) for file in files()]) for _ in range(options.rounds)]
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / (1 << 20)
        writer.close()
    versions = f"{torch.get_num_threads()} thread(s), torch {torch.__version__}"
    print(f"{options.model}: {size:.0f} MiB in three files; {versions}")
    print(f"the first call waits {1e3 * blocked[0]:.0f} ms, the later ones {1e3 * median(blocked[1:]):.0f} ms (median)")
    print(f"an update may follow after another {1e3 * copied[0]:.0f} ms, later {1e3 * median(copied[1:]):.0f} ms")
    print(f"writing in place: {1e3 * median(in_place):.0f} ms")
    slower = median(steps) / median(alone)
    print(f"a step of Python and tensors takes {slower:.2f} times as long while the thread writes ({len(steps)} steps)")
    print(f"the longest of them: {1e3 * max(steps):.1f} ms, without the thread {1e3 * max(alone):.1f} ms")


def step() -> None:
    """Run some milliseconds of Python and tensor work, like the host's part of a training step."""
    values = torch.ones(64, 64)
    for _ in range(200):
        values = torch.sin(values) + 1
    sum(i for i in range(20_000))


def seconds(function) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fasterrcnn_resnet50_fpn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="folder to write to; default: the system's temporary folder")
    main(parser.parse_args())
