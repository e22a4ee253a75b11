"""Random changes of training frames: image and mask together, the same for the same seed, epoch and record.

torchvision's transforms do the work. They draw from torch's global generator, so each sample is drawn inside a
forked generator that is seeded by what the sample is: order, worker processes and resuming change nothing.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from trocar.config import AugmentSettings
from trocar.data.records import IGNORE


class Augment:
    """Draw one random variant of a frame and its mask. Picklable.

    What a rotation or a zoom brings in from outside the frame is black, and labelled ignore: nothing is known there.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        geometry = v2.RandomAffine(
            degrees=settings.rotate_degrees,
            translate=(settings.translate, settings.translate),
            scale=settings.scale,
            shear=settings.shear_degrees,
            interpolation=InterpolationMode.BILINEAR,
            fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORE},
        )
        colour = v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
        self._transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(settings.flip_horizontal),
                v2.RandomVerticalFlip(settings.flip_vertical),
                geometry,
                colour,
                v2.RandomGrayscale(settings.grey),
                v2.RandomApply([v2.GaussianBlur(kernel_size=7, sigma=(0.3, 1.5))], p=settings.blur),
            ]
        )
        self._enabled = settings.enabled

    def __call__(self, frame: Tensor, mask: Tensor, *, seed: int, epoch: int, name: str) -> tuple[Tensor, Tensor]:
        """One variant, fixed by (seed, epoch, name).

        Shapes: frame (h, w, 3) uint8, mask (h, w) uint8 -> the same shapes and types.
        """
        if not self._enabled:
            return frame, mask
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sample_seed(seed, epoch, name))
            image = tv_tensors.Image(frame.permute(2, 0, 1))
            changed, label = self._transform(image, tv_tensors.Mask(mask))
        return changed.as_subclass(Tensor).permute(1, 2, 0).contiguous(), label.as_subclass(Tensor)


def sample_seed(seed: int, epoch: int, name: str) -> int:
    """A 63-bit seed from what a sample is. Equal on every machine (Python's own hash is not)."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
