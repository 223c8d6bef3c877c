"""The loops, where scripts do not show them."""

from pathlib import Path

from tests.conftest import write_data_set
from tests.torch_utils.test_distributed import run_two


def test_every_process_evaluates_the_network_that_is_saved(tmp_path: Path) -> None:
    """Each process has batch norm statistics of its own after a step; only the main one's are saved."""
    data = write_data_set(tmp_path, images=1, size=(32, 32), splits=("train", "valid"))
    done = run_two(
        tmp_path,
        "from pathlib import Path\n"
        "from torch_utils.engine import evaluate\n"
        "from torch_utils.precision import Precision\n"
        "from utils.data_config import load_data_config\n"
        "from utils.label_index import open_index\n"
        f"index = open_index(load_data_config(Path({str(data.yaml)!r})), 'valid', 'pascal_voc')\n"
        "norm = torch.nn.BatchNorm1d(2)\n"
        "norm.running_var += processes.rank\n"
        "try:\n"
        "    evaluate(norm, [], index, precision=Precision(torch.device('cpu')), processes=processes)\n"
        "except UserError as error:\n"
        "    assert str(error).endswith('none of the 1 images can be decoded')\n"
        "assert norm.running_var.tolist() == [1, 1]\n"
        "leave_processes()\n",
    )
    assert done.returncode == 0, done.stderr
