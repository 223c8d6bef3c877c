import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.labels.readers import read_voc
from utils.labels.writers import write_voc

SIDE = st.floats(0, 99, width=32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=5))
def test_reading_gives_back_what_was_written(tmp_path: Path, rows: list) -> None:
    low = np.array(rows, np.float32).reshape(-1, 4)[:, :2]
    boxes = np.concatenate([low, low + 1.5 + np.array(rows, np.float32).reshape(-1, 4)[:, 2:]], 1)
    names = ["cat & <dog>"] * len(boxes)
    write_voc(tmp_path / "a.xml", "a.jpg", (300, 400), boxes, names)
    labels = read_voc(tmp_path / "a.xml", (300, 400), {"cat & <dog>": 1})
    assert labels.size == (300, 400)
    assert labels.labels == [1] * len(boxes)
    np.testing.assert_allclose(np.array(labels.boxes).reshape(-1, 4), boxes, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff.jpg"), "ü & <b>.jpg"])
def test_any_file_name_gives_xml_that_can_be_read(tmp_path: Path, name: str) -> None:
    write_voc(tmp_path / "a.xml", name, (30, 40), np.array([(1.0, 2, 30, 20)]), ["cat"])
    assert read_voc(tmp_path / "a.xml", (30, 40), {"cat": 1}).boxes == [(1, 2, 30, 20)]
    assert ElementTree.parse(tmp_path / "a.xml").findtext("filename") == name.replace("\udcff", "?")
