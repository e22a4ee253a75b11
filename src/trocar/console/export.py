"""How `trocar export` speaks on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trocar.console import tell

if TYPE_CHECKING:
    from trocar.export import Exported


def show_exported(made: Exported) -> None:
    """Where it is, and how far it agrees with PyTorch."""
    found = made.export.agreement
    lines = [
        f"{made.model / made.form}: {made.bytes / 1e6:.1f} MB",
        f"compared with PyTorch on {found.frames} frames, {found.records}",
        f"mean Dice {found.dice:.4f}, PyTorch {found.dice_torch:.4f} (may fall by {found.dice_limit:g})",
        f"{found.pixels:.3%} of the pixels differ (limit {found.pixel_limit:.2%}); "
        f"largest difference of a probability {found.probability:.4f}",
    ]
    if made.export.precision == "int8":
        lines.append(f"layers in float, where int8 cost most: {', '.join(made.export.in_float) or 'none'}")
    for line in lines:
        tell(line)
