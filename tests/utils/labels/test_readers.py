import codecs
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from utils.errors import DataError
from utils.labels.data_config import load_data_config
from utils.labels.readers import UNKNOWN, read_voc, read_yolo

LABEL_OF = {"cat": 1, "dog": 2}
SIZE = (100, 200)  # height, width


def voc(folder: Path, objects: str, size: str = "") -> Path:
    path = folder / "a.xml"
    path.write_text(f"<annotation>{size}{objects}</annotation>")
    return path


def thing(name: str = "cat", box: tuple = (11, 21, 30, 40), more: str = "") -> str:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def test_voc_corners_count_from_one_and_are_inclusive(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing()), SIZE, LABEL_OF)
    assert labels.boxes == [(10.0, 20.0, 30.0, 40.0)]
    assert labels.labels == [1]


def test_voc_fractions_stay(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing(box=(11.5, 21.25, 30.5, 40.75))), SIZE, LABEL_OF)
    assert labels.boxes == [(10.5, 20.25, 30.5, 40.75)]


def test_voc_reversed_corners_mean_the_same_pixels(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing(box=(30, 40, 11, 21))), SIZE, LABEL_OF)
    assert labels.boxes == [(30.0, 40.0, 10.0, 20.0)]


def test_voc_equal_corners_have_no_area(tmp_path: Path) -> None:
    """Coinciding corners, as two boxes of the BCCD data set have them."""
    (box,) = read_voc(voc(tmp_path, thing(box=(181, 329, 181, 329))), SIZE, LABEL_OF).boxes
    assert box == (181, 329, 181, 329)


def test_voc_difficult_is_ignored(tmp_path: Path) -> None:
    """Fault of the predecessor: `difficult` was ignored itself."""
    path = voc(tmp_path, thing(more="<difficult>1</difficult>") + thing(more="<difficult>0</difficult>"))
    assert read_voc(path, SIZE, LABEL_OF).ignored == [True, False]


def test_voc_claimed_size(tmp_path: Path) -> None:
    size = "<size><width>200</width><height>100</height></size>"
    assert read_voc(voc(tmp_path, "", size), SIZE, LABEL_OF).size == (100, 200)
    assert read_voc(voc(tmp_path, "", size.replace("200", "0")), SIZE, LABEL_OF).size is None
    assert read_voc(voc(tmp_path, ""), SIZE, LABEL_OF).size is None


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        ("<object><bndbox><xmin>1</xmin></bndbox></object>", "object 1 has no name, dropped"),
        ("<object><name>cat</name></object>", "object 1 (cat) has no bndbox of four numbers, dropped"),
        (thing(box=(1, "x", 3, 4)), "object 1 (cat) has no bndbox of four numbers, dropped"),
    ],
)
def test_voc_one_bad_object_leaves_the_others(tmp_path: Path, broken: str, note: str) -> None:
    """Faults of the predecessor: one bad box dropped the whole image; an object without name raised."""
    labels = read_voc(voc(tmp_path, broken + thing("dog")), SIZE, LABEL_OF)
    assert labels.notes == [note]
    assert labels.labels == [2]


def test_voc_unknown_class_is_told_apart(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing("cow") + thing()), SIZE, LABEL_OF)
    assert labels.labels == [UNKNOWN, 1]
    assert labels.unknown == ["'cow'"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object></annotation>", r"a\.xml:1: not valid XML"),
        ("", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', r"a\.xml: has a DOCTYPE"),
    ],
)
def test_voc_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Fault of the predecessor: malformed XML raised without a file name."""
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_voc(path, SIZE, LABEL_OF)


def test_voc_entity_bomb_in_utf16_is_not_expanded(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "1234567890">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="UTF-16"?>{bomb}]><annotation>&i;</annotation>'.encode("utf-16"))
    with pytest.raises(DataError, match="DOCTYPE"):
        read_voc(path, SIZE, LABEL_OF)


@pytest.mark.parametrize(
    ("declared", "written", "name"),
    [
        ("gbk", "gbk", "猫"),
        ("GB2312", "gbk", "貓"),  # what Windows calls GB2312 has more signs
        ("gb18030", "gb18030", "猫"),
        ("big5", "big5", "貓"),
        ("Shift_JIS", "cp932", "①猫"),
        ("euc-kr", "euc-kr", "고양이"),
        ("utf-7", "utf-7", "猫"),
        ("UTF-16", "utf-16", "猫"),
        ("utf-8", "utf-8-sig", "猫"),
        ("iso-8859-1", "latin-1", "Löwe"),
        ("windows-1251", "cp1251", "кот"),
    ],
)
def test_voc_encodings_that_tools_write(tmp_path: Path, declared: str, written: str, name: str) -> None:
    path = tmp_path / "a.xml"
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<annotation>{thing(name)}</annotation>'
    path.write_bytes(text.encode(written))
    assert read_voc(path, SIZE, {name: 1}).labels == [1]


@pytest.mark.parametrize(
    ("declared", "content", "message"),
    [
        ("klingon", b"", r"a\.xml:1: not text in the encoding it declares .*klingon"),
        ("zlib", b"", r"a\.xml:1: not text in the encoding it declares"),
        ("punycode", b"", r"a\.xml:1: not text in the encoding it declares"),
        ("gbk", b"\xff\xff", r"a\.xml:1: not text in the encoding it declares .*gb18030"),
        ("gbk", b"<object>", r"a\.xml:1: not valid XML"),
        ("gbk", b"&b;", r"a\.xml: has a DOCTYPE"),
        ("utf-8", b"\xff", r"a\.xml:1: not valid XML"),
    ],
)
def test_voc_of_another_encoding_that_is_broken_is_named(
    tmp_path: Path, declared: str, content: bytes, message: str
) -> None:
    """Fault of the predecessor: malformed XML raised without a file name."""
    path = tmp_path / "a.xml"
    doctype = b'<!DOCTYPE a [<!ENTITY b "c">]>' if content == b"&b;" else b""
    head = f'<?xml version="1.0" encoding="{declared}"?>'.encode()
    path.write_bytes(head + doctype + b"<annotation>" + content + b"</annotation>")
    with pytest.raises(DataError, match=message) as error:
        read_voc(path, SIZE, LABEL_OF)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", ["inf", "1e999", "1e300", "nan", "-200", "wide"])
def test_voc_size_without_numbers_is_noted(tmp_path: Path, width: str) -> None:
    size = f"<size><width>{width}</width><height>100</height></size>"
    labels = read_voc(voc(tmp_path, thing(), size), SIZE, LABEL_OF)
    assert labels.size is None
    assert labels.labels == [1]
    assert labels.notes == [f"size 100 x {width} is no size in pixels, left out"]


@pytest.mark.parametrize("read", [read_voc, read_yolo])
def test_a_label_file_that_cannot_be_read_is_named(tmp_path: Path, read) -> None:
    (tmp_path / "a.xml").mkdir()
    for name in ("a.xml", "b.xml"):
        with pytest.raises(DataError, match=rf"{name[0]}\.xml: cannot be read as a label file"):
            read(tmp_path / name, SIZE, LABEL_OF)


def test_voc_a_very_long_name_makes_no_long_message(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing("x" * 10_000) + thing("y " * 5_000, box=("a", 1, 1, 1))), SIZE, LABEL_OF)
    assert len(labels.unknown[0]) < 100
    assert len(labels.notes[0]) < 150


def test_voc_an_encoding_of_a_very_long_name_makes_no_long_message(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{"x" * 10_000}"?><annotation/>')
    with pytest.raises(DataError, match=r"a\.xml:1: ") as error:
        read_voc(path, SIZE, LABEL_OF)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_voc_a_name_that_a_terminal_obeys_is_shown_in_escapes(tmp_path: Path) -> None:
    labels = read_voc(voc(tmp_path, thing("\x9b2J猫") + thing("a\u202eb", box=("a", 1, 1, 1))), SIZE, LABEL_OF)
    assert labels.unknown == [r"'\x9b2J猫'"]
    assert labels.notes == [r"object 2 (a\u202eb) has no bndbox of four numbers, dropped"]


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("<annotations><image><box label='cat' xtl='1' ytl='1' xbr='2' ybr='2'/></image></annotations>", "annotations"),
        (f"<annotation xmlns='urn:x'>{thing()}</annotation>", "{urn:x}annotation"),
    ],
)
def test_voc_xml_of_another_kind_is_not_an_image_without_objects(tmp_path: Path, text: str, root: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml: starts with <{root}>, expected Pascal VOC's <annotation>"):
        read_voc(tmp_path / "a.xml", SIZE, LABEL_OF)


def yolo(folder: Path, text: str) -> Path:
    path = folder / "a.txt"
    path.write_text(text)
    return path


def test_yolo_row(tmp_path: Path) -> None:
    labels = read_yolo(yolo(tmp_path, "1 0.5 0.5 0.1 0.2\n"), SIZE, LABEL_OF)
    np.testing.assert_allclose(labels.boxes, [(90, 40, 110, 60)])
    assert labels.labels == [2]
    assert labels.notes == []


@pytest.mark.parametrize(
    ("row", "boxes", "note"),
    [
        ("", [], None),  # blank
        ("0.0 0.5 0.5 0.1 0.2", [(90, 40, 110, 60)], None),  # class as a float
        ("0 0.5 0.5 0.1 0.2 0.87", [(90, 40, 110, 60)], "line 1 has a confidence, which is left out"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.6", [(20, 20, 100, 60)], None),  # polygon
        ("0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6", [(20, 20, 100, 60)], None),
        ("0 0.5 0.5 0.1", [], "line 1 has 4 numbers, expected 5, dropped"),
        ("cat 0.5 0.5 0.1 0.2", [], "line 1 is not all numbers, dropped"),
        ("0.5 0.5 0.5 0.1 0.2", [], "line 1 has class 0.5, which is no class number, dropped"),
        ("-1 0.5 0.5 0.1 0.2", [], "line 1 has class -1, which is no class number, dropped"),
        ("nan 0.5 0.5 0.1 0.2", [], "line 1 has class nan, which is no class number, dropped"),
    ],
)
def test_yolo_rows_in_the_wild(tmp_path: Path, row: str, boxes: list, note: str | None) -> None:
    """Fault of the predecessor: blank lines, polygons, confidences and class "0.0" crashed."""
    labels = read_yolo(yolo(tmp_path, f"{row}\n1 0.5 0.5 0.5 0.5\n"), SIZE, LABEL_OF)
    np.testing.assert_allclose(np.array(labels.boxes[:-1]).reshape(-1, 4), np.array(boxes).reshape(-1, 4))
    assert labels.labels[-1] == 2
    assert labels.notes == ([note] if note else [])


def test_yolo_class_beyond_nc_is_told_apart(tmp_path: Path) -> None:
    """Fault of the predecessor: a class >= NC became an index error in the loss."""
    labels = read_yolo(yolo(tmp_path, "2 0.5 0.5 0.1 0.2\n"), SIZE, LABEL_OF)
    assert labels.labels == [UNKNOWN]
    assert labels.unknown == ["class 2"]


def test_yolo_a_huge_class_number_makes_no_long_message(tmp_path: Path) -> None:
    labels = read_yolo(yolo(tmp_path, "1e300 0.5 0.5 0.1 0.2\n1234567 0.5 0.5 0.1 0.2\n"), SIZE, LABEL_OF)
    assert labels.unknown == ["class 1e+300", "class 1234567"]


def test_yolo_byte_order_mark_costs_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.1 0.2\r\n1 0.5 0.5 0.1 0.2\r\n")
    labels = read_yolo(path, SIZE, LABEL_OF)
    assert labels.labels == [1, 2]
    assert labels.notes == []


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_yolo_of_windows_powershell(tmp_path: Path, mark: bytes) -> None:
    """`>` of PowerShell writes UTF-16."""
    path = tmp_path / "a.txt"
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    path.write_bytes(mark + "0 0.5 0.5 0.5 0.5\r\n1 0.5 0.5 0.5 0.5\r\n".encode(encoding))
    labels = read_yolo(path, SIZE, LABEL_OF)
    assert labels.labels == [1, 2]
    assert labels.notes == []


def test_yolo_knows_the_last_of_cocos_91_names_which_repeat_na(tmp_path: Path) -> None:
    names = load_data_config(ROOT / "data_configs" / "coco.yaml").raw["COCO_91_CLASSES"]
    label_of = {name: i for i, name in enumerate(names) if i > 0}
    assert len(label_of) < len(names) - 1 == 90
    rows = "".join(f"{k} 0.5 0.5 0.1 0.2\n" for k in (0, 80, 81, 89, 90))
    labels = read_yolo(yolo(tmp_path, rows), SIZE, label_of)
    assert labels.labels == [1, 81, 82, 90, UNKNOWN]
    assert labels.unknown == ["class 90"]


def test_a_huge_label_file_is_not_read(tmp_path: Path) -> None:
    path = yolo(tmp_path, "0" * (17 << 20))
    with pytest.raises(DataError, match="too large for a label file"):
        read_yolo(path, SIZE, LABEL_OF)


@pytest.mark.full
def test_labels_of_another_kind_are_refused_soon(tmp_path: Path) -> None:
    """16 MB of invalid rows would be eight million notes."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"x\n" * (8 << 20))
    with pytest.raises(DataError, match=r"a\.txt: line 1 is not all numbers, and so on 10,000 times"):
        read_yolo(path, SIZE, LABEL_OF)
    path.write_bytes(b"<annotation>" + b"<object/>" * (1 << 20) + b"</annotation>")
    with pytest.raises(DataError, match=r"a\.txt: object 1 has no name, and so on 10,000 times"):
        read_voc(path, SIZE, LABEL_OF)
