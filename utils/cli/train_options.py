"""The flags of train.py."""

from dataclasses import dataclass
from typing import Any

from utils.cli.checks import check_data_yaml, check_weights
from utils.cli.flags import (
    Fraction,
    NaturalInt,
    Options,
    PositiveFloat,
    PositiveInt,
    PositiveIntOrAuto,
    Share,
    flag,
    options_with,
    switch,
)
from utils.cli.options import LABEL_TYPES, LabelOptions, LoaderOptions, SliceGridOptions, refuse_without
from utils.errors import UserError

AUG_POLICIES = ("none", "default", "light", "strong")  # those of utils/augment/policy.py, as a test checks
CACHES = ("auto", "ram", "disk", "off")
NORMS = ("own", "frozen", "batch", "group")
DETECTORS = ("fast", "torchvision")
ANCHORS = ("default", "auto")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_LEARNING_RATES = {"SGD": 0.005, "AdamW": 0.001}
SCHEDULES = ("constant", "cosine", "step", "one-cycle")


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """cache"""

    cache: str = flag(
        "--cache",
        default="auto",
        choices=CACHES,
        help="keep resized images: in memory where they fit into a quarter of what is free, and if not, those that "
        "mosaics need (auto); in memory; on disk",
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(LabelOptions):
    """data and model"""

    data: str | None = flag("--data", metavar="YAML", help="the data set's YAML file", of_command=True)
    label_type: str = flag(
        "--label-type",
        default="pascal_voc",
        choices=LABEL_TYPES,
        help="one XML file per image, one YOLO txt file per image, or one COCO json for all",
    )
    model: str = flag(
        "-m",
        "--model",
        default="fasterrcnn_resnet50_fpn_v2",
        metavar="NAME",
        help="docs/models.md lists the names; timm/NAME and torchvision/NAME for any other backbone",
    )
    weights: str | None = flag(
        "-w",
        "--weights",
        metavar="PTH",
        help="checkpoint to start from, or with --resume-training to go on with",
        of_command=True,
    )
    pretrained: bool = switch(
        "--no-pretrained", default=True, help="start from random weights instead of published ones (no download)"
    )
    imgsz: PositiveInt = flag(
        "-ims",
        "--imgsz",
        default=640,
        metavar="S",
        help="the shorter image side becomes S pixels, the longer at most 1333, or S if that is more",
    )
    square_training: bool = switch("-st", "--square-training", help="resize to S x S, whatever the aspect ratio")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Options):
    """recipe"""

    epochs: PositiveInt = flag("-e", "--epochs", default=5, metavar="N", help="passes over the training images")
    batch: PositiveIntOrAuto = flag(
        "-b",
        "--batch",
        default=4,
        metavar="N",
        help="images per step and process; auto: what fits into the GPU's memory",
    )
    accumulate: PositiveInt = flag(
        "--accumulate", default=1, metavar="N", help="batches that make one update: trains as with N times the batch"
    )
    lr: PositiveFloat | None = flag(
        "--lr", metavar="LR", help="learning rate after warm-up; without it 0.005 for SGD, 0.001 for AdamW"
    )
    scale_lr: bool = switch(
        "--scale-lr", help="multiply --lr by the images of an update, of all processes, over 4, and print it"
    )
    optimizer: str = flag(
        "--optimizer", default="SGD", choices=("SGD", "AdamW"), help="SGD has Nesterov momentum of 0.9"
    )
    weight_decay: Fraction | None = flag(
        "--weight-decay", metavar="W", help="of all but norms and biases; without it 0.0001 for SGD, 0.01 for AdamW"
    )
    decay_all: bool = switch("--decay-all", help="decay norms and biases too")
    clip_grad: PositiveFloat | None = flag(
        "--clip-grad", metavar="NORM", help="shorten the gradient to this norm where it is longer"
    )
    schedule: str | None = flag(
        "--schedule",
        choices=SCHEDULES,
        help="of the learning rate; cosine ends at 1/100, step is a tenth after each milestone; without it constant",
        overrides=("cosine_annealing", "milestones"),
    )
    cosine_annealing: bool = switch(
        "-ca", "--cosine-annealing", help="--schedule cosine", overrides=("schedule", "milestones")
    )
    milestones: tuple[PositiveInt, ...] | None = flag(
        "--milestones", metavar="E", help="epochs after which --schedule step falls; without it 2/3 and 8/9 of all"
    )
    ema: bool = switch("--ema", help="evaluate and save a moving average of the weights")
    ema_decay: Fraction = flag(
        "--ema-decay", default=0.9998, metavar="D", help="share of the average that a step leaves as it is"
    )
    class_weights: str = flag(
        "--class-weights",
        default="none",
        choices=("none", "balanced"),
        help="of the box classifier's loss; balanced: each class counts as much as the others",
    )
    focal_loss: PositiveFloat | None = flag(
        "--focal-loss", metavar="GAMMA", help="focal loss for the box classifier, say 2; without it cross entropy"
    )
    repeat_factor: Share | None = flag(
        "--repeat-factor",
        metavar="T",
        help="show images more often that have a class which less than a share T of the images has; say 0.1",
    )
    max_bad_steps: NaturalInt = flag(
        "--max-bad-steps",
        default=10,
        metavar="N",
        help="steps in a row that are left out because the loss is not finite, before the run stops",
    )
    patience: PositiveInt = flag(
        "--patience", default=10, metavar="N", help="stop after N epochs without a better validation mAP"
    )
    train_sample: NaturalInt | None = flag(
        "--train-sample",
        metavar="N",
        help="training images that are measured after every epoch; without it a tenth of them, from 20 to 100; 0: none",
    )
    layer_decay: Share | None = flag(
        "--layer-decay",
        metavar="F",
        help="each stage of the backbone learns F times as fast as the next; without it 0.7 with --unfreeze, else 1",
        fixed_in_run=True,
    )
    seed: NaturalInt = flag("--seed", default=0, help="seed of every random choice")

    def learning_rate(self) -> float:
        """That of --lr, or the optimizer's own: of SGD 0.02 for 16 images, as is the field's custom, so for 4."""
        return self.lr or _LEARNING_RATES[self.optimizer]

    def schedule_kind(self) -> str:
        """One of SCHEDULES.

        Raises:
            UserError: the flags of the schedule contradict each other.
        """
        kind = self.schedule or ("cosine" if self.cosine_annealing else "constant")
        if self.cosine_annealing and kind != "cosine":
            raise UserError(f"--cosine-annealing contradicts --schedule {kind}: drop one of them")
        if self.milestones and kind != "step":
            raise UserError(f"--milestones are for --schedule step, not {kind}: drop them, or add --schedule step")
        return kind


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """network; checkpoints remember it"""

    freeze: NaturalInt | None = flag(
        "--freeze",
        metavar="N",
        help="leave the first N stages of the backbone untrained; without it the model's own",
        builds="freeze",
        fixed_in_run=True,
    )
    unfreeze: bool = switch(
        "--unfreeze", help="train all of the backbone, also where the model freezes it", fixed_in_run=True
    )
    norm: str | None = flag(
        "--norm",
        choices=NORMS,
        help="batch norms of the backbone: as the published model has them (own), frozen, trained, or group norms",
        builds="norm",
        fixed_in_run=True,
    )
    anchors: str = flag(
        "--anchors",
        default="default",
        choices=ANCHORS,
        help="auto: fit sizes and ratios to the training boxes",
        fixed_in_run=True,
    )
    anchor_sizes: tuple[PositiveFloat, ...] | None = flag(
        "--anchor-sizes",
        metavar="PX",
        help="sides of square anchors; without it 32 64 128 256 512",
        builds="anchor_sizes",
        fixed_in_run=True,
    )
    anchor_ratios: tuple[PositiveFloat, ...] | None = flag(
        "--anchor-ratios",
        metavar="R",
        help="height / width of anchors; without it 0.5 1 2",
        builds="aspect_ratios",
        fixed_in_run=True,
    )
    head_width: PositiveInt | None = flag(
        "--head-width", metavar="N", help="outputs of the box head", builds="head_width", fixed_in_run=True
    )
    class_agnostic: bool = switch(
        "--class-agnostic",
        help="one box regression for all classes, not one each (not the flag of merging slices)",
        builds="class_agnostic",
        fixed_in_run=True,
    )
    rois_per_image: PositiveInt | None = flag(
        "--rois-per-image",
        metavar="N",
        help="proposals per image that train the box head; fewer is faster; without it 512",
        builds="rois_per_image",
    )
    proposals: PositiveInt | None = flag(
        "--proposals",
        metavar="N",
        help="proposals per image that the RPN keeps after NMS; without it mostly 2000 in training, 1000 in use",
        builds="proposals",
    )
    rpn_nms: Fraction | None = flag(
        "--rpn-nms", metavar="IOU", help="proposals that overlap more are dropped; without it 0.7", builds="rpn_nms"
    )
    nms: Fraction | None = flag(
        "--nms", metavar="IOU", help="detections of a class that overlap more are dropped; without it 0.5", builds="nms"
    )
    detections: PositiveInt | None = flag(
        "--max-detections", metavar="N", help="detections per image at most; without it 100", builds="detections"
    )
    activation_checkpointing: bool = switch(
        "--activation-checkpointing",
        help="less memory, slower: transformers and timm/ models",
        builds="activation_checkpointing",
    )
    detector: str | None = flag(
        "--detector",
        choices=DETECTORS,
        help="torchvision: compute with torchvision's own code around the same layers, the reference, slower",
        builds="detector",
    )

    def build_arguments(self) -> dict[str, Any]:
        """Arguments of models.building.build_options.BuildOptions that these options set.

        Raises:
            UserError: --freeze and --unfreeze contradict each other.
        """
        if self.unfreeze and self.freeze:
            raise UserError(f"--unfreeze contradicts --freeze {self.freeze}: drop one of them")
        names = options_with(NetworkOptions, "builds")
        values = {name: 0 if name == "freeze" and self.unfreeze else getattr(self, name) for name in names}
        return {
            names[name]: value
            for name, value in values.items()
            if name in self.given or (value is not None and value is not False)
        }


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(Options):
    """augmentation"""

    aug: str = flag(
        "--aug",
        default="default",
        choices=AUG_POLICIES,
        help="what happens to training images, see docs/training.md; the flags below change parts of it",
        overrides=("flip", "mosaic", "multi_scale", "use_train_aug", "aug_config"),
    )
    flip: Fraction | None = flag(
        "--flip", metavar="P", help="probability of a left-right flip; 0 where left and right differ"
    )
    mosaic: Fraction | None = flag("--mosaic", metavar="P", help="probability of a mosaic of four images")
    multi_scale: bool | None = switch("--multi-scale", default=None, help="each sample at 0.75 to 1.25 times its size")
    use_train_aug: bool | None = switch(
        "-uta", "--use-train-aug", default=None, help="blur, gray, brightness and contrast, color jitter, gamma"
    )
    aug_config: str | None = flag(
        "--aug-config", metavar="YAML", help="a list of Albumentations transforms, in the place of --use-train-aug"
    )
    vis_transformed: bool = switch(
        "-vt", "--vis-transformed", help="show the first training samples as the network will see them"
    )


@dataclass(frozen=True, kw_only=True)
class SliceTrainOptions(SliceGridOptions):
    """training on slices"""

    slice_train: bool = switch(
        "--slice-train", help="train on overlapping slices of large images too, for small objects; see docs/slicing.md"
    )
    slice_empty: Fraction = flag(
        "--slice-empty", default=0.1, metavar="F", help="slices without objects, at most this fraction of those with"
    )

    def check(self) -> None:
        """See Options: flags of slices need --slice-train."""
        super().check()
        if not self.slice_train:
            refuse_without("--slice-train", self, SliceTrainOptions, "slices")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """run"""

    name: str | None = flag(
        "-n", "--name", help="results go to outputs/training/NAME, not outputs/training/res_N", of_command=True
    )
    project_dir: str | None = flag("--project-dir", metavar="DIR", help="results go to DIR itself", of_command=True)
    resume_training: bool = switch(
        "-r",
        "--resume-training",
        help="go on with the run of -w .../last_model.pth; its options hold where none is typed",
        of_command=True,
    )
    save_minutes: PositiveFloat | None = flag(
        "--save-minutes", default=15.0, metavar="M", help="save the run in mid-epoch too, every M minutes"
    )
    wandb: bool = switch("--wandb", help="log to Weights & Biases too (needs pip install wandb, wandb login)")
    mlflow: bool = switch(
        "--mlflow", help="log to MLflow too: to MLFLOW_TRACKING_URI, or a folder of the run (needs pip install mlflow)"
    )
    disable_wandb: bool = switch("-dw", "--disable-wandb", help="nothing to do: it is off without --wandb")


@dataclass(frozen=True, kw_only=True)
class DistributedOptions(LoaderOptions):
    """precision and processes"""

    amp: bool = switch(
        "--amp", help="mixed precision: bfloat16, or float16 where the GPU has no bfloat16", overrides=("precision",)
    )
    precision: str | None = flag(
        "--precision",
        choices=PRECISIONS,
        help="number format; tf32 and fp16 for GPUs; without it fp32, with GPUs' own convolutions",
        overrides=("amp",),
    )
    compile: bool = switch("--compile", help="compile the backbone: slow to start, and then faster")
    sync_bn: bool = switch("--sync-bn", help="batch norm over all GPUs of a distributed run")
    world_size: PositiveInt = flag(
        "--world-size", default=1, metavar="N", help="number of processes; torchrun says it by itself"
    )
    dist_url: str = flag("--dist-url", default="env://", metavar="URL", help="where the processes meet")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    CacheOptions,
    DistributedOptions,
    RunOptions,
    SliceTrainOptions,
    AugmentationOptions,
    NetworkOptions,
    RecipeOptions,
    DataOptions,
):
    """Options of train.py."""

    def check(self) -> None:
        """See Options: --data or a run to resume, files that exist, flags that fit together."""
        super().check()
        if self.resume_training and self.weights is None:
            raise UserError("--resume-training needs --weights outputs/training/NAME/last_model.pth")
        if self.data is None and not self.resume_training:
            raise UserError("--data is missing: give a data set's YAML file, such as --data data_configs/demo.yaml")
        check_data_yaml(self.data)
        check_weights(self.weights)
        self.schedule_kind()
        self.build_arguments()
