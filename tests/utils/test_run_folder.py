from pathlib import Path

import pytest

from utils.errors import UserError
from utils.run_folder import given_folder, named_folder, numbered_folder


def test_numbers_are_not_used_again(tmp_path: Path) -> None:
    """Fault of the predecessor: res_N could be reused."""
    assert [numbered_folder(tmp_path).name for _ in range(3)] == ["res_1", "res_2", "res_3"]
    (tmp_path / "res_1").rmdir()
    assert numbered_folder(tmp_path).name == "res_4"
    (tmp_path / "res_x").mkdir()
    (tmp_path / "res_12").touch()
    assert numbered_folder(tmp_path).name == "res_13"


def test_an_existing_name_is_not_overwritten(tmp_path: Path) -> None:
    """Fault of the predecessor: an existing --name was silently overwritten."""
    assert named_folder(tmp_path, "a").name == "a"
    assert named_folder(tmp_path, "a").name == "a_2"
    assert named_folder(tmp_path, "a").name == "a_3"


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", " "])
def test_a_name_cannot_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="leads out"):
        named_folder(tmp_path, name)


def test_a_given_folder_is_refused_if_it_holds_a_run(tmp_path: Path) -> None:
    assert given_folder(tmp_path / "new", "last_model.pth").is_dir()
    assert given_folder(tmp_path / "new", "last_model.pth").is_dir()
    (tmp_path / "new/last_model.pth").touch()
    with pytest.raises(UserError, match=r"holds last_model\.pth of an earlier run"):
        given_folder(tmp_path / "new", "last_model.pth")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for contents in (None, "last_model.pth"):
        with pytest.raises(UserError, match="file: a file of that name is in the way"):
            given_folder(tmp_path / "file", contents)
    with pytest.raises(UserError, match="cannot be created"):
        numbered_folder(tmp_path / "file" / "deep")
