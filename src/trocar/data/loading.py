"""Records to batches: prepared once, kept in the store on disk, or held in memory where they fit.

The order depends on seed and epoch alone, whatever the number of worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trocar.config import PreprocessSettings
from trocar.cores import usable_cores
from trocar.data.augment import Augment
from trocar.data.preprocess import Placement, PreparedMask, altered_mask, place, prepare_image, prepare_mask
from trocar.data.records import ImageArray, MaskArray, Record, join_classes
from trocar.data.store import Store
from trocar.errors import UserError, UserErrors

Progress = Callable[[int, int], None]  # called with (done, total)


class Batch(NamedTuple):
    """Frames as a network takes them.

    Shapes: frames (N, h, w, 3) uint8, masks (N, h, w) uint8 class indices (or float32 shares), 255 ignore.
    """

    frames: Tensor
    masks: Tensor
    names: list[str]


class PreparedSet(Dataset[tuple[Tensor, Tensor, str]]):
    """Records prepared for a network. Items are asked for by (epoch, index), as augmentation depends on both.

    An index beyond the records begins again at the first: a further draw of a record in one epoch (see `draws`).

    Prepared frames come from the store, where one is given. What it cannot keep is read once and held, up to
    `memory_mb`; above it each is read anew whenever asked for. All give the same samples.
    """

    def __init__(
        self,
        records: Sequence[Record],
        settings: PreprocessSettings,
        *,
        join: bool,
        training: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        memory_mb: int = 4096,
        store: Store | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.records = list(records)
        self.settings = settings
        self.join = join
        self.training = training  # whether the recipe's mask steps apply
        self.augment = augment
        self.seed = seed
        self._store = store
        self._rows: list[Path | None] = [None] * len(self.records)
        self._frames: Tensor | None = None  # of the records that are held
        self._masks: Tensor | None = None
        self._held: dict[int, int] = {}  # their place by index
        height, width = settings.size_hw
        self._mask_type = torch.float32 if settings.mask_resize == "bilinear" else torch.uint8
        problems: dict[int, UserError] = {}
        if store is not None:
            variant = "training" if training and settings.mask_steps else ""
            self._rows = store.rows(self.records, self._read, variant=variant, problems=problems, progress=progress)
        left = [index for index, row in enumerate(self._rows) if row is None and index not in problems]
        if len(left) * height * width * (3 + self._mask_type.itemsize) <= memory_mb * 2**20:
            self._hold(left, problems, progress)
        if problems:
            raise UserErrors([problems[index] for index in sorted(problems)])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        epoch, index = key
        draw, index = divmod(index, len(self.records))
        name = self.records[index].name
        frame, mask = self._prepared(index)
        if self.augment is not None:
            drawn = f"{name}#{draw}" if draw else name  # the same record again in this epoch, changed otherwise
            frame, mask = self.augment(
                frame, mask, seed=self.seed, epoch=epoch, name=drawn, others=self._prepared, count=len(self)
            )
        return frame, mask, name

    def batches(self, plan: Sequence[Sequence[tuple[int, int]]], *, workers: int = 0) -> Iterator[Batch]:
        """The batches of a plan (lists of keys), in its order whatever the number of worker processes."""
        own = (
            torch.Generator()
        )  # a loader draws a seed when it starts; from the global generator, resuming would shift it
        yield from DataLoader(
            self,
            batch_sampler=plan,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            generator=own,
        )

    def _prepared(self, index: int) -> tuple[Tensor, Tensor]:
        spot = self._held.get(index)
        if spot is not None and self._frames is not None and self._masks is not None:
            return self._frames[spot], self._masks[spot]
        row = self._rows[index]
        stored = self._store.read(row) if self._store is not None and row is not None else None
        frame, mask = stored or self._read(self.records[index])
        return _as_tensor(frame), _as_tensor(mask)

    def _read(self, record: Record) -> tuple[ImageArray, PreparedMask]:
        image, mask = record.read()
        if self.join:
            mask = join_classes(mask)
        return prepare_image(image, self.settings)[0], prepare_mask(mask, self.settings, training=self.training)

    def _hold(self, indices: Sequence[int], problems: dict[int, UserError], progress: Progress | None) -> None:
        height, width = self.settings.size_hw
        frames = torch.empty((len(indices), height, width, 3), dtype=torch.uint8)
        masks = torch.empty((len(indices), height, width), dtype=self._mask_type)
        for spot, index in enumerate(indices):
            try:
                frame, mask = self._read(self.records[index])
                frames[spot], masks[spot] = _as_tensor(frame), _as_tensor(mask)
            except UserError as problem:
                problems[index] = problem
            if progress is not None:
                progress(spot + 1, len(indices))
        self._frames, self._masks = frames, masks
        self._held = {index: spot for spot, index in enumerate(indices)}


@dataclass(frozen=True)
class NativeMasks:
    """The true masks of records at their own size, for judging; held as PNG, some kilobytes each.

    As labelled, unless the recipe applies its mask steps to all masks.
    """

    encoded: tuple[bytes, ...]
    placements: tuple[Placement, ...]

    @classmethod
    def read(cls, records: Sequence[Record], settings: PreprocessSettings, *, join: bool) -> NativeMasks:
        """Read every mask once. Raises `UserError` where one cannot be read."""
        encoded, placements = [], []
        for record in records:
            mask = record.mask()
            mask = altered_mask(join_classes(mask) if join else mask, settings)
            encoded.append(cv2.imencode(".png", mask)[1].tobytes())
            placements.append(place((mask.shape[0], mask.shape[1]), settings))
        return cls(tuple(encoded), tuple(placements))

    def __getitem__(self, index: int) -> MaskArray:
        decoded = cv2.imdecode(np.frombuffer(self.encoded[index], np.uint8), cv2.IMREAD_UNCHANGED)
        return np.asarray(decoded, np.uint8)


def draws(records: Sequence[Record], *, seed: int, epoch: int) -> list[int] | None:
    """Indices drawn in an epoch where records have weights; None where all have 1: each record once.

    Of a source of n records of weight w, `round(n w)` are drawn: each `floor(w)` times, and the rest in turn, epoch
    after epoch, in an order that the seed gives, so that over epochs none is drawn more than once more than another.
    The k-th draw of a record is its index plus k times the number of records.
    """
    if all(record.weight == 1 for record in records):
        return None
    sources: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        sources.setdefault(record.source, []).append(index)
    drawn: list[int] = []
    for number, members in enumerate(sources.values()):
        whole, rest = divmod(max(1, round(len(members) * records[members[0]].weight)), len(members))
        drawn += [index + k * len(records) for index in members for k in range(whole)]
        order = np.random.default_rng([seed, number]).permutation(len(members))
        turn = order[(epoch * rest + np.arange(rest)) % len(members)]
        drawn += [members[place] + whole * len(records) for place in turn]
    return drawn


def shuffled_plan(
    count: int, batch_size: int, *, seed: int, epoch: int, drawn: Sequence[int] | None = None
) -> list[list[tuple[int, int]]]:
    """Every record once, or what is `drawn`, shuffled by (seed, epoch), in batches of nearly equal size, never of one.

    The number of batches is that of `batch_size`, rounded up; a remainder is spread over all of them instead of
    standing alone. Where that would leave a batch of one, there is one batch fewer and one of `batch_size + 1`.
    """
    drawn = range(count) if drawn is None else drawn
    if len(drawn) < 2:
        raise UserError(
            f"{len(drawn)} training record: batch norm needs at least two images a batch",
            mend="label more frames, or change the split",
        )
    order = np.random.default_rng([seed, epoch]).permutation(len(drawn))
    batches = -(-len(drawn) // batch_size)
    while len(drawn) // batches < 2:
        batches -= 1
    return [[(epoch, drawn[index]) for index in part.tolist()] for part in np.array_split(order, batches)]


def fixed_batches_plan(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[tuple[int, int]]]:
    """Every record once, in batches that are the same every epoch; only their order is shuffled, by (seed, epoch).

    As the notebook has it: batches are formed in the order of the records, the last is what remains. A remainder of
    one joins the batch before it.
    """
    batches = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    order = np.random.default_rng([seed, epoch]).permutation(len(batches))
    return [[(epoch, index) for index in batches[number]] for number in order]


def ordered_plan(count: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Every record once, in order. For judging, where a batch of one does no harm."""
    return [
        [(0, index) for index in range(start, min(start + batch_size, count))] for start in range(0, count, batch_size)
    ]


def default_workers(device: str) -> int:
    """Processes that prepare images: many beside a GPU; beside a CPU that computes, few or none."""
    cores = usable_cores()
    return min(8, cores - 1) if device != "cpu" else min(2, cores // 4)


def _as_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor; copied where it is read-only (an image that needed no resizing), as torch wants."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _collate(samples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    frames, masks, names = zip(*samples, strict=True)
    return Batch(torch.stack(frames), torch.stack(masks), list(names))
