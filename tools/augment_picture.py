"""The picture of docs/train.md: a drawn frame, its instruments repainted, and those of other frames pasted in.

trocar demo --preset varied --out demo
python tools/augment_picture.py demo docs/images/augment.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from readme_picture import framed

from trocar.data.augment import paste, repaint
from trocar.data.files import write_png
from trocar.data.records import Record
from trocar.data.sources import open_source
from trocar.inference.draw import overlay

FRAMES = (10, 110, 77, 137)  # that several kinds of instruments are seen


def main(demo: Path, out: Path) -> None:
    """Write the picture: the frame and its repaints above, its truth and what is pasted below."""
    torch.manual_seed(0)
    records = open_source(demo / "data").records
    (image, mask), *others = [_read(records[index]) for index in FRAMES]
    above = [image] + [repaint(image, mask) for _ in others]
    below = [torch.from_numpy(overlay(_shown(image), mask.numpy()).transpose(2, 0, 1))]
    below += [paste(image, mask, *other)[0] for other in others]
    write_png(out, np.vstack([_row(above), _row(below)]))


def _read(record: Record) -> tuple[torch.Tensor, torch.Tensor]:
    image, mask = record.read()
    return torch.tensor(image).permute(2, 0, 1), torch.tensor(mask)


def _shown(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _row(images: list[torch.Tensor]) -> np.ndarray:
    return np.hstack([framed(_shown(one)) for one in images])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
