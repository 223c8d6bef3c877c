"""Label files of a data set, rewritten into other formats."""

import json
import shutil

from tests.conftest import DataSet
from utils.labels.data_config import load_data_config
from utils.labels.index import open_index


def to_yolo(data: DataSet, split: str = "train") -> None:
    """Write the split's labels as YOLO txt files in place of the XML files."""
    index = open_index(load_data_config(data.yaml), split, "pascal_voc")
    for i in range(len(index)):
        height, width = index.sizes[i]
        rows = []
        for (x1, y1, x2, y2), label in zip(
            index.boxes[index.rows(i)].astype(float), index.labels[index.rows(i)], strict=True
        ):
            numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            rows.append(f"{label - 1} " + " ".join(repr(float(n)) for n in numbers))
        path = data.root / split / "labels" / f"{index.path(i).stem}.xml"
        path.with_suffix(".txt").write_text("\n".join(rows) + "\n")
        path.unlink()


def to_coco(data: DataSet, split: str = "train") -> None:
    """Write the split's labels as COCO json in place of the XML files, and name it in the YAML."""
    index = open_index(load_data_config(data.yaml), split, "pascal_voc")
    corners = index.boxes.astype(float)
    content = {
        "images": [
            {"id": 100 + i, "file_name": str(name), "height": int(height), "width": int(width)}
            for i, (name, (height, width)) in enumerate(zip(index.files.names, index.sizes, strict=True))
        ],
        "annotations": [
            {"id": row, "image_id": 100 + i, "category_id": 7 * int(index.labels[row]),
             "bbox": [*corners[row, :2], *(corners[row, 2:] - corners[row, :2])]}
            for i in range(len(index)) for row in range(*index.rows(i).indices(len(index.boxes)))
        ],
        "categories": [{"id": 7 * k, "name": name} for k, name in enumerate(index.classes) if k > 0],
    }  # fmt: skip
    shutil.rmtree(data.root / split / "labels")
    (data.root / f"{split}.json").write_text(json.dumps(content))
    data.rewrite(**{f"{split.upper()}_DIR_LABELS": str(data.root / f"{split}.json")})
