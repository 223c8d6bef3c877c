"""Run an ONNX file of export.py with only numpy, onnxruntime and OpenCV: a minimal deployment example.

python examples/onnx_minimal.py weights/model.onnx photo.jpg
"""

import json
import sys

import cv2
import numpy as np

try:
    import onnxruntime
except ImportError:
    sys.exit("this example needs the package onnxruntime: pip install onnxruntime")


def detect(session: onnxruntime.InferenceSession, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect objects in a (H, W, 3) uint8 RGB image with a graph of fixed input size and batch 1.

    For a --dynamic graph, choose `size` yourself and pad to the next multiples of 32.

    Returns:
        Boxes (N, 4) x1 y1 x2 y2 in pixels of the image, scores (N,) and labels (N,).
    """
    rule = json.loads(session.get_modelmeta().custom_metadata_map["size_rule"])
    padded = np.zeros((1, rule["height"], rule["width"], 3), np.uint8)
    scale = np.array([rule["height"] / rgb.shape[0], rule["width"] / rgb.shape[1]])
    if not rule["square"]:  # keep the aspect ratio
        scale[:] = scale.min()
    size = [max(1, round(side * factor)) for side, factor in zip(rgb.shape[:2], scale.tolist(), strict=True)]
    padded[0, : size[0], : size[1]] = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_LINEAR)
    boxes, scores, labels = session.run(
        ["boxes", "scores", "labels"], {"images": padded, "sizes": np.array([size], np.int64)}
    )
    valid = scores[0] > 0  # the other rows are padding
    y, x = np.array(rgb.shape[:2], np.float32) / np.array(size, np.float32)
    return boxes[0, valid] * [x, y, x, y], scores[0, valid], labels[0, valid]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/onnx_minimal.py MODEL.onnx PHOTO")
    model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])  # or CUDA
    names = json.loads(model.get_modelmeta().custom_metadata_map["names"])
    picture = cv2.imread(sys.argv[2])
    if picture is None:
        sys.exit(f"{sys.argv[2]}: cannot be read as an image")
    rows = zip(*detect(model, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)), strict=True)
    detections = [(box, score, label) for box, score, label in rows if score >= 0.3]
    print(f"{len(detections)} objects with a score of at least 0.3")
    for box, score, label in detections:
        print(f"{names[label]} {score:.3f} {box.round(1).tolist()}")
