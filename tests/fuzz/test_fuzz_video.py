"""A hundred spoilt videos in every run of the tests; `make fuzz` runs two thousand."""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest
from fuzz_video import fuzz

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory by /proc"),
    pytest.mark.timeout(280),
]


def test_spoilt_videos_end_in_frames_or_in_an_error_a_person_can_mend() -> None:
    answers = list(fuzz(range(100), seed=int(os.environ.get("TROCAR_FUZZ_SEED", "0"))))
    assert [answer for answer in answers if answer["ended"] == "defect"] == []
    ends = Counter(answer["ended"] for answer in answers)
    assert ends["frames"] > 10, "some damage is survived"
    assert ends["error"] > 10, "some is not"
    assert ends["frames, then an error"] > 0
