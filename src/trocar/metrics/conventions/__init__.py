"""Conventions by name: the ways in which figures of this field were published, so that ours can stand beside them.

A convention fixes what no formula says: at which size, thresholded or not, averaged over what, and what a frame
without instrument counts. Each follows its authors' code, where that could be found, and says so where not. Frames
are scored one at a time and leave a small row; figures are made from all rows in the order of the frames. Only
`per-image` is trocar's own; the others exist to compare. Two things no source knows are the same in all: pixels of 255
in the truth count nowhere, and a frame that is ignored entirely has no score.
"""

from __future__ import annotations

from collections.abc import Mapping

from trocar.metrics.conventions.base import Convention, Figures, Frame, Row
from trocar.metrics.conventions.classes import ISINET, POOLED, SAR_RARP50
from trocar.metrics.conventions.network import KVASIR, NOTEBOOK
from trocar.metrics.conventions.overlap import ENDOVIS2015, MEDAI2021, PER_IMAGE, TERNAUS
from trocar.metrics.conventions.robust_mis import ROBUST_MIS

__all__ = ["CONVENTIONS", "Convention", "Figures", "Frame", "Row"]

CONVENTIONS: Mapping[str, Convention] = {
    one.name: one
    for one in (
        PER_IMAGE,
        NOTEBOOK,
        KVASIR,
        MEDAI2021,
        TERNAUS,
        ISINET,
        ROBUST_MIS,
        SAR_RARP50,
        ENDOVIS2015,
        POOLED,
    )
}
