from pathlib import Path

import pytest

import models.building.pretrained


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty places for weights: the project's folder, which is returned, and torch.hub's cache."""
    monkeypatch.setattr(models.building.pretrained, "WEIGHTS_FOLDER", tmp_path / "weights")
    monkeypatch.setattr(models.building.pretrained, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"
