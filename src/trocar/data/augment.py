"""Random changes of training frames: image and mask together, the same for the same seed, epoch and record.

torchvision's transforms do the work; two changes that only make sense for instruments are our own: `repaint` and
`paste`. All draw from torch's global generator, so each sample is drawn inside a forked generator that is seeded by
what the sample is: order, worker processes and resuming change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from trocar.config import AugmentSettings
from trocar.data.records import IGNORE

Sample = tuple[Tensor, Tensor]  # a frame, uint8, and its mask, uint8 or shares


class Augment:
    """Draw one random variant of a frame and its mask. Picklable.

    What a rotation or a zoom brings in from outside the frame is black, and labelled ignore: nothing is known there.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        self._settings = settings
        self._geometry = v2.Compose(
            [
                v2.RandomHorizontalFlip(settings.flip_horizontal),
                v2.RandomVerticalFlip(settings.flip_vertical),
                v2.RandomAffine(
                    degrees=settings.rotate_degrees,
                    translate=(settings.translate, settings.translate),
                    scale=settings.scale,
                    shear=settings.shear_degrees,
                    interpolation=InterpolationMode.BILINEAR,
                    fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORE},
                ),
            ]
        )
        self._colour = v2.Compose(
            [
                v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue),
                v2.RandomGrayscale(settings.grey),
                v2.RandomApply([v2.GaussianBlur(kernel_size=7, sigma=(0.3, 1.5))], p=settings.blur),
            ]
        )

    def __call__(
        self,
        frame: Tensor,
        mask: Tensor,
        *,
        seed: int,
        epoch: int,
        name: str,
        others: Callable[[int], Sample] | None = None,
        count: int = 0,
    ) -> Sample:
        """One variant, fixed by (seed, epoch, name) and by what `others(i)`, i < `count`, gives to be pasted in.

        Shapes: frame (h, w, 3) uint8, mask (h, w) -> the same shapes and types.
        """
        if not self._settings.enabled:
            return frame, mask
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sample_seed(seed, epoch, name))
            image, label = self._placed(frame, mask)
            if others is not None and _happens(self._settings.paste):
                image, label = paste(image, label, *self._placed(*others(int(torch.randint(count, ())))))
            image = self._colour(image)
        return image.as_subclass(Tensor).permute(1, 2, 0).contiguous(), label.as_subclass(Tensor)

    def _placed(self, frame: Tensor, mask: Tensor) -> Sample:
        """Moved, and its instruments repainted or not. Shapes: frame (h, w, 3), mask (h, w) -> (3, h, w), (h, w)."""
        image, label = self._geometry(tv_tensors.Image(frame.permute(2, 0, 1)), tv_tensors.Mask(mask))
        return (repaint(image, label) if _happens(self._settings.repaint) else image), label


def repaint(image: Tensor, mask: Tensor) -> Tensor:
    """The same frame with instruments of another colour, contrast and focus: what is left to know them by is shape.

    Instruments of surgeries that were not trained on differ most in this: white or tinted shafts, black ones in dark
    corners, shafts out of focus.

    Shapes: image (3, h, w) uint8, mask (h, w) -> image (3, h, w) uint8.
    """
    inside = instrument_pixels(mask)
    if not inside.any():
        return image
    pixels = image.float()
    mean = pixels[:, inside].mean(dim=1).view(3, 1, 1)
    paint = 15 + 215 * torch.rand(1) + 20 * torch.randn(3)  # a grey, slightly tinted
    target = mean + (0.3 + 0.7 * torch.rand(1)) * (paint.view(3, 1, 1) - mean)
    contrast = 2 ** (1.5 * torch.rand(1) - 1)  # 0.5 to 1.4
    painted = (pixels - mean) * contrast + target
    if _happens(0.3):
        painted = F.gaussian_blur(painted, [13, 13], [1 + 2 * float(torch.rand(1))])
    return _blend(pixels, painted, inside)


def paste(image: Tensor, mask: Tensor, other_image: Tensor, other_mask: Tensor) -> Sample:
    """The instruments of another frame in front of this one, with their labels.

    After Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method", arXiv:2012.07177.

    Shapes: images (3, h, w) uint8, masks (h, w) -> image (3, h, w) uint8, mask (h, w).
    """
    inside = instrument_pixels(other_mask)
    return _blend(image.float(), other_image.float(), inside), torch.where(inside, other_mask, mask)


def instrument_pixels(mask: Tensor) -> Tensor:
    """Where there is instrument of any class (of a share: more than half). Shapes: mask (h, w) -> (h, w) bool."""
    return (mask > 0.5) & (mask != IGNORE)


def _blend(below: Tensor, above: Tensor, inside: Tensor) -> Tensor:
    """`above` where `inside`, with an edge as soft as a lens makes it."""
    share = F.gaussian_blur(inside.float()[None], [5, 5], [1.0])
    return torch.lerp(below, above, share).round_().clamp_(0, 255).to(torch.uint8)


def _happens(probability: float) -> bool:
    """Draws only where there is something to draw, so that a recipe without it draws what it always drew."""
    return probability > 0 and float(torch.rand(())) < probability


def sample_seed(seed: int, epoch: int, name: str) -> int:
    """A 63-bit seed from what a sample is. Equal on every machine (Python's own hash is not)."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
