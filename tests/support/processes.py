"""Code that runs in two processes."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import HANG, ROOT, script_server

_START = """
import torch
from torch_utils.distributed import Processes, all_gather, broadcast_from_main, cleanup, from_first_of_machine
from torch_utils.distributed import join_processes, share_buffers
from utils.errors import UserError

processes = join_processes("cpu", "env://", 1)
"""


def run_two(folder: Path, code: str, *, torchrun: bool = False) -> subprocess.CompletedProcess[str]:
    """Run code in two processes that have joined over gloo as `processes`.

    Args:
        torchrun: start them by PyTorch's launcher, which takes seconds, and not by the script server.
    """
    script = folder / "two.py"
    script.write_text(_START + code)
    if not torchrun:
        return run_ranks(folder, script)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip


def run_ranks(folder: Path, script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes with the variables of torchrun; their output is one text."""
    with tempfile.TemporaryDirectory() as place:
        printed = Path(place) / "stdout", Path(place) / "stderr"
        code, _ = script_server().run(folder, (script, *arguments), printed, ranks=2)
        return subprocess.CompletedProcess([script, *arguments], code, *(path.read_text() for path in printed))
