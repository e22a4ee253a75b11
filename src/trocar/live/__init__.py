"""A feed through a model as it comes: newest frame wins, shown on a local page or in a window, latency counted."""

from trocar.live.session import LATE_MS, LiveSummary, live

__all__ = ["LATE_MS", "LiveSummary", "live"]
