"""Runs train.py in children of a process that has imported everything, so that a start takes no seconds.

Reads a JSON list a line: a time after which the child is killed, in seconds, or null; the file for what it prints; and
the arguments of train.py. Answers with the child's exit code, negative for a signal, and how long it took.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch.utils.tensorboard  # noqa: F401

import datasets  # noqa: F401
import models.builder
import models.create_fasterrcnn_model
import models.fasterrcnn_nano  # noqa: F401
import torch_utils.engine
import torch_utils.network
import torch_utils.resume
import torch_utils.run  # noqa: F401
import train
import utils.pictures
import utils.plots  # noqa: F401
from utils.script import run_script
from utils.train_options import TrainOptions


def child(output: str, arguments: list[str]) -> None:
    with open(output, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["train.py", *arguments]
    code = 1
    try:
        run_script(train.main, TrainOptions, "")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - what no one catches; os._exit would not show it
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


for line in sys.stdin:
    kill_after, output, arguments = json.loads(line)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(output, arguments)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)  # of one that has ended too: nobody has waited for it yet
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([status, time.monotonic() - started]), flush=True)
