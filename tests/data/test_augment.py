"""What is our own in augmentation: `repaint` and `paste`. What torchvision does is tested with the loading."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from trocar.config import AugmentSettings
from trocar.data.augment import Augment, paste, repaint

STILL = {
    **dict.fromkeys(("flip_horizontal", "flip_vertical", "rotate_degrees", "translate", "shear_degrees"), 0.0),
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue", "blur", "grey"), 0.0),
    "scale": (1.0, 1.0),
}
REACH = 3  # pixels over which the edge of what is painted or pasted fades


def a_frame(seed: int, box: tuple[slice, slice], value: int = 1) -> tuple[Tensor, Tensor]:
    """Noise with an instrument in a box. Shapes: (3, 60, 80) uint8, (60, 80) uint8."""
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 60, 80), np.uint8))
    mask = torch.zeros(60, 80, dtype=torch.uint8)
    mask[box] = value
    return image, mask


def near(mask: Tensor) -> Tensor:
    return torch.from_numpy(cv2.dilate(mask.numpy(), np.ones((2 * REACH + 1,) * 2, np.uint8))) > 0


def far_inside(mask: Tensor) -> Tensor:
    return torch.from_numpy(cv2.erode(mask.numpy(), np.ones((2 * REACH + 1,) * 2, np.uint8))) > 0


LEFT, RIGHT = (slice(10, 40), slice(5, 35)), (slice(20, 50), slice(45, 75))


def test_repaint_changes_instruments_and_nothing_else() -> None:
    torch.manual_seed(0)
    image, mask = a_frame(1, LEFT)
    painted = [repaint(image, mask) for _ in range(8)]
    for one in painted:
        assert one.dtype == torch.uint8
        assert torch.equal(one[:, ~near(mask)], image[:, ~near(mask)])
    means = torch.stack([one[:, far_inside(mask)].float().mean(dim=1) for one in painted])
    assert means.std(dim=0).min() > 15  # grey levels: another colour each time


def test_repaint_leaves_a_frame_without_instrument_as_it_is() -> None:
    image, mask = a_frame(1, (slice(0, 0), slice(0, 0)))
    mask[:5] = 255
    assert repaint(image, mask) is image


def test_paste_brings_pixels_and_labels_of_the_other_frame() -> None:
    (image, mask), (other, other_mask) = a_frame(1, LEFT, 2), a_frame(2, RIGHT, 3)
    other_mask[:4] = 255  # unknown there: not pasted
    pasted, label = paste(image, mask, other, other_mask)
    inside = other_mask == 3
    assert torch.equal(label, torch.where(inside, 3, mask))
    assert torch.equal(pasted[:, far_inside(inside.to(torch.uint8))], other[:, far_inside(inside.to(torch.uint8))])
    assert torch.equal(pasted[:, ~near(inside.to(torch.uint8))], image[:, ~near(inside.to(torch.uint8))])


def test_paste_of_shares_keeps_them_as_they_are() -> None:
    (image, mask), (other, other_mask) = a_frame(1, LEFT), a_frame(2, RIGHT)
    shares = other_mask.float() * 0.75
    label = paste(image, mask.float(), other, shares)[1]
    assert label[RIGHT].unique().tolist() == [0.75]
    assert label[LEFT].unique().tolist() == [1.0]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_pasted_samples_come_as_often_as_asked_for_and_are_the_same_again(share: float) -> None:
    augment = Augment(AugmentSettings(**STILL, paste=share))
    image, mask = a_frame(1, LEFT)
    other, other_mask = a_frame(2, RIGHT)

    def variant(epoch: int) -> tuple[Tensor, Tensor]:
        return augment(
            image.permute(1, 2, 0),
            mask,
            seed=0,
            epoch=epoch,
            name="r",
            others=lambda index: (other.permute(1, 2, 0), other_mask),
            count=4,
        )

    variants = [variant(epoch) for epoch in range(100)]
    assert sum(bool(label[RIGHT].any()) for _, label in variants) == pytest.approx(100 * share, abs=15)
    assert all(bool(label[LEFT].all()) for _, label in variants)
    again = variant(7)
    assert torch.equal(again[0], variants[7][0])
    assert torch.equal(again[1], variants[7][1])


def test_every_frame_can_give_what_is_pasted() -> None:
    augment = Augment(AugmentSettings(**STILL, paste=1.0))
    image, mask = a_frame(1, LEFT)
    asked: set[int] = set()

    def others(index: int) -> tuple[Tensor, Tensor]:
        asked.add(index)
        return image.permute(1, 2, 0), mask

    for epoch in range(60):
        augment(image.permute(1, 2, 0), mask, seed=0, epoch=epoch, name="r", others=others, count=5)
    assert asked == set(range(5))


def test_a_recipe_without_them_draws_what_it_always_drew() -> None:
    image, mask = a_frame(1, LEFT)
    frame = image.permute(1, 2, 0)
    plain, with_paste = Augment(AugmentSettings()), Augment(AugmentSettings(paste=1e-12, repaint=1e-12))
    options = {"seed": 0, "epoch": 1, "name": "r", "others": lambda index: (frame, mask), "count": 2}
    assert torch.equal(plain(frame, mask, **options)[0], plain(frame, mask, seed=0, epoch=1, name="r")[0])
    assert not torch.equal(plain(frame, mask, **options)[0], with_paste(frame, mask, **options)[0])
