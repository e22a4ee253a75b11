"""Pairs of means that others have published: without their frames they can only be checked for consistency."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trocar.errors import UserError
from trocar.metrics.comparison import JensenCheck, jensen_check

_PAIR = re.compile(r"(?P<name>.+)=(?P<dice>\d*\.?\d+)(?P<percent>%?)/(?P<jaccard>\d*\.?\d+)(?P=percent)")


@dataclass(frozen=True)
class Published:
    """A published mean Dice and mean Jaccard, and whether they can be of one set of images."""

    name: str
    dice: float
    jaccard: float
    given: str  # as written, decimals and all
    check: JensenCheck

    @property
    def verdict(self) -> str:
        """What the check says, in plain words."""
        span = (
            f"with this mean Dice the mean Jaccard is at least {self.check.low:.4f} and at most {self.check.high:.4f}"
        )
        if not self.check.possible:
            return (
                f"{self.name}: {self.given} cannot be means over one set of images: {span}. They were averaged over "
                "different images or in different ways, or one is misprinted."
            )
        if self.check.at_low:
            return (
                f"{self.name}: {self.given} is possible, but to the digits given the Jaccard is D / (2 - D): as of "
                "pooled pixels, or one computed from the other. Means over images that differ are not like that."
            )
        return f"{self.name}: {self.given} is possible: {span}."


def read_published(text: str) -> Published:
    """Parse "NAME=0.9013/0.8234" or "NAME=90.13%/82.34%". Raises `UserError` for anything else."""
    found = _PAIR.fullmatch(text.strip())
    mend = "write NAME=DICE/JACCARD, as notebook=0.9013/0.8234 or notebook=90.13%/82.34%"
    if found is None:
        raise UserError(f"--published {text} is no pair of figures", mend=mend)
    scale = 100 if found["percent"] else 1
    dice, jaccard = float(found["dice"]) / scale, float(found["jaccard"]) / scale
    if max(dice, jaccard) > 1:
        raise UserError(f"--published {text}: Dice and Jaccard are at most 1, or 100%", mend=mend)
    check = jensen_check(
        dice,
        jaccard,
        dice_rounding=_half_a_unit(found["dice"]) / scale,
        jaccard_rounding=_half_a_unit(found["jaccard"]) / scale,
    )
    given = f"Dice {found['dice']}{found['percent']}, Jaccard {found['jaccard']}{found['percent']}"
    return Published(found["name"].strip(), dice, jaccard, given, check)


def _half_a_unit(digits: str) -> float:
    """Half a unit of the last decimal: what rounding may have taken."""
    return 0.5 * 0.1 ** len(digits.partition(".")[2])
