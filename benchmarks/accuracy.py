"""Compare training recipes: run train.py and eval.py for each recipe, model and seed, and print a table.

OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.accuracy --data bccd.yaml --output outputs/accuracy

Finished runs are skipped and stopped ones are resumed, so a table can be made in several sessions.
"""

import argparse
import csv
import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from statistics import mean, stdev

_PREDECESSOR = ("--schedule", "constant", "--no-ema", "--decay-all", "--flip", "0")
RECIPES = {  # name -> flags of train.py; recipes differ in nothing else
    "predecessor": ("--lr", "0.001", *_PREDECESSOR),
    "predecessor-lr": ("--lr", "0.005", *_PREDECESSOR),
    "default": (),
    "stock": ("--detector", "torchvision"),
    "bf16": ("--precision", "bf16"),
    "mosaic": ("--mosaic", "0.5"),
    "colors": ("--use-train-aug",),
    "average": ("--ema",),
    "cosine": ("--ema", "--schedule", "cosine"),
}
_FEW = ("--rois-per-image", "128", "--proposals", "300")
MODELS = {  # name -> network flags, which keep a step on one core well below a second
    "fasterrcnn_mini_darknet_nano_head": _FEW,
    "fasterrcnn_mobilenetv3_large_320_fpn": ("--head-width", "128", *_FEW),
}
_RUN, _TEST, _FLAGS = "last_model.pth", "test/metrics.json", "flags.json"  # in the folder of a run
_KEYS = ("AP IoU=0.50:0.95 area=all maxDets=100", "AP IoU=0.50 area=all maxDets=100")


def main() -> None:
    """Run the missing trainings, and print the table."""
    parser = argparse.ArgumentParser(description="Training recipes against each other, from random weights.")
    parser.add_argument("--data", required=True, help="a data set with Pascal VOC labels and a test split")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), help=f"any model; {', '.join(MODELS)} are made smaller"
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path, help="folder of the runs")
    options = parser.parse_args()
    runs = list(product(options.models, options.recipes, options.seeds))
    for number, (model, recipe, seed) in enumerate(runs, 1):
        folder = options.output / model / recipe / f"seed_{seed}"
        print(f"{number} of {len(runs)}: {folder}", file=sys.stderr, flush=True)
        flags = (
            "--data", options.data, "--model", model, "--no-pretrained", "--epochs", str(options.epochs),
            "--imgsz", str(options.imgsz), "--square-training", "--batch", "4", "--seed", str(seed),
            *MODELS.get(model, ()), *RECIPES[recipe],
        )  # fmt: skip
        run(folder, flags, str(options.workers))
    print("| model | recipe | seeds | valid mAP | valid mAP50 | test mAP | test mAP50 |\n|---|---|---|---|---|---|---|")
    for model, recipe in product(options.models, options.recipes):
        rows = [results(options.output / model / recipe / f"seed_{seed}") for seed in options.seeds]
        cells = (mean_and_spread(column) for column in zip(*rows, strict=True))
        print("|", " | ".join((f"`{model}`", recipe, str(len(rows)), *cells)), "|")


def run(folder: Path, flags: tuple[str, ...], workers: str) -> None:
    """Train with these flags of train.py and test the best epoch, unless done; all results go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / _FLAGS
    if not kept.exists():
        kept.write_text(json.dumps(flags))
    if json.loads(kept.read_text()) != list(flags):
        raise SystemExit(f"{folder} is a run with other flags, see {kept}: choose another --output")
    if (folder / _TEST).exists():
        return
    last, log = folder / _RUN, folder / "output.txt"
    resumed = ("--resume-training", "--weights", str(last), "--epochs", flags[flags.index("--epochs") + 1])
    command = resumed if last.exists() else ("--project-dir", str(folder), *flags)
    call(log, "train.py", *command, "--workers", workers)
    data, best = flags[flags.index("--data") + 1], folder / "best_model.pth"
    call(log, "eval.py", "--data", data, "--weights", str(best), "--split", "test", "--workers", workers,
         "--output", str((folder / _TEST).parent))  # fmt: skip


def call(log: Path, *command: str) -> None:
    """Run a script of the working directory, and append its output to `log`."""
    with log.open("a") as file:
        if subprocess.run([sys.executable, *command], stdout=file, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"{command[0]} failed: see {log}")


def results(folder: Path) -> tuple[float, float, float, float]:
    """Validation mAP and mAP50 of the best epoch, and mAP and mAP50 of the test split."""
    with (folder / "results.csv").open() as file:
        valid = max((float(row["map"]), float(row["map_05"])) for row in csv.DictReader(file))
    stats = json.loads((folder / _TEST).read_text())["stats"]
    return *valid, *(stats[key] for key in _KEYS)


def mean_and_spread(values: tuple[float, ...]) -> str:
    """Mean, and the sample standard deviation of several values."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
