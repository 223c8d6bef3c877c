import json
import random
import shutil
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import datasets
from datasets import DetectionDataset, make_loader
from tests.conftest import ROOT, DataSet
from tests.support.painted_images import EXAMPLE_PIPELINE
from utils.augment.config import parse_augmentation_config
from utils.augment.policy import POLICIES, AugmentationPolicy
from utils.augment.transforms import resize_image
from utils.cli.options import CheckOptions
from utils.data_tools.commands import check_command
from utils.errors import DataError
from utils.labels.data_config import load_data_config
from utils.labels.index import LabelIndex, open_index
from utils.loading.batch import Batch
from utils.loading.image_cache import cache_size, make_cache_files
from utils.loading.loader import max_batches_in_flight
from utils.loading.sample import DAMAGED
from utils.loading.samplers import EvalBatchSampler, MixSource, SampleKey, TrainBatchSampler, cache_slots
from utils.loading.size_rule import SizeRule

CPU = torch.device("cpu")
EVERYTHING = replace(POLICIES["strong"], mixup=0.5, copy_paste=0.5)
CONFIGURED = AugmentationPolicy(flip=0.5, config=parse_augmentation_config(EXAMPLE_PIPELINE, Path("aug.yaml")))


def open_train(data: DataSet) -> LabelIndex:
    return open_index(load_data_config(data.yaml), "train", "pascal_voc")


def assert_equal(one: Batch, other: Batch) -> None:
    for name, value in vars(one).items():
        same = value == getattr(other, name) if name == "faults" else torch.equal(value, getattr(other, name))
        assert same, name


def test_sample_is_resized_once_with_its_boxes(make_data) -> None:
    index = open_train(make_data())
    sample = DetectionDataset(index, SizeRule(128))[1]
    assert sample.image.shape == (128, 160, 3)
    assert sample.image.dtype == np.uint8
    assert sample.original_size == (64, 80)
    np.testing.assert_allclose(sample.boxes, index.boxes[index.rows(1)] * 2)
    for x1, y1, x2, y2 in sample.boxes.astype(int):
        assert (
            sample.image[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].std(axis=(0, 1)).max() < 40
        )  # one color, but for others on it


def test_image_without_objects(make_data) -> None:
    sample = DetectionDataset(open_train(make_data()), SizeRule(64), policy=EVERYTHING)[3]
    assert sample.boxes.shape[1:] == (4,)


def test_ignored_boxes_are_not_trained_on(make_data) -> None:
    data = make_data()
    xml = data.root / "train/labels/train_1.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1", 1))
    index = open_train(data)
    assert len(index.boxes[index.rows(1)]) == 2
    assert len(DetectionDataset(index, SizeRule(64))[1].boxes) == 1


def test_exif_turned_image_is_read_as_its_labels_mean(make_data) -> None:
    data = make_data()
    path = data.root / "train/images/train_0.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.open(path).save(path, exif=exif)
    index = open_train(data)  # the XML says 80 x 64, the stored size
    assert DetectionDataset(index, SizeRule(64))[0].image.shape == (64, 80, 3)
    xml = data.root / "train/labels/train_0.xml"
    xml.write_text(xml.read_text().replace("<width>80</width>", "<width>64</width>").replace(
        "<height>64</height>", "<height>80</height>"))  # fmt: skip
    assert DetectionDataset(open_train(data), SizeRule(64))[0].image.shape == (80, 64, 3)


def test_a_long_thin_image(make_data) -> None:
    """Fault of the predecessor: a 2000 x 1 image crashed."""
    data = make_data()
    cv2.imwrite(str(data.root / "train/images/train_0.jpg"), np.zeros((1, 2000, 3), np.uint8))
    dataset = DetectionDataset(open_train(data), SizeRule(64), policy=EVERYTHING)
    for epoch in range(5):
        assert min(dataset[0, epoch].image.shape) >= 1


@pytest.mark.parametrize("policy", [EVERYTHING, CONFIGURED], ids=["strong", "configured"])
def test_samples_depend_on_seed_epoch_and_index_alone(make_data, policy: AugmentationPolicy) -> None:
    """Fault of the predecessor: --use-train-aug was not reproducible under --seed."""
    index = open_train(make_data(images=6))
    one, other = (DetectionDataset(index, SizeRule(64), policy=policy, seed=5) for _ in range(2))
    keys = [(i, epoch) for i in range(6) for epoch in range(3)]
    first = {key: one[key] for key in keys}
    random.Random(0).shuffle(keys)
    for key in keys:
        np.testing.assert_array_equal(other[key].image, first[key].image)
        np.testing.assert_array_equal(other[key].boxes, first[key].boxes)
    again = DetectionDataset(index, SizeRule(64), policy=policy, seed=6)
    assert any(not np.array_equal(again[key].image, first[key].image) for key in keys)
    assert any(not np.array_equal(first[i, 0].image, first[i, 1].image) for i in range(6))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("policy", [EVERYTHING, CONFIGURED], ids=["strong", "configured"])
def test_workers_change_nothing(make_data, workers: int, policy: AugmentationPolicy) -> None:
    index = open_train(make_data(images=7))
    dataset = DetectionDataset(index, SizeRule(64), policy=policy, seed=1)
    loaders = [make_loader(dataset, TrainBatchSampler(len(index), 2, seed=1), n, CPU) for n in (0, workers)]
    for epoch in range(2):
        for loader in loaders:
            loader.batches.epoch = epoch
        for alone, with_workers in zip(*loaders, strict=True):
            assert_equal(alone, with_workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_changes_nothing_and_decodes_once(make_data, tmp_path: Path, monkeypatch, workers: int) -> None:
    index = open_train(make_data(images=7))
    plain, cached = (DetectionDataset(index, SizeRule(64), policy=POLICIES["strong"], seed=1) for _ in range(2))
    (path,), _ = make_cache_files("ram", [cache_size(cached.base_sizes())], tmp_path)
    cached.keep_images(path)
    loaders = [make_loader(d, TrainBatchSampler(len(index), 2, seed=1), workers, CPU) for d in (plain, cached)]
    for epoch in range(3):
        for loader in loaders:
            loader.batches.epoch = epoch
        for one, other in zip(*loaders, strict=True):
            assert_equal(one, other)
    shutil.rmtree(index.folder)  # nothing is left to decode
    cached[3, 9]
    with pytest.raises(DataError, match="no such file"):
        plain[3, 9]
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("images", "policy"), [(60, "strong"), (60, "mosaic"), (7, "strong"), (1, "mosaic")])
def test_keeping_recent_images_changes_nothing(make_data, workers: int, images: int, policy: str) -> None:
    index = open_train(make_data(images=images))
    policy = POLICIES.get(policy, AugmentationPolicy(mosaic=1.0))
    plain, keeping = (DetectionDataset(index, SizeRule(64), policy=policy, seed=1) for _ in range(2))
    batches = [TrainBatchSampler(images, 1, seed=1, num_mixed=policy.num_mixed) for _ in range(2)]
    keeping.keep_recent(cache_slots(batches[0], workers))
    loaders = [make_loader(d, b, n, CPU) for d, b, n in zip((plain, keeping), batches, (0, workers), strict=True)]
    for epoch in range(3):
        for loader in loaders:
            loader.batches.set_epoch(epoch, 5 * epoch)
        for one, other in zip(*loaders, strict=True):
            assert_equal(one, other)
    loaders[1].close()


@pytest.mark.parametrize("world", [1, 2])
def test_recent_images_are_decoded_once(make_data, monkeypatch, world: int) -> None:
    """But for the first mosaics of an epoch, which have its last images."""
    index = open_train(make_data(images=160))
    policy = AugmentationPolicy(mosaic=1.0)
    batches = TrainBatchSampler(160, 1, seed=0, rank=world - 1, world_size=world, num_mixed=policy.num_mixed)
    dataset = DetectionDataset(index, SizeRule(64), policy=policy)
    dataset.keep_recent(cache_slots(batches, 0))
    decoded = []
    monkeypatch.setattr(
        LabelIndex, "pixels", lambda _, i: decoded.append(i) or np.zeros((*index.sizes[i], 3), np.uint8)
    )
    for epoch in range(2):
        batches.set_epoch(epoch)
        decoded.clear()
        picks = [pick for batch in batches for pick in batch]
        for pick in picks:
            dataset[pick]
        most = 160 // world + 8 * (1 + 2 + 3)
        assert len(decoded) == most if epoch == 0 else most - 8 < len(decoded) <= most  # some stand where they stood


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.integers(1, 5))
def test_images_are_mixed_in_equally_often(images: int, batch: int, world: int, others: int) -> None:
    shares = [
        TrainBatchSampler(images, batch, seed=0, num_mixed=others, rank=rank, world_size=world) for rank in range(world)
    ]
    picks = [[pick for step in share for pick in step] for share in shares]
    real = [pick for together in zip(*picks, strict=True) for pick in together][:images]
    counts = np.bincount([other.image for pick in real for other in pick.mixed], minlength=images)
    assert (counts == others).all()
    for pick in real:
        of_sample = {pick.image, *(other.image for other in pick.mixed)}
        assert len(of_sample) == min(1 + others, images)
    for share, own in zip(shares, picks, strict=True):
        for place, pick in enumerate(own):
            assert pick.position == place
            for other in pick.mixed:
                if other.position is not None:
                    assert 0 < place - other.position <= share.history
                    assert own[other.position].image == other.image


@given(st.integers(1, 400), st.integers(1, 8), st.integers(1, 3), st.integers(1, 5), st.integers(0, 5))
def test_no_recent_image_is_overwritten_while_it_may_be_read(
    images: int, batch: int, world: int, others: int, workers: int
) -> None:
    """Among the samples that a loader has in work at once no two places share memory."""
    share = TrainBatchSampler(images, batch, seed=0, num_mixed=others, world_size=world)
    with mock.patch("utils.loading.samplers.cores", return_value=workers):
        places = cache_slots(share, workers)
    steps = list(share)
    if not places:
        assert world > 1
        assert all(other.position is None for step in steps for pick in step for other in pick.mixed)
        return
    for first in range(len(steps)):
        of_slot = {}
        for pick in chain.from_iterable(steps[first : first + max_batches_in_flight(workers)]):
            for image, place in (MixSource(pick.image, pick.position), *pick.mixed):
                if place is not None:
                    assert of_slot.setdefault(place % places, (image, place)) == (image, place)


@pytest.mark.parametrize(
    ("images", "batch", "world", "others", "step"),
    [(10_000, 64, 8, 3, 4), (900, 16, 4, 3, 3), (118_287, 64, 8, 5, 8), (2_001, 16, 4, 5, 5)],
)
def test_images_to_mix_in_are_whole_batches_apart(images: int, batch: int, world: int, others: int, step: int) -> None:
    """A process has so shown them itself."""
    share = TrainBatchSampler(images, batch, seed=0, rank=1, num_mixed=others, world_size=world)
    assert share.mixes_own_images
    assert share.history == others * step * batch
    *_, last = chain.from_iterable(islice(share, len(share) - 1))
    assert [last.position - other.position for other in last.mixed] == [k * step * batch for k in range(1, others + 1)]


def test_images_to_mix_in_of_less_than_a_batch_each() -> None:
    assert TrainBatchSampler(20, 8, seed=0, num_mixed=3).history == 3 * 5
    assert cache_slots(TrainBatchSampler(300, 64, seed=0, num_mixed=3, world_size=8), 0) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named_and_left_out(make_data, workers: int, caplog) -> None:
    data = make_data()
    index = open_train(data)
    path = data.root / "train/images/train_1.jpg"
    path.write_bytes(path.read_bytes()[:-100])  # its header is good
    training = DetectionDataset(index, SizeRule(64), policy=AugmentationPolicy(), seed=1)
    for loader in (
        make_loader(training, TrainBatchSampler(4, 4, seed=0), workers, CPU),
        make_loader(DetectionDataset(index, SizeRule(64)), EvalBatchSampler(index, SizeRule(64), 4), workers, CPU),
    ):
        (batch,) = loader
        loader.close()
        order = batch.image_ids.tolist()
        place = order.index(1 if loader.dataset is training else DAMAGED)
        assert int(batch.counts[place]) == (3 if loader.dataset is training else 0)  # of the next image, or none
        assert batch.counts.sum() == (1 + 3 + 3 + 0 if loader.dataset is training else 1 + 3 + 0)
        assert f"{path}: the image is cut off before its end: fetch it again or remove it; it is left" in caplog.text
        caplog.clear()


def test_images_of_which_none_can_be_decoded(make_data) -> None:
    data = make_data()
    index = open_train(data)
    for path in index.files:
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="4 images in a row cannot be decoded"):
        DetectionDataset(index, SizeRule(64), policy=AugmentationPolicy())[0]


@pytest.mark.parametrize("square", [False, True])
def test_base_pictures_can_be_cached(make_data, square: bool) -> None:
    """All augmentation starts from them, and none changes them: a read-only cache gives the same pixels."""
    index = open_train(make_data(images=6))
    one, other = (DetectionDataset(index, SizeRule(64, square=square), policy=EVERYTHING) for _ in range(2))
    cache = [other._base_image(MixSource(i)) for i in range(6)]
    for image in cache:
        image.flags.writeable = False
    other._base_image = lambda shown: cache[shown.image]
    for key in [(i, epoch) for i in range(6) for epoch in range(5)]:
        fresh, cached = one[key], other[key]
        np.testing.assert_array_equal(fresh.image, cached.image)
        np.testing.assert_array_equal(fresh.boxes, cached.boxes)
        np.testing.assert_array_equal(fresh.labels, cached.labels)


def test_multi_scale_changes_the_size_of_samples(make_data) -> None:
    dataset = DetectionDataset(open_train(make_data()), SizeRule(64), policy=POLICIES["light"])
    sizes = {dataset[1, epoch].image.shape[:2] for epoch in range(40)}
    assert len(sizes) > 10
    assert min(sizes) >= (48, 60)
    assert max(sizes) <= (80, 100)
    for epoch in range(10):
        sample = dataset[1, epoch]
        scale = sample.image.shape[0] / 64
        sides = np.sort(sample.boxes[:, 2:] - sample.boxes[:, :2], 0)
        original = dataset.index.boxes[dataset.index.rows(1)]
        np.testing.assert_allclose(sides, np.sort((original[:, 2:] - original[:, :2]) * scale, 0), rtol=0.02)


def test_damaged_images_scattered_over_a_mosaic_end_nothing(make_data) -> None:
    data = make_data(images=60)
    index = open_train(data)
    for i, path in enumerate(index.files):
        if i % 7 < 6:  # six in a row, and four images in a mosaic
            path.write_bytes(path.read_bytes()[:-100])
    dataset = DetectionDataset(index, SizeRule(64), policy=AugmentationPolicy(mosaic=1.0))
    for i in range(60):
        assert dataset[i].faults


def test_a_batch_larger_than_the_data_set_takes_no_room(make_data) -> None:
    dataset = DetectionDataset(open_train(make_data()), SizeRule(64), policy=AugmentationPolicy())
    loader = make_loader(dataset, TrainBatchSampler(4, 1 << 40, seed=0), 1, CPU)
    assert [len(batch) for batch in loader] == [4]
    loader.close()


def test_the_loader_leaves_the_random_state_alone(make_data) -> None:
    """Drawing a seed for the workers from the global generator would make a resumed run another run."""
    dataset = DetectionDataset(open_train(make_data()), SizeRule(64))
    state = torch.get_rng_state()
    for loader in (make_loader(dataset, TrainBatchSampler(4, 2, seed=0), n, CPU) for n in (0, 1)):
        for _ in range(2):
            list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_that_vanishes_is_named(make_data) -> None:
    data = make_data()
    dataset = DetectionDataset(open_train(data), SizeRule(64))
    (data.root / "train/images/train_2.jpg").unlink()
    with pytest.raises(DataError, match=r"train_2\.jpg: no such file"):
        list(make_loader(dataset, TrainBatchSampler(4, 2, seed=0), 1, CPU))


def test_an_image_replaced_after_indexing_is_left_out(make_data) -> None:
    """Its boxes would silently be wrong."""
    data = make_data()
    index = open_train(data)
    Image.new("RGB", (90, 70)).save(data.root / "train/images/train_2.jpg")
    sample = DetectionDataset(index, SizeRule(64), policy=AugmentationPolicy())[2]
    assert len(sample.boxes) == 0  # of the next
    assert "train_2.jpg: decodes to 90x70, its header said 80x64" in sample.faults[0]
    assert DetectionDataset(index, SizeRule(64))[2].image_id == DAMAGED


def test_16_bit_images_do_not_go_black(make_data) -> None:
    """Fault of the predecessor: 16-bit images went black."""
    data = make_data()
    path = data.root / "train/images/train_0.jpg"
    image = cv2.imread(str(path))
    path.unlink()
    cv2.imwrite(str(path.with_suffix(".png")), image.astype(np.uint16) * 257)
    sample = DetectionDataset(open_train(data), SizeRule(64))[0]
    np.testing.assert_array_equal(sample.image, image[:, :, ::-1])


def images_of(pick: SampleKey) -> tuple[int, ...]:
    return pick.image, *(other.image for other in pick.mixed)


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 4), st.integers(0, 3), st.integers(0, 5))
def test_processes_share_the_batches_of_one(images: int, batch: int, world: int, epoch: int, others: int) -> None:
    """Together they see what one process with the whole batch sees, and every process has as many steps."""
    alone = TrainBatchSampler(images, batch * world, seed=3, num_mixed=others)
    shares = [
        TrainBatchSampler(images, batch, seed=3, num_mixed=others, rank=rank, world_size=world) for rank in range(world)
    ]
    for batches in (alone, *shares):
        batches.epoch = epoch
    parts = [list(share) for share in shares]
    assert len({len(part) for part in parts}) == 1
    assert [len(part) for part in parts] == [len(share) for share in shares]
    seen = sorted({pick.image for part in parts for step in part for pick in step})
    assert seen == list(range(images))
    for step, whole in enumerate(alone):
        together = [pick for part in parts for pick in part[step]]
        assert {images_of(pick) for pick in whole} <= {images_of(pick) for pick in together}
        assert all(pick.epoch == epoch for pick in together)


def test_every_epoch_has_its_own_order() -> None:
    """Fault of the predecessor: the sampler never got set_epoch."""
    batches = TrainBatchSampler(20, 4, seed=0)
    orders = []
    for batches.epoch in range(3):
        orders.append([pick.image for step in batches for pick in step])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] != orders[2]


def test_eval_batches_have_one_shape_and_every_image_once(make_data) -> None:
    data = make_data(images=5)
    for i in (1, 3):
        path = data.root / f"train/images/train_{i}.jpg"
        cv2.imwrite(str(path), np.zeros((100, 40, 3), np.uint8))
    index = open_train(data)
    for world in (1, 2, 3):
        shares = [list(EvalBatchSampler(index, SizeRule(64), 2, rank=r, world_size=world)) for r in range(world)]
        batches = [b for share in shares for b in share]
        assert sorted(i for b in batches for i in b) == list(range(5))
        assert all(len({tuple(index.sizes[i]) for i in b}) == 1 for b in batches)


def test_eval_batches_of_some_images(make_data) -> None:
    index = open_train(make_data(images=6))
    shares = [list(EvalBatchSampler(index, SizeRule(64), 2, images=[1, 2, 5], rank=r, world_size=2)) for r in range(2)]
    assert shares == [[[1, 2]], [[5]]]


@pytest.mark.parametrize(("policy", "shared"), [("strong", False), ("default", True)])
def test_training_images_without_augmentation(make_data, tmp_path: Path, policy: str, shared: bool) -> None:
    """From the same cache, where that keeps them at the size that is wanted."""
    train_set = DetectionDataset(open_train(make_data()), SizeRule(48), policy=POLICIES[policy])
    path = tmp_path / "cache"
    path.write_bytes(bytes(cache_size(train_set.base_sizes())))
    train_set.keep_images(str(path))
    plain, expected = train_set.plain(), DetectionDataset(train_set.index, SizeRule(48))
    for i in range(len(plain)):
        sample, other = plain[i], expected[i]
        assert np.array_equal(sample.image, other.image)
        assert np.array_equal(sample.boxes, other.boxes)
    assert (train_set._cache.get(0) is not None) == shared


def test_check_as_a_script(make_data, run, tmp_path: Path) -> None:
    data = make_data()
    done = run("datasets.py", "check", "--data", data.yaml)
    assert done.returncode == 0, done.stderr
    assert "train: 4 images, 6 boxes" in done.stdout
    (data.root / "train/images/train_0.jpg").write_bytes(b"broken")
    data.rewrite(CLASSES=["__background__", "red", "gren"])
    done = run("datasets.py", "check", "--data", data.yaml, "--json", "check.json")
    assert done.returncode == 2
    assert "which is not in CLASSES; did you mean 'gren'?" in done.stdout
    assert "train_0.jpg: cannot be read as an image" in done.stdout
    assert done.stderr == f"error: {data.yaml}: training would not start: see the problems above that stop it\n"
    assert "train_0.jpg" in (tmp_path / "check.json").read_text()


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_rest_of_an_epoch_is_what_was_not_seen(world_size: int) -> None:
    """An epoch of 11 images in batches of 2 for each process, left after every one of its steps."""
    for rank in range(world_size):
        batches = TrainBatchSampler(11, 2, seed=3, rank=rank, world_size=world_size)
        batches.set_epoch(4)
        whole = list(batches)
        seen = 0
        for step, batch in enumerate(whole, 1):
            seen += len(batch) * world_size
            batches.set_epoch(4, seen)
            assert (batches.start, len(batches)) == (step, len(whole))
            assert list(batches) == whole[step:]
        batches.set_epoch(5)
        assert len(list(batches)) == len(whole)
    other = TrainBatchSampler(11, 3, seed=3)
    other.set_epoch(4, 4)
    assert other.start == 2, "a batch that was seen in part is not seen again"
    other.set_epoch(4, 4, multiple_of=4)
    assert other.start == 0
    other.set_epoch(4, 11, multiple_of=3)
    assert other.start == 4, "nothing is left"


@pytest.mark.full
def test_check_draws_the_demo_and_makes_the_folders_of_its_results(tmp_path: Path, monkeypatch) -> None:
    """`datasets.py check` of the demo said that its folders do not exist; --html failed after all the work."""
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "data_configs/demo.yaml")
    check_command(CheckOptions(data=config, json="deep/check.json", html="pages/check.html"))
    assert json.loads((tmp_path / "deep/check.json").read_text())["splits"]["train"]["images"] == 280
    assert (tmp_path / "pages/check.html").is_file()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.sampled_from([None, 7, 32]))
def test_images_of_a_data_set_are_resized_as_all_others(old: int, width: int, height: int, other: int | None) -> None:
    image = np.random.default_rng(old).integers(0, 256, (old, width, 3), np.uint8)
    size = height, other or width
    difference = np.abs(datasets._resized(image, *size).astype(int) - resize_image(image, *size))
    assert difference.max() <= 1  # 0 on x86, see tests/utils/augment/test_kernels.py
