"""The pictures of docs/doctor.md: each fault planted in a drawn scene, as the page of `trocar check --out` shows it.

    python tools/doctor_pictures.py [folder, default docs/images/doctor]

The scenes and faults are those of the tests (tests/faulty.py). No frame of a patient is in them.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from faulty import PLANTED, plant  # noqa: E402 - found by the line above
from trocar.data.checks import check  # noqa: E402
from trocar.data.sources import open_source  # noqa: E402
from trocar.reporting.doctor_pictures import heat_map, suspect  # noqa: E402
from trocar.synthetic import write_dataset  # noqa: E402

HEIGHT, GAP, COLOURS = 150, 6, 96  # pixels, pixels, of the palette: keeps the files small
MOST_PANELS = 3


def unpack(uri: str) -> NDArray[np.uint8]:
    """The picture of a data URI at the height of a panel."""
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    pixels = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    width = round(pixels.shape[1] * HEIGHT / pixels.shape[0])
    return np.asarray(cv2.resize(pixels, (width, HEIGHT), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def write(path: Path, panels: list[NDArray[np.uint8]]) -> None:
    """Panels side by side, the gaps between them transparent."""
    width = sum(panel.shape[1] for panel in panels) + GAP * (len(panels) - 1)
    strip = np.zeros((HEIGHT, width, 4), np.uint8)
    left = 0
    for panel in panels:
        strip[:, left : left + panel.shape[1]] = np.dstack([panel, np.full(panel.shape[:2], 255, np.uint8)])
        left += panel.shape[1] + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(strip).quantize(COLOURS, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def main() -> None:
    """Draw, spoil, check, and write a strip for each kind of finding."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs/images/doctor"
    with tempfile.TemporaryDirectory() as temporary:
        clean = Path(temporary) / "clean"
        write_dataset(
            clean, procedures=5, frames_per_procedure=6, empty_share=0, clip_frames=1, size_hw=(256, 320), seed=3
        )
        source = open_source(plant(clean, Path(temporary) / "faulty"))
        report = check([source])
        for kind, found in report.by_kind.items():
            if kind in PLANTED:
                panels = suspect(found[0], [source]).panels[:MOST_PANELS]
                write(out / f"{kind}.png", [unpack(panel.picture) for panel in panels])
        write(out / "heat.png", [unpack(heat_map(report.sources[0].heat))])
    for path in sorted(out.glob("*.png")):
        print(f"{path.stat().st_size:>8,} {path}")


if __name__ == "__main__":
    main()
