"""Runs scripts of the project in children of a process that has imported what they import, which takes seconds.

Reads a JSON object a line: `command`, the script and its arguments; `folder` to run in; `environment`; `printed`, the
files for stdout and stderr; `kill_after` seconds, or null; `timeout`. Answers with the child's exit code, negative for
a signal, and how long it took. A child does what the script does, to the end of its interpreter.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

IMPORTED = (
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "datasets",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "models.fasterrcnn_mini_darknet_nano_head",
    "models.fasterrcnn_nano",
    "models.building.saved",
    "torch.utils.tensorboard",
    "torch_utils.training.batch_size",
    "torch_utils.engine",
    "torch_utils.runs.epoch_report",
    "torch_utils.training.network",
    "torch_utils.predict",
    "torch_utils.runs.resume",
    "torch_utils.runs.run",
    "torch_utils.evaluation.tta",
    "torch_utils.runs.validation",
    "utils.augment.numba_loops",
    "utils.data_tools.check",
    "utils.data_tools.report",
    "utils.data_tools.demo",
    "utils.inference.image_inference",
    "utils.visualize.pictures",
    "utils.visualize.plots",
    "utils.slicing.sliced_detector",
    "utils.video.video_inference",
)
sys.path[0] = str(Path(__file__).resolve().parents[2])
for module in IMPORTED:
    importlib.import_module(module)
gc.freeze()  # else each child's garbage collector goes through all of it, and copies the pages: four seconds of six
triton = sys.modules.get("triton._C.libtriton")
if triton and type(triton.ir.location).__module__ == "nanobind":  # which says on stderr that what is frozen leaks
    atexit.register(gc.unfreeze)  # 1.5 seconds


def become(request: dict) -> None:
    """The script of a request, in this process."""
    for number, path in enumerate(request["printed"], 1):
        with open(path, "ab", buffering=0) as file:
            os.dup2(file.fileno(), number)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.alarm(request["timeout"])
    script, *sys.argv[1:] = request["command"]
    runpy.run_path(script, run_name="__main__")


for line in sys.stdin:
    wished = json.loads(line)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        become(wished)
        break
    if wished["kill_after"] is not None:
        time.sleep(wished["kill_after"])
        os.kill(pid, signal.SIGKILL)  # of one that has ended too: nobody has waited for it yet
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([status, time.monotonic() - started]), flush=True)
