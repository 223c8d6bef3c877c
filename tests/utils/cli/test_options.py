"""The predecessor's flags, their meanings and defaults."""

import pytest

from utils.cli.flags import parse_options
from utils.cli.options import EvalOptions, InferenceOptions, VideoOptions
from utils.cli.train_options import TrainOptions

TRAIN = {  # option: (flags, value to type or None for a switch, default)
    "model": (("-m", "--model"), "x", "fasterrcnn_resnet50_fpn_v2"),
    "data": (("--data",), "x.yaml", None),
    "epochs": (("-e", "--epochs"), "7", 5),
    "workers": (("-j", "--workers"), "2", 4),
    "batch": (("-b", "--batch"), "2", 4),
    "lr": (("--lr",), "0.5", None),  # 0.001 in the predecessor; 0.005 for SGD trains better
    "imgsz": (("-ims", "--imgsz"), "320", 640),
    "name": (("-n", "--name"), "x", None),
    "vis_transformed": (("-vt", "--vis-transformed"), None, False),
    "mosaic": (("--mosaic",), "0.5", None),
    "use_train_aug": (("-uta", "--use-train-aug"), None, None),
    "cosine_annealing": (("-ca", "--cosine-annealing"), None, False),
    "weights": (("-w", "--weights"), "x.pth", None),
    "resume_training": (("-r", "--resume-training"), None, False),
    "square_training": (("-st", "--square-training"), None, False),
    "world_size": (("--world-size",), "2", 1),
    "dist_url": (("--dist-url",), "x", "env://"),
    "disable_wandb": (("-dw", "--disable-wandb"), None, False),
    "sync_bn": (("--sync-bn",), None, False),
    "amp": (("--amp",), None, False),
    "patience": (("--patience",), "3", 10),
    "seed": (("--seed",), "3", 0),
    "project_dir": (("--project-dir",), "x", None),
    "label_type": (("--label-type",), "yolo", "pascal_voc"),
    "optimizer": (("--optimizer",), "AdamW", "SGD"),
    "device": (("-d", "--device"), "cpu", None),
}
EVAL = {
    "data": (("--data",), "x.yaml", "data_configs/test_image_config.yaml"),
    "model": (("-m", "--model"), "x", None),
    "weights": (("-mw", "--weights", "-w"), "x.pth", None),
    "imgsz": (("-ims", "--imgsz"), "320", None),
    "workers": (("-j", "--workers"), "2", 4),
    "batch": (("-b", "--batch"), "2", None),
    "device": (("-d", "--device"), "cpu", None),
    "verbose": (("-v", "--verbose"), None, False),
    "square_training": (("-st", "--square-training"), None, False),
}
INFERENCE = {
    "input": (("-i", "--input"), "x", None),
    "output": (("-o", "--output"), "x", None),
    "data": (("--data",), "x", None),
    "model": (("-m", "--model"), "x", None),
    "weights": (("-w", "--weights"), "x", None),
    "threshold": (("-th", "--threshold"), "0.9", 0.3),
    "show": (("-si", "--show"), None, False),
    "mpl_show": (("-mpl", "--mpl-show"), None, False),
    "device": (("-d", "--device"), "cpu", None),
    "imgsz": (("-ims", "--imgsz"), "320", None),
    "no_labels": (("-nlb", "--no-labels"), None, False),
    "square_img": (("--square-img",), None, False),
    "classes": (("--classes",), "3", None),
    "track": (("--track",), None, False),
    "log_json": (("--log-json",), None, False),
    "table": (("-t", "--table"), None, False),
}
CASES = [
    (options_class, name, flags, value, default)
    for options_class, table in (
        (TrainOptions, TRAIN),
        (EvalOptions, EVAL),
        (InferenceOptions, INFERENCE),
        (VideoOptions, {name: row for name, row in INFERENCE.items() if name != "table"}),
    )
    for name, (flags, value, default) in table.items()
]


@pytest.mark.parametrize(("options_class", "name", "flags", "value", "default"), CASES)
def test_predecessors_flags_are_accepted(options_class, name, flags, value, default) -> None:
    assert getattr(parse_options(options_class, "", []), name) == default
    for flag in flags:
        options = parse_options(options_class, "", [flag] if value is None else [flag, value])
        assert getattr(options, name) != default
        assert options.given == {name}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_trackers_are_off_unless_asked_for(name: str) -> None:
    assert not getattr(parse_options(TrainOptions, "", []), name)
    assert getattr(parse_options(TrainOptions, "", [f"--{name}"]), name)


def test_a_threshold_is_a_number_or_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(InferenceOptions, "", ["--threshold", "best"]).threshold == "best"
    assert parse_options(InferenceOptions, "", ["--threshold", "1"]).threshold == 1.0
    for wrong in ("1.5", "Best", "nan"):
        with pytest.raises(SystemExit, match="2"):
            parse_options(InferenceOptions, "", ["--threshold", wrong])
        assert f"'{wrong}' is not a number from 0 to 1, or best" in capsys.readouterr().err
