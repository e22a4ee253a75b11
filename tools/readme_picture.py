"""The picture of the README from a finished demo: drawn scenes, their truth, and what the model found.

    trocar demo --out demo
    python tools/readme_picture.py demo docs/images/demo.png

Shown are the held-out frames at the quarters of the Dice of frames with instruments: not the best ones.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np

import trocar
from trocar.data.files import write_png
from trocar.data.records import join_classes
from trocar.data.sources import open_source
from trocar.inference.draw import overlay

GAP = 6  # pixels of white between pictures


def main(demo: Path, out: Path) -> None:
    """Write the picture."""
    rows = csv.DictReader((demo / "report" / "per_image.csv").read_text(encoding="utf-8").splitlines())
    ranked = sorted((float(row["dice"]), row["record"]) for row in rows if row["dice"] not in ("", "nan"))
    chosen = [ranked[round(share * (len(ranked) - 1))] for share in (0.2, 0.4, 0.6, 0.8)]
    predictor = trocar.load(demo / "run")
    columns = []
    for dice, name in chosen:
        record = open_source(demo / "data").select([name])[0]
        image, mask = record.read()
        pictures = [image, overlay(image, join_classes(mask)), overlay(image, predictor(image).mask)]
        print(f"{name}: Dice {dice:.3f}")
        columns.append(np.vstack([framed(picture) for picture in pictures]))
    write_png(out, titled(np.hstack(columns)))


def framed(picture: np.ndarray) -> np.ndarray:
    """A white line below and to the right."""
    return cv2.copyMakeBorder(picture, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def titled(picture: np.ndarray) -> np.ndarray:
    """A column on the left that says what each row is."""
    height = picture.shape[0] // 3
    label = np.full((picture.shape[0], 90, 3), 255, np.uint8)
    for row, text in enumerate(("image", "truth", "found")):
        place = (6, row * height + height // 2)
        cv2.putText(label, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (60, 60, 60), 1, cv2.LINE_AA)
    return np.hstack([label, picture])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
