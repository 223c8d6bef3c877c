"""The code and the flags of docs/video.md."""

import inspect
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.checkpoints import CONFIDENT, write_checkpoint
from tests.support.videos import pictures, read_back, write_video
from utils.cli.options import VideoOptions

TEXT = (ROOT / "docs/video.md").read_text()


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "best_model.pth", **CONFIDENT)
    write_video(tmp_path / "video.mp4", pictures(6))
    values: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, values)
    assert values["pipeline"].report.error is None
    assert len(read_back(tmp_path / "drawn.mp4")[0]) == 6


def test_its_flags_are_all_there() -> None:
    own = [VideoOptions.__dataclass_fields__[name] for name in inspect.get_annotations(VideoOptions)]
    assert [f.metadata["names"][-1] for f in own if f.metadata["names"][-1] not in TEXT] == []
