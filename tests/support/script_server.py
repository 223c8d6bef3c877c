"""Runs scripts of the project in children of a process that has imported what they import, which takes seconds.

Reads a JSON object a line: `command`, the script and its arguments; `folder` to run in; `environment`; `printed`, the
files for stdout and stderr; `timeout` in s; `kill_after` in s, or null; `kill_when`, a file and the text in it at which
the child is killed, or null; `ranks`, the number of children, which get torchrun's variables where there are several;
`stdin`, a file, or null; `draw`, whether matplotlib draws its figures: two thirds of the time of a short training.
Answers with the exit code, negative for a signal and of several children the first that is not 0, and the seconds.
A child does what the script does, to the end of its interpreter.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure
from PIL import Image

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


def save_blank(figure: Figure, file: BinaryIO, **options: object) -> None:
    """Stand in for Figure.savefig: a PNG file of one pixel."""
    del figure, options
    Image.new("RGB", (1, 1)).save(file, "png")


def become(request: dict) -> None:
    """Run the script of a request, in this process."""
    if not request["draw"]:
        Figure.savefig = save_blank
    for number, path in enumerate(request["printed"], 1):
        with open(path, "ab", buffering=0) as file:
            os.dup2(file.fileno(), number)
    with open(request["stdin"] or os.devnull) as file:
        os.dup2(file.fileno(), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.alarm(request["timeout"])
    script, *sys.argv[1:] = request["command"]
    runpy.run_path(script, run_name="__main__")


def start(request: dict, environment: dict[str, str]) -> int:
    """Start a child; its process id, and 0 in the child itself, which has then become the script."""
    pid = os.fork()
    if pid == 0:
        become({**request, "environment": {**request["environment"], **environment}})
    return pid


def environments(ranks: int) -> list[dict[str, str]]:
    """Variables as torchrun sets them, for each of several processes."""
    if ranks == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{k: str(v) for k, v in {**common, "RANK": r, "LOCAL_RANK": r}.items()} for r in range(ranks)]


def kill(pid: int, request: dict) -> None:
    """Kill a child when the request says; nobody has waited yet for one that has ended before."""
    if request["kill_after"] is not None:
        time.sleep(request["kill_after"])
        os.kill(pid, signal.SIGKILL)
    if request["kill_when"] is not None:
        file, text = request["kill_when"]
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if os.path.isfile(file) and text in Path(file).read_text():
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.01)


for line in sys.stdin:
    request = json.loads(line)
    started = time.monotonic()
    pids = []
    for environment in environments(request["ranks"]):
        pids.append(start(request, environment))
        if pids[-1] == 0:
            break
    if pids[-1] == 0:
        break
    kill(pids[0], request)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps([next(filter(None, codes), 0), time.monotonic() - started]), flush=True)
