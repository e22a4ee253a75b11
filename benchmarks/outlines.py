"""Masks as polygons: how far each format's own program is from the mask, and how long tracing and filling take.

    OMP_NUM_THREADS=1 python benchmarks/outlines.py [--data SOURCE]

Every area of a record (one for each class and instrument) is traced as the writers do, with holes cut open, and painted
by the program that the format's users use: pycocotools (COCO, and CVAT's export of masks), PIL as LabelMe's
shape_to_mask, cv2.fillPoly as Ultralytics' polygon2mask. Without --data: 40 drawn scenes of 1280x1024, by instrument.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as pycoco

from trocar.data.annotations.raster import fill
from trocar.data.annotations.rings import BoolArray, Region, Ring, join, joined, trace
from trocar.data.annotations.shapes import pieces
from trocar.data.sources import open_source
from trocar.synthetic import write_dataset


def by_trocar(regions: list[Region], size: tuple[int, int]) -> BoolArray:
    """As every reader of trocar."""
    return fill([joined(region) for region in regions], size)


def by_pycocotools(regions: list[Region], size: tuple[int, int]) -> BoolArray:
    """As COCO.annToMask: the union of all polygons."""
    parts = pycoco.frPyObjects([joined(region).ravel().tolist() for region in regions], *size)
    return np.asarray(pycoco.decode(pycoco.merge(parts)), dtype=bool)


def by_labelme(regions: list[Region], size: tuple[int, int]) -> BoolArray:
    """As labelme.utils.shape_to_mask, shape by shape."""
    picture = Image.new("L", size[::-1])
    for region in regions:
        ImageDraw.Draw(picture).polygon([(x, y) for x, y in joined(region).tolist()], outline=1, fill=1)
    return np.asarray(picture) > 0


def by_ultralytics(regions: list[Region], size: tuple[int, int]) -> BoolArray:
    """As polygon2mask: one ring an instrument, of whole pixels."""
    painted: NDArray[np.uint8] = np.zeros(size, np.uint8)
    ring: Ring = join([ring for region in regions for ring in (region.outer, *region.holes)])
    cv2.fillPoly(painted, [ring.astype(np.int32)], 1)  # type: ignore[call-overload]
    return np.asarray(painted > 0)


Painter = Callable[[list[Region], tuple[int, int]], BoolArray]
PAINTERS: dict[str, tuple[Painter, float]] = {
    "trocar, every format": (by_trocar, 0.0),
    "pycocotools (COCO, CVAT)": (by_pycocotools, 0.0),
    "PIL (LabelMe), as written": (by_labelme, 0.25),
    "PIL (LabelMe), on the edge": (by_labelme, 0.0),
    "fillPoly (YOLO), as written": (by_ultralytics, 0.25),
    "fillPoly (YOLO), on the edge": (by_ultralytics, 0.0),
}


def main() -> None:
    """Print a row for each program: pixels that differ as a share of the mask, and the worst and mean overlap."""
    warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2.4
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or write_dataset(
            Path(folder) / "drawn", procedures=8, frames_per_procedure=5, clip_frames=1, size_hw=(1024, 1280)
        )
        areas = [
            piece.pixels
            for record in open_source(data).records
            for piece in pieces(record.mask(), record.instances() if record.instances else None)
        ]
        seconds, vertices, several = 0.0, [], 0
        for pixels in areas:
            started = time.process_time()
            regions = trace(pixels)
            seconds += time.process_time() - started
            vertices.append(sum(len(joined(region)) for region in regions))
            several += len(regions) > 1 or bool(regions[0].holes)
        print(
            f"{len(areas)} areas, {several} with holes or several regions; {np.median(vertices):.0f} vertices (median)"
        )
        print(f"tracing takes {1000 * seconds / len(areas):.1f} ms an area")
        for name, (paint, inset) in PAINTERS.items():
            measure(name, paint, inset, areas)


def measure(name: str, paint: Painter, inset: float, areas: list[BoolArray]) -> None:
    """One row."""
    wrong = total = exact = 0
    overlaps, seconds = [], 0.0
    for pixels in areas:
        regions = trace(pixels, inset=inset)
        started = time.process_time()
        theirs = paint(regions, (pixels.shape[0], pixels.shape[1]))
        seconds += time.process_time() - started
        differing = int(np.count_nonzero(theirs != pixels))
        wrong, total, exact = wrong + differing, total + int(np.count_nonzero(pixels)), exact + (differing == 0)
        overlaps.append(np.count_nonzero(theirs & pixels) / np.count_nonzero(theirs | pixels))
    print(
        f"{name:30} differing {wrong / total:8.4%}  same areas {exact / len(areas):7.2%}  "
        f"IoU mean {np.mean(overlaps):.5f} worst {min(overlaps):.4f}  {1000 * seconds / len(areas):6.1f} ms"
    )


if __name__ == "__main__":
    main()
