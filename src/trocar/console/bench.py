"""How `trocar bench` speaks on the terminal."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from trocar.console import out, tell
from trocar.sizes import shown_size

if TYPE_CHECKING:
    from trocar.bench import Bench


def show_bench(result: Bench) -> None:
    """The stages, the whole of it, memory and cold start; and on what machine."""
    network, frame = shown_size(result.network_hw), shown_size(result.frame_hw)
    tell(f"{result.model} at {network}, {result.engine}; frames of {frame}")
    table = Table(box=None, pad_edge=False)
    for column in (f"ms, of {result.frames} frames", "p50", "p95", "p99", "processor"):
        table.add_column(column, justify="left" if column.startswith("ms") else "right")
    for stage, times in result.stages.items():
        table.add_row(stage, *(f"{value:.2f}" for value in (times.p50, times.p95, times.p99, times.processor)))
    out.print(table)
    table = Table(box=None, pad_edge=False)
    for column in ("end to end, writing", "frames/s", "over network alone", "processor ms a frame"):
        table.add_column(column, justify="left" if column.startswith("end") else "right")
    for name, run in result.end_to_end.items():
        label = {"both": "masks and overlays"}.get(name, name)
        table.add_row(label, f"{run.frames_per_second:.1f}", f"{run.overhead:+.0%}", f"{run.processor_ms:.1f}")
    out.print(table)
    tell(f"engine of these: {result.engine_of_stream}")
    memory = result.memory
    if memory.peak_mb is not None:
        growth = memory.growth_mb_per_1000_frames
        slope = "" if growth is None else f", {growth:+.1f} MB in 1000 frames"
        tell(f"memory: {memory.peak_mb:.0f} MB at most{slope}")
    if result.cold_start_s:
        tell(f"new process to the first mask: {median(result.cold_start_s):.2f} s")
    facts = result.machine
    tell(f"machine: {facts['cpu']}, {facts['cores']} cores, {' '.join(facts['flags']) if facts['flags'] else ''}")  # type: ignore[arg-type]
