"""The code and the commands of docs/tracking.md, run as they stand."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.cli.flags import parse_options
from utils.cli.options import TrackingOptions
from utils.tracking.logs import MotLog
from utils.tracking.tracks import Tracks

TEXT = (ROOT / "docs/tracking.md").read_text()


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("truth.txt", "video_tracks.txt"):
        log = MotLog(Path(name))
        log.add(0, Tracks.none())
        log.close()
    values: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, values)
    assert "TrackingScores(hota=" in capsys.readouterr().out
    assert values["tracks"].ids.tolist() == [1]


def test_flags_are_all_there_and_parse() -> None:
    for line in re.findall(r"python inference_video.py (.*)", TEXT):
        words = [w for w in re.sub(r"--(input \S+|classes [\d ]+)", "", line).split() if w]
        assert parse_options(TrackingOptions, "", words).track
    names = {field.metadata["names"][-1] for field in TrackingOptions.__dataclass_fields__.values() if field.metadata}
    assert {name for name in names if name not in TEXT} == set()
