"""How `trocar live` speaks on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from trocar.console import out, say
from trocar.plain import many

if TYPE_CHECKING:
    from trocar.live import LiveSummary


def announce(url: str) -> None:
    """Say on stderr where the page is."""
    say(f"open {url} in a browser on this machine; Ctrl-C ends it")
    say("For research only. Not a medical device.")


def show_live(summary: LiveSummary) -> None:
    """A table of what was done, and what was lost on the way."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(summary).items():
        table.add_row(name, text)
    out.print(table)


def _rows(summary: LiveSummary) -> dict[str, str]:
    rate, latency = summary.frames_per_second, summary.latency_ms
    rows = {
        "ended": f"{summary.ended}, after {summary.seconds:.1f} s",
        "frames": f"{summary.read} came, {summary.shown} shown, {summary.dropped} dropped for newer ones",
        "a second": "-" if rate is None else f"{rate:.1f} shown",
        "latency": ", ".join(
            f"{name} {'-' if value is None else f'{value:.1f}'} ms" for name, value in latency.items()
        ),
        "late": f"{summary.late} over {summary.late_ms:g} ms{_share(summary.late, summary.shown)}",
    }
    if summary.lost or summary.damaged:
        rows["broken"] = f"{summary.lost} frames could not be decoded, {summary.damaged} were damaged"
    if summary.reconnections:
        rows["connection"] = f"lost and made again {many(summary.reconnections, 'time')}"
    if summary.smoothing != "none":
        rows["smoothing"] = f"{summary.smoothing}; began anew {many(summary.cuts, 'time')}"
    if recording := summary.recording:
        missed = f"; {recording['missed']} shown frames are not in it" if recording["missed"] else ""
        rows["recording"] = f"{recording['file']}, {recording['frames']} frames{missed}"
    return rows


def _share(count: int, of: int) -> str:
    return f", {count / of:.2%} of those shown" if of else ""
