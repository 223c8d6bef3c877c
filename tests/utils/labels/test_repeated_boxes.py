import numpy as np

from utils.labels.repeated_boxes import repeated_boxes


def test_repeated_boxes() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 5, 9, 9], [0.4, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0.6, 9, 9.0]])
    images, labels = np.array([0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 2, 1, 1])
    assert repeated_boxes(images, labels, boxes).tolist() == [-1, -1, 0, -1, -1, -1]
    assert repeated_boxes(images[:0], labels[:0], boxes[:0]).tolist() == []
