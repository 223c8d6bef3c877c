"""Run the scripts on data sets with every known fault, in every label format."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import full_among
from tests.support.fuzzing.broken_samples import COCO, LABEL_TYPES, OF_TYPE, ROW, broken_folder
from tests.support.training_runs import FAST, run_folder
from utils.data_tools.check import DROPPED, EFFECT_NAMES, KINDS, REPAIRED, STOPS
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index

# A training does not look for files that are neither images that it reads nor labels: only the check names them.
FOR_THE_CHECK = {"other format"}


def unnamed(label_type: str, text: str, effects: tuple[str, ...]) -> set[str]:
    """Samples with a fault of these effects that the text does not mention."""
    words = [word.strip() for word in re.split(r"[\n(,]|: ", text)]
    return {
        name
        for name, sample in OF_TYPE[label_type].items()
        if KINDS.get(sample.kind) in effects
        and not any(map(sample.owns, words))
        and not (label_type == COCO and sample.kind == ROW and sample.words in text)  # by its place in the json
    }


@pytest.mark.parametrize("label_type", full_among(LABEL_TYPES, LABEL_TYPES[1:]))
def test_check_names_and_mends_every_sample(tmp_path: Path, run: Callable, label_type: str) -> None:
    folder = broken_folder(tmp_path / "broken", label_type)
    arguments = ("--label-type", label_type, "--limit", 999)
    done = run("datasets.py", "check", "--data", folder.yaml, *arguments)
    assert done.returncode == 2
    assert done.stderr.endswith("training would not start: see the problems above that stop it\n")
    assert unnamed(label_type, done.stdout, tuple(KINDS.values())) == set()
    assert f"{EFFECT_NAMES[STOPS]}: " in done.stdout

    fixing = run("datasets.py", "check", "--data", folder.yaml, *arguments, "--fix", "copy")
    assert fixing.returncode == 0, fixing.stderr
    done = run("datasets.py", "check", "--data", "copy/data_config.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    effects = "|".join(EFFECT_NAMES[effect] for effect in (STOPS, DROPPED, REPAIRED))
    assert not re.search(rf"^  ({effects}):", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("label_type", full_among(LABEL_TYPES, LABEL_TYPES[1:]))
def test_training_goes_on_and_names_what_it_leaves_out(tmp_path: Path, run: Callable, label_type: str) -> None:
    folder = broken_folder(tmp_path / "broken", label_type)
    done = run(
        "train.py", "--data", folder.yaml, "--label-type", label_type, *FAST, "--epochs", 1, "--name", "broken",
        "--drop-unknown", "--batch", 24,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    faults = (run_folder(tmp_path, "broken") / "data_faults.txt").read_text()
    assert unnamed(label_type, done.stdout + faults, (STOPS, DROPPED, REPAIRED)) == FOR_THE_CHECK
    for split, purpose in (("train", "training"), ("valid", "validation")):
        index = open_index(load_data_config(folder.yaml), split, label_type, drop_unknown=True)
        assert f"Number of {purpose} samples: {len(index)}\n  {len(index.boxes)} boxes" in done.stdout
        for name, sample in OF_TYPE[label_type].items():
            images = [i for i, image in enumerate(index.files.names) if sample.owns(image)]
            found = sum(len(index.boxes[index.rows(i)]) for i in images)
            assert (name, found) == (name, sample.boxes if images else 0)
