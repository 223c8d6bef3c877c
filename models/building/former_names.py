"""Former module paths and names, for users' backbone files that import them.

Version 0.1 had all modules directly in models/. The registry calls `install` before it imports a model file; an
alias is made only when a file imports a former path, and a warning names the new one.
"""

import importlib
import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

# Former module -> today's module, and former name in it -> today's name, as name or module:name.
FORMER_MODULES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "models.build_options": ("models.building.build_options", {"start": "default_options"}),
    "models.builder": (
        "models.building.builder",
        {
            "FPN_CHANNELS": "models.building.backbone_spec:FPN_CHANNELS",
            "with_fpn": "models.backbones.fpn:with_fpn",
        },
    ),
    "models.norms": ("models.building.norms", {}),
    "models.pretrained": ("models.building.pretrained", {}),
    "models.saved": ("models.building.saved", {}),
    "models.errors": ("models.rcnn.errors", {}),
    "models.onnx_graph": ("models.rcnn.onnx_graph", {}),
    "models.rcnn.blocks": (
        "models.rcnn.structures",
        {"Truth": "GroundTruth", "Regions": "PaddedBoxes", "places_of": "gt_slots"},
    ),
    "models.rcnn.stock": (
        "models.rcnn.reference",
        {"StockFasterRCNN": "ReferenceFasterRCNN", "stock_pool": "reference_pool"},
    ),
    "models.pyramid": ("models.backbones.fpn", {}),
    "models.any_fpn": ("models.backbones.measured_fpn", {"normalisation": "normalization"}),
    "models.resnet": ("models.backbones.torchvision_nets", {"LAYERS": "RESNET_LAYERS", "STAGES": "RESNET_STAGES"}),
    "models.convnext": ("models.backbones.torchvision_nets", {"STAGES": "CONVNEXT_STAGES"}),
    "models.efficientnet": (
        "models.backbones.torchvision_nets",
        {"MAPS": "EFFICIENTNET_MAPS", "STAGES": "EFFICIENTNET_STAGES"},
    ),
    "models.regnet": ("models.backbones.torchvision_nets", {}),
    "models.mobilevit": (
        "models.backbones.mobilevit",
        {"load_published": "load_cvnets", "take_normalised_rgb": "take_normalized_rgb"},
    ),
    **{
        f"models.{name}": (f"models.backbones.{name}", {})
        for name in (
            "custom_resnet", "darknet", "dinov3", "dinov3_detector", "mini_squeezenet", "mobilenetv3_fpn",
            "simple_feature_pyramid", "timm_fpn", "torchvision_fpn", "vit", "vitdet",
        )
    },
}  # fmt: skip
log = logging.getLogger(__name__)


def install() -> None:
    """Let former module paths be imported; once per process."""
    if not any(isinstance(finder, _FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(_FormerModules())  # last: asked only for modules that do not exist


class _FormerModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See MetaPathFinder."""
        del path, target
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in FORMER_MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill an alias; its attributes are looked up when they are used."""
        former = module.__name__
        today, names = FORMER_MODULES[former]
        log.warning("%s is now %s: change the import in your backbone file", former, today)
        importlib.import_module(today)

        def __getattr__(name: str) -> Any:
            owner, _, current = names.get(name, name).rpartition(":")
            return getattr(importlib.import_module(owner or today), current)

        module.__getattr__ = __getattr__
