from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from trocar.data.files import write_png
from trocar.data.leakage import Audit, audit
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.reporting.audit import write_audit


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, Source]:
    root = tmp_path_factory.mktemp("audited")
    pictures = {"<a>/0": 1, "<a>/1": 2, "b/0": 1, "b/1": 3, "c/0": 4}  # b/0 is a copy of <a>/0
    for name, seed in pictures.items():
        write_png(root / f"data/images/{name}.png", scene(seed))
        write_png(root / f"data/masks/{name}.png", np.full((48, 64), 255, np.uint8))
    split = {"train": ["<a>/0", "<a>/1", "c/0"], "test": ["b/0", "b/1", "c/0"]}
    (root / "split.json").write_text(json.dumps(split))
    source = open_source(root / "data")
    return audit(root / "split.json", source), source


def test_the_page_shows_what_leaks_and_needs_nothing_else(audited: tuple[Audit, Source], tmp_path: Path) -> None:
    found, source = audited
    page = write_audit(found, source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.html", "audit.json"]
    text = page.read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "http" not in text
    assert "<script" not in text
    assert "<a>/0" not in text  # a name is text, never markup
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    assert found.verdict in plain
    for sentence in found.findings:
        assert sentence in plain
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions == [
        "test: b/0, group b",
        "training: &lt;a&gt;/0, group &lt;a&gt;",
        "both sides: c/0, group c",
    ]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(addresses[0].partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert np.abs(shown[..., ::-1].astype(int) - scene(1)).mean() < 6
    assert json.loads((tmp_path / "audit.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_without_pictures_there_are_none(audited: tuple[Audit, Source], tmp_path: Path) -> None:
    text = write_audit(*audited, tmp_path, pictures=False).read_text(encoding="utf-8")
    assert "<img" not in text
    assert "embeds frames" not in text
    assert "b/0" in text
