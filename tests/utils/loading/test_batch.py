import pickle

import numpy as np
import torch

from utils.loading.batch import Batch, block_size, collate
from utils.loading.sample import Sample


def sample(height: int, width: int, boxes: int, image_id: int = 0) -> Sample:
    image = np.full((height, width, 3), 7, np.uint8)
    return Sample(
        image, (2 * height, 2 * width), image_id, np.ones((boxes, 4), np.float32) * image_id, np.full(boxes, image_id)
    )


def test_collate_pads_right_and_below_to_32() -> None:
    batch = collate([sample(33, 20, 2, 1), sample(10, 65, 0, 2), sample(5, 5, 1, 3)])
    assert batch.images.shape == (3, 64, 96, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[33, 20], [10, 65], [5, 5]]
    assert batch.original_sizes.tolist() == [[66, 40], [20, 130], [10, 10]]
    assert batch.image_ids.tolist() == [1, 2, 3]
    assert batch.counts.tolist() == [2, 0, 1]
    assert batch.boxes.shape == (3, 4)
    assert batch.boxes.dtype == torch.float32
    assert batch.labels.tolist() == [1, 1, 3]
    assert batch.labels.dtype == torch.int64
    for image, (height, width) in zip(batch.images, batch.sizes.tolist(), strict=True):
        assert (image[:height, :width] == 7).all()
        assert (image[height:] == 0).all()
        assert (image[:, width:] == 0).all()


def test_a_batch_of_images_without_boxes() -> None:
    batch = collate([sample(10, 10, 0), sample(10, 10, 0)])
    assert batch.boxes.shape == (0, 4)
    assert batch.labels.dtype == torch.int64


def test_every_form_keeps_everything() -> None:
    batch = collate([sample(33, 20, 2, 1), sample(10, 65, 0, 2)])
    through_pipe = Batch.from_parts(batch.images, pickle.loads(pickle.dumps(batch.parts())))
    for other in (through_pipe, batch.to(torch.device("cpu")), batch.clone()):
        for name, value in vars(batch).items():
            if name == "faults":
                assert other.faults == batch.faults
                continue
            assert torch.equal(getattr(other, name), value), name
            assert getattr(other, name).dtype == value.dtype


def test_a_block_that_is_there_already_is_filled() -> None:
    samples = [sample(33, 20, 2, 1), sample(10, 65, 0, 2)]
    block = np.full(block_size(2, 33, 65) + 7, 255, np.uint8)
    batch = collate(samples, into=block)
    assert np.shares_memory(batch.images.numpy(), block)
    assert torch.equal(batch.images, collate(samples).images)
    assert (block[-7:] == 255).all()
