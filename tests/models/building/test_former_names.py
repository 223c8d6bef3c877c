"""Backbone files of users in the forms of earlier versions."""

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from models.building.former_names import FORMER_MODULES
from tests.conftest import ROOT

FORMER_FORM = '''"""Faster R-CNN on a small ResNet, in the form of version 1.

Paper: none.
Weights: none, random.
"""

from typing import Any

from torchvision.models import resnet18

from models.build_options import BuildOptions, start
from models.builder import FPN_CHANNELS, BackboneSpec, build_fasterrcnn, with_fpn
from models.errors import ModelError
from models.norms import published_norm
from models.pretrained import load_published, load_state, read_state, weights_file
from models.pyramid import pyramid_spec
from models.rcnn.detector import FasterRCNN
from models.rcnn.layers import LinearHead
from models.rcnn.roi_pool import SIDE
from models.resnet import LAYERS, STAGES, resnet_with_fpn
from models import vit

SPEC = pyramid_spec(STAGES, frozen_stages=2)


def create_model(
    num_classes: int, pretrained: bool = True, options: BuildOptions | None = None, **detector_options: Any
) -> FasterRCNN:
    """See build_fasterrcnn."""
    return build_fasterrcnn(resnet_with_fpn(resnet18()), SPEC, num_classes, options or start(pretrained),
                            **detector_options)
'''
PREDECESSORS_FORM = '''"""Faster R-CNN of torchvision on a Sequential."""

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign


def create_model(num_classes, pretrained=True, coco_model=False):
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
    backbone.out_channels = 8
    anchors = AnchorGenerator(((32, 64),), ((1.0,),))
    model = FasterRCNN(
        backbone, num_classes, rpn_anchor_generator=anchors, box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2)
    )
    return (model, coco_model) if coco_model else model
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, with files of a user among them."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "models").mkdir()
    for path in (ROOT / "models").iterdir():
        if path.name != "__pycache__" and not path.name.startswith("fasterrcnn_dinov3"):
            (folder / "models" / path.name).symlink_to(path)
    (folder / "models" / "fasterrcnn_mine.py").write_text(FORMER_FORM)
    (folder / "models" / "fasterrcnn_theirs.py").write_text(PREDECESSORS_FORM)
    (folder / "models" / "fasterrcnn_empty.py").write_text('"""Nothing."""\n')
    return folder


def run(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code in the project, whose registry lists the user's files."""
    head = (
        "import logging, pathlib; logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "import models.create_fasterrcnn_model as registry\n"
        "from models.create_fasterrcnn_model import create_from_checkpoint, create_model\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], cwd=folder, capture_output=True, text=True)


def test_a_file_of_version_1_builds_trains_and_opens(project: Path) -> None:
    """Its old module paths resolve, each with one warning; the result is that of the same model in today's form."""
    code = (
        "import torch\n"
        "options = __import__('models.building.build_options').building.build_options.BuildOptions(head_width=32)\n"
        "states = []\n"
        "for name in ('fasterrcnn_mine', 'fasterrcnn_resnet18_fpn'):\n"
        "    torch.manual_seed(0)\n"
        "    model = create_model[name](3, pretrained=False, options=options, min_size=96)\n"
        "    states.append(model.state_dict())\n"
        "assert list(states[0]) == list(states[1])\n"
        "assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])\n"
        "opened = create_from_checkpoint({'model_name': 'fasterrcnn_mine', 'model_state_dict': states[0],\n"
        "                                 'model_options': options.as_dict()})\n"
        "assert all(torch.equal(states[0][key], value) for key, value in opened.state_dict().items())\n"
    )
    done = run(project, code)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.strip().splitlines()
    for former, today in (("builder", "building.builder"), ("resnet", "backbones.torchvision_nets")):
        message = f"models.{former} is now models.{today}: change the import in your backbone file"
        assert f"WARNING {message}" in warnings
    assert len(warnings) == 8


@pytest.mark.full
def test_a_file_of_the_predecessor_gives_its_detector_and_cannot_be_trained(project: Path) -> None:
    code = (
        "from torchvision.models.detection import FasterRCNN\n"
        "model = create_model['fasterrcnn_theirs'](3, pretrained=False)\n"
        "assert type(model) is FasterRCNN\n"
        "from models.building.build_options import BuildOptions\n"
        "create_model['fasterrcnn_theirs'](3, pretrained=False, options=BuildOptions())\n"
    )
    done = run(project, code)
    assert done.stderr.strip().splitlines()[-1] == (
        "models.rcnn.errors.ModelError: create_model of models/fasterrcnn_theirs.py takes no options, so it cannot be "
        "trained or opened here: give the file SPEC and backbone() instead, see docs/custom_backbone.md"
    )


@pytest.mark.full
def test_a_file_of_neither_form_is_refused(project: Path) -> None:
    done = run(project, "create_model['fasterrcnn_empty']")
    assert done.stderr.strip().splitlines()[-1] == (
        "models.rcnn.errors.ModelError: models/fasterrcnn_empty.py lacks SPEC or backbone(): "
        "see docs/custom_backbone.md"
    )


@pytest.mark.full
def test_former_paths_are_no_modules_until_a_file_asks(project: Path) -> None:
    code = (
        "import sys\n"
        "create_model['fasterrcnn_nano'](3, pretrained=False)\n"
        "assert not [name for name in sys.modules if name in registry._import('models.building.former_names')."
        "FORMER_MODULES]\n"
    )
    done = run(project, code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("former", FORMER_MODULES)
def test_every_former_module_and_name_exists(former: str) -> None:
    today, names = FORMER_MODULES[former]
    assert not (ROOT / f"{former.replace('.', '/')}.py").exists()
    importlib.import_module(today)
    for name in names.values():
        owner, _, current = name.rpartition(":")
        assert hasattr(importlib.import_module(owner or today), current)


def test_the_alias_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    from models.building import former_names

    former_names.install()
    former_names.install()
    assert sum(type(finder).__name__ == "_FormerModules" for finder in sys.meta_path) == 1
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            importlib.import_module("models.errors")
    assert len(caplog.records) <= 1
