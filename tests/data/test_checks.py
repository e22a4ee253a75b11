from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trocar.data.checks import CheckReport, check
from trocar.data.files import write_jpeg, write_png
from trocar.data.records import Record, Source
from trocar.data.sources import open_source


def noise(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bar() -> np.ndarray:
    mask = np.zeros((24, 32), np.uint8)
    mask[4:10, 8:24] = 255
    return mask


def make(root: Path, stems: list[str]) -> Path:
    for seed, stem in enumerate(stems):
        write_png(root / f"images/{stem}.png", noise(seed))
        write_png(root / f"masks/{stem}.png", bar())
    return root


def told(report: CheckReport, record: str | None) -> str:
    return "\n".join(finding.what for finding in report.findings if finding.record == record)


def test_a_clean_folder(tmp_path: Path) -> None:
    make(tmp_path, ["p1/a", "p1/b", "p2/a"])
    write_png(tmp_path / "masks/p2/a.png", np.zeros((24, 32), np.uint8))
    seen: list[tuple[int, int]] = []
    report = check([open_source(tmp_path)], progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.findings == ()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    summary = report.sources[0]
    assert summary.groups == {"p1": 2, "p2": 1}
    assert summary.sizes == {"32x24": 3}
    assert summary.empty_masks == 1
    share = 2 * 6 * 16 / (3 * 24 * 32)
    assert summary.class_shares == pytest.approx({"background": 1 - share, "instrument": share})
    assert (summary.records, summary.read, summary.ignored_share) == (3, 3, 0.0)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"] is True


def test_every_bad_record_is_told_at_once(tmp_path: Path) -> None:
    names = ["good", "no_mask", "no_image", "size", "cut", "deep", "text", "grey_levels", "twice", "jpeg_mask", "both"]
    make(tmp_path, names)
    (tmp_path / "masks/no_mask.png").unlink()
    (tmp_path / "images/no_image.png").unlink()
    write_png(tmp_path / "masks/size.png", np.zeros((12, 16), np.uint8))
    (tmp_path / "images/cut.png").unlink()
    write_jpeg(tmp_path / "images/cut.jpg", noise(1))
    data = (tmp_path / "images/cut.jpg").read_bytes()
    (tmp_path / "images/cut.jpg").write_bytes(data[: len(data) // 2])
    write_png(tmp_path / "images/deep.png", np.zeros((24, 32), np.uint16))
    (tmp_path / "images/text.png").write_text("hello")
    aliased = bar()
    aliased[3, 8:24] = (np.arange(16) * 10 + 20).astype(np.uint8)
    write_png(tmp_path / "masks/grey_levels.png", aliased)
    write_jpeg(tmp_path / "images/twice.jpg", noise(2))
    Image.fromarray(bar()).save(tmp_path / "masks/jpeg_mask.png", "JPEG")
    (tmp_path / "images/both.png").write_bytes(b"")
    (tmp_path / "masks/both.png").write_text("hello")

    report = check([open_source(tmp_path)])
    assert not report.ok
    assert "mask is 16x12 but its image is 32x24" in told(report, "size")
    assert "cut off" in told(report, "cut")
    assert "16 bits" in told(report, "deep")
    assert "text file" in told(report, "text")
    assert "anti-aliasing" in told(report, "grey_levels")
    assert "JPEG" in told(report, "jpeg_mask")
    assert "0 bytes" in told(report, "both")
    assert "text file" in told(report, "both")
    listed = told(report, None)
    assert "the image has no mask" in listed
    assert "the mask has no image" in listed
    assert "would all be record twice" in listed
    assert len(report.errors) == 7 + 1 + 3
    assert not report.warnings
    assert (report.sources[0].records, report.sources[0].read) == (8, 1)
    for finding in report.findings:
        assert finding.where
        assert finding.mend
        assert finding.record is None or finding.record in finding.where


def test_grey_rgba_and_turned_images_are_fine(tmp_path: Path) -> None:
    make(tmp_path, ["grey", "rgba", "turned"])
    Image.fromarray(noise(5)[..., 0]).save(tmp_path / "images/grey.png")
    opaque = np.concatenate([np.repeat(bar()[..., None], 3, 2), np.full((24, 32, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "masks/rgba.png")
    (tmp_path / "images/turned.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(6, 32, 24)).save(tmp_path / "images/turned.jpg", exif=exif)  # stored 24 wide, seen 32 wide
    report = check([open_source(tmp_path)])
    assert report.findings == ()
    assert report.sources[0].sizes == {"32x24": 3}


def test_equal_images_are_a_warning_within_and_across_groups_and_sources(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", ["p1/a", "p1/b", "p2/c", "p2/d", "p2/e"]), make(tmp_path / "two", ["p1/x"])
    write_png(one / "images/p2/c.png", noise(0))  # as p1/a
    write_png(one / "images/p2/e.png", noise(3))  # as p2/d
    write_jpeg(two / "images/p1/x.jpg", noise(9))
    (two / "images/p1/x.png").unlink()
    report = check([open_source(one), open_source(two)])
    assert report.ok
    assert [finding.what for finding in report.warnings] == [
        "2 records of 2 groups have the same image",
        "2 records of one group have the same image",
    ]
    assert report.warnings[0].where == "p1/a, p2/c"
    write_png(two / "images/p1/x.png", noise(0))
    (two / "images/p1/x.jpg").unlink()
    report = check([open_source(one), open_source(two)])
    assert report.warnings[0].what == "3 records of 3 groups have the same image"


def test_masks_of_background_alone_and_nothing_left(tmp_path: Path) -> None:
    make(tmp_path, ["a", "b"])
    for stem in "ab":
        write_png(tmp_path / f"masks/{stem}.png", np.zeros((24, 32), np.uint8))
    report = check([open_source(tmp_path)])
    assert report.ok
    assert "none of the 2 masks shows an instrument" in told(report, None)
    for stem in "ab":
        (tmp_path / f"masks/{stem}.png").write_bytes(b"")
    report = check([open_source(tmp_path)])
    assert math.isnan(report.sources[0].class_shares["instrument"])
    assert report.to_dict()["sources"][0]["class_shares"]["instrument"] is None


def test_instances_of_another_size_are_an_error(tmp_path: Path) -> None:
    write_png(make(tmp_path, ["a"]) / "instances/a.png", np.zeros((5, 5), np.uint8))
    assert "instance mask is 5x5 but its image is 32x24" in told(check([open_source(tmp_path)]), "a")


def test_a_defect_of_a_reader_keeps_its_traceback(tmp_path: Path) -> None:
    def defect() -> np.ndarray:
        raise KeyError("ours")

    record = Record(name="a", group="a", dataset="d", image=defect, mask=defect)
    with pytest.raises(KeyError, match="ours"):
        check([Source("d", tmp_path, ("background", "x"), (record,))])


@pytest.mark.real
def test_real_rigid_frames_have_no_errors_and_one_false_alarm(shared: Path) -> None:
    report = check([open_source(shared / "data/endovis15/rigid")])
    assert report.ok
    counts = {kind: len(findings) for kind, findings in report.by_kind.items()}
    assert counts == {"holes": 1, "shifted": 1}  # the mask of OP1/img_39 is right, its outline hard to see
    summary = report.sources[0]
    assert summary.sizes == {"640x480": 120}
    assert summary.empty_masks == 0
    assert sum(summary.class_shares.values()) == pytest.approx(1.0)
