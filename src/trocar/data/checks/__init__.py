"""The doctor: reads every record of some sources once and says all that is wrong with them, why, and how to mend it.

An `error` keeps a record from being used: training would stop at it. A `warning` is for a person to judge. Frames
without any instrument are counted; they are no fault. `facts` holds what is kept of a record (about 2 kB), `picture`,
`masks` and `outline` measure it, `duplicates` compares records, `rules` turns facts into findings, `cache` remembers.
"""

from __future__ import annotations

from trocar.data.checks.checking import check
from trocar.data.checks.findings import KINDS, At, CheckReport, Finding, SourceSummary

__all__ = ["KINDS", "At", "CheckReport", "Finding", "SourceSummary", "check"]
