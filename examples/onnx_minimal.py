"""Run an ONNX file of export.py with numpy, onnxruntime and OpenCV alone: what a deployment needs, to copy from.

python examples/onnx_minimal.py weights/model.onnx photo.jpg
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def detect(session: onnxruntime.InferenceSession, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) x1 y1 x2 y2 in pixels of the image, scores (N,) and labels (N,) of a (H, W, 3) uint8 RGB image.

    For graphs of a fixed input size, one image a call. (--dynamic: choose `size` yourself, the block the next
    multiples of 32.)
    """
    rule = json.loads(session.get_modelmeta().custom_metadata_map["size_rule"])
    block = np.zeros((1, rule["height"], rule["width"], 3), np.uint8)
    scale = np.array([rule["height"] / rgb.shape[0], rule["width"] / rgb.shape[1]])
    if not rule["square"]:  # keep the aspect ratio
        scale[:] = scale.min()
    size = [max(1, round(side * factor)) for side, factor in zip(rgb.shape[:2], scale.tolist(), strict=True)]
    block[0, : size[0], : size[1]] = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_LINEAR)
    boxes, scores, labels = session.run(
        ["boxes", "scores", "labels"], {"images": block, "sizes": np.array([size], np.int64)}
    )
    found = scores[0] > 0  # the rest fills up
    y, x = np.array(rgb.shape[:2], np.float32) / np.array(size, np.float32)
    return boxes[0, found] * [x, y, x, y], scores[0, found], labels[0, found]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/onnx_minimal.py MODEL.onnx PHOTO")
    opened = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])  # or CUDA
    names = json.loads(opened.get_modelmeta().custom_metadata_map["names"])
    picture = cv2.imread(sys.argv[2])
    if picture is None:
        sys.exit(f"{sys.argv[2]}: cannot be read as an image")
    rows = zip(*detect(opened, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)), strict=True)
    found = [(box, score, label) for box, score, label in rows if score >= 0.3]
    print(f"{len(found)} objects with a score of at least 0.3")
    for box, score, label in found:
        print(f"{names[label]} {score:.3f} {box.round(1).tolist()}")
