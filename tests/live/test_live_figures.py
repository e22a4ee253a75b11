from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.live.figures import Figures, LatencyHistogram


@given(st.lists(st.floats(0.2, 1e6), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
@settings(deadline=None)
def test_percentiles_agree_with_numpy_within_a_percent(values: list[float], share: float) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert exact * (1 - 1e-9) <= histogram.percentile(share) <= exact * 1.01 * (1 + 1e-9)


def test_nothing_has_no_percentile_and_nonsense_does_no_harm() -> None:
    histogram = LatencyHistogram()
    assert math.isnan(histogram.percentile(0.5))
    for value in (0.0, -3.0, 1e12):
        histogram.add(value)
    assert histogram.count == 3
    assert histogram.percentile(0.5) == pytest.approx(0.1)


def test_figures_by_hand() -> None:
    """Frames every 40 ms, 10 ms old, one of them 250 ms: late."""
    figures = Figures(late_ms=200)
    assert math.isnan(figures.recent_rate())
    assert all(math.isnan(value) for value in figures.recent_latency_ms().values())
    for n in range(10):
        now = 100 + 0.04 * n
        assert figures.shown(now - (0.25 if n == 4 else 0.01), now) == pytest.approx(250 if n == 4 else 10)
    assert (figures.count, figures.late) == (10, 1)
    assert figures.recent_rate() == pytest.approx(25)
    assert figures.recent_latency_ms() == {"p50": 10, "p95": 250, "p99": 250, "last": 10}
    assert figures.latency_ms()["p50"] == pytest.approx(10, rel=0.01)
    assert figures.latency_ms()["p99"] == pytest.approx(250, rel=0.01)


def test_exactly_at_the_limit_is_not_late() -> None:
    figures = Figures(late_ms=250)
    figures.shown(1.0, 1.25)
    assert figures.late == 0


def test_the_recent_figures_forget() -> None:
    figures = Figures(late_ms=200)
    for n in range(500):
        figures.shown(n - (1.0 if n < 100 else 0.02), n)
    assert figures.recent_latency_ms()["p99"] == pytest.approx(20)
    assert figures.latency_ms()["p95"] == pytest.approx(1000, rel=0.01)
