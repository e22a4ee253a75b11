from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trocar.config import AugmentSettings, PreprocessSettings
from trocar.data.augment import Augment
from trocar.data.loading import PreparedSet, ordered_plan, shuffled_plan
from trocar.data.records import Record
from trocar.errors import UserError, UserErrors

SETTINGS = PreprocessSettings(size_hw=(32, 48))


def read_square(index: int) -> np.ndarray:
    image = np.full((32, 48, 3), index, np.uint8)
    image[8:24, 8 + index : 24 + index] = 255
    return image


def read_square_mask(index: int) -> np.ndarray:
    return (read_square(index)[..., 0] == 255).astype(np.uint8)


def make_records(count: int) -> list[Record]:
    from functools import partial

    return [
        Record(f"r{index}", "g", "made", partial(read_square, index), partial(read_square_mask, index))
        for index in range(count)
    ]


@given(count=st.integers(2, 200), batch_size=st.integers(2, 40), epoch=st.integers(0, 5))
def test_batches_hold_every_record_once_and_are_even(count: int, batch_size: int, epoch: int) -> None:
    plan = shuffled_plan(count, batch_size, seed=7, epoch=epoch)
    sizes = [len(batch) for batch in plan]
    assert sorted(index for batch in plan for _, index in batch) == list(range(count))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= batch_size + 1
    assert all(key[0] == epoch for batch in plan for key in batch)


def test_order_changes_with_the_epoch_and_repeats_with_the_seed() -> None:
    first, again, later = (shuffled_plan(50, 8, seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert first == again
    assert [key[1] for batch in first for key in batch] != [key[1] for batch in later for key in batch]


def test_one_training_record_is_refused() -> None:
    with pytest.raises(UserError, match="at least two"):
        shuffled_plan(1, 8, seed=0, epoch=0)


def test_loading_draws_nothing_from_the_global_generator() -> None:
    prepared = PreparedSet(make_records(4), SETTINGS, join=True, augment=Augment(AugmentSettings()))
    before = torch.get_rng_state()
    list(prepared.batches(ordered_plan(4, 2)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine of one core
def test_held_streamed_and_worker_samples_are_equal() -> None:
    plan = shuffled_plan(7, 3, seed=0, epoch=2)
    augment = Augment(AugmentSettings(repaint=0.5, paste=0.5))
    held = PreparedSet(make_records(7), SETTINGS, join=True, augment=augment)
    streamed = PreparedSet(make_records(7), SETTINGS, join=True, augment=augment, memory_mb=0)
    assert held._frames is not None
    assert streamed._frames is None
    for one, two, three in zip(held.batches(plan), streamed.batches(plan), held.batches(plan, workers=2), strict=True):
        assert one.names == two.names == three.names
        assert torch.equal(one.frames, two.frames)
        assert torch.equal(one.frames, three.frames)
        assert torch.equal(one.masks, two.masks)
        assert torch.equal(one.masks, three.masks)


def test_augmentation_moves_image_and_mask_together_and_marks_what_comes_in() -> None:
    settings = AugmentSettings(brightness=0, contrast=0, saturation=0, hue=0, blur=0, grey=0)
    augment = Augment(settings)
    frame, mask = torch.from_numpy(read_square(3)), torch.from_numpy(read_square_mask(3))
    seen_ignore = False
    for epoch in range(20):
        changed, label = augment(frame, mask, seed=0, epoch=epoch, name="r3")
        assert changed.dtype == label.dtype == torch.uint8
        assert set(label.unique().tolist()) <= {0, 1, 255}
        outside = label == 255
        seen_ignore |= bool(outside.any())
        sure = ~outside
        # bilinear edges aside, bright pixels are instrument and dark ones are not
        agree = ((changed[..., 0] > 128) == (label == 1))[sure].float().mean()
        assert agree > 0.97
    assert seen_ignore


def test_augmentation_depends_on_seed_epoch_and_name_alone() -> None:
    augment = Augment(AugmentSettings())
    frame, mask = torch.from_numpy(read_square(3)), torch.from_numpy(read_square_mask(3))
    before = torch.get_rng_state()
    first = augment(frame, mask, seed=0, epoch=1, name="r3")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again = augment(frame, mask, seed=0, epoch=1, name="r3")
    other = augment(frame, mask, seed=0, epoch=2, name="r3")
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_every_bad_record_is_named_at_once() -> None:
    def fail() -> np.ndarray:
        raise UserError("cannot read this")

    records = make_records(4)
    records[1] = Record("bad1", "g", "made", fail, fail)
    records[3] = Record("bad2", "g", "made", lambda: read_square(0), lambda: np.zeros((5, 5), np.uint8))
    with pytest.raises(UserErrors) as caught:
        PreparedSet(records, SETTINGS, join=True)
    assert "cannot read this" in str(caught.value)
    assert "mask is 5x5 but its image is 48x32" in str(caught.value)
    assert "bad2" in str(caught.value)


def test_an_ordered_plan_drops_nothing() -> None:
    assert [len(batch) for batch in ordered_plan(7, 3)] == [3, 3, 1]


@pytest.mark.parametrize("memory_mb", [0, 4096])
def test_images_that_need_no_resizing_load_without_a_warning(drawn: Path, memory_mb: int) -> None:
    from trocar.data.sources import open_source

    record = open_source(drawn).records[0]
    prepared = PreparedSet([record], PreprocessSettings(size_hw=(64, 80)), join=True, memory_mb=memory_mb)
    frame, _, _ = prepared[0, 0]
    assert np.array_equal(frame.numpy(), record.image())


def test_records_of_a_drawn_set_load(drawn: Path) -> None:
    from trocar.data.sources import open_source

    source = open_source(drawn)
    prepared = PreparedSet(source.records, SETTINGS, join=False)
    batch = next(prepared.batches(ordered_plan(len(prepared), len(prepared))))
    assert batch.frames.shape == (20, 32, 48, 3)
    assert set(batch.masks.unique().tolist()) <= {0, 1, 2, 255}
