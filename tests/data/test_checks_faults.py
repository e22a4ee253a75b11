"""Each fault is planted in a drawn set, once, and must be found there and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from faulty import LISTED, PLANTED, anti_alias, plant
from trocar.data.checks import KINDS, CheckReport, check, masks, picture
from trocar.data.checks.facts import examine
from trocar.data.files import write_png
from trocar.data.records import Source
from trocar.data.sources import open_source
from trocar.synthetic import draw_scene, write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "data"
    return write_dataset(
        folder, procedures=5, frames_per_procedure=6, empty_share=0, clip_frames=1, size_hw=(256, 320), seed=3
    )


@pytest.fixture(scope="module")
def faulty(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(plant(clean, tmp_path_factory.mktemp("faulty") / "data"))


@pytest.fixture(scope="module")
def report(faulty: Source) -> CheckReport:
    return check([faulty])


def test_clean_scenes_have_no_finding_but_the_gaps_between_drawn_jaws(clean: Path) -> None:
    report = check([open_source(clean)])
    assert report.ok
    assert set(report.by_kind) <= {"holes"}


@pytest.mark.parametrize("seed", [11, 12])
def test_varied_scenes_have_no_error_and_no_misplaced_mask(seed: int, tmp_path: Path) -> None:
    write_dataset(
        tmp_path, procedures=3, frames_per_procedure=4, clip_frames=1, size_hw=(128, 160), preset="varied", seed=seed
    )
    report = check([open_source(tmp_path)])
    assert report.ok
    assert not {"mirrored", "shifted", "duplicate", "near-duplicate", "blank"} & set(report.by_kind)


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_found_and_nothing_else(kind: str, report: CheckReport) -> None:
    found = {place.record for finding in report.by_kind[kind] for place in finding.at}
    assert found >= set(PLANTED[kind])
    if kind != "holes":  # drawn jaws have gaps of their own
        assert found == set(PLANTED[kind])
        assert len(report.by_kind[kind]) == 1


def test_no_other_kind_is_found_and_errors_are_counted(report: CheckReport) -> None:
    assert set(report.by_kind) == {*PLANTED, "listing"}
    assert [LISTED[0] in str(finding.where) for finding in report.by_kind["listing"]] == [True]
    assert len(report.errors) == 6
    assert report.sources[0].read == report.sources[0].records - 5
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities)
    for finding in report.findings:
        assert finding.mend
        assert finding.where


def test_records_give_the_same_facts_together_and_alone(faulty: Source) -> None:
    together = examine(faulty.records)
    assert [[facts] for facts in together] == [examine([record]) for record in faulty.records]
    assert len({facts.to_json() for facts in together}) == len(together) - 1  # one is a whole copy


def test_copies_are_told_with_their_groups_and_shifts_with_their_size(report: CheckReport) -> None:
    (same,), (near,) = report.by_kind["duplicate"], report.by_kind["near-duplicate"]
    assert "2 records of 2 groups have the same image" in same.what
    assert "2 records of 2 groups have nearly the same image" in near.what
    assert near.where == "procedure-04/0003, procedure-05/again"
    assert "6.2% of the width to the left and 6.2% of the height up" in report.by_kind["shifted"][0].what
    assert "mirrored left to right" in report.by_kind["mirrored"][0].what
    assert "likely here: anti-aliasing" in report.by_kind["mask-values"][0].what


def test_every_kind_is_explained_in_the_docs() -> None:
    page = (REPOSITORY / "docs/doctor.md").read_text()
    for name, kind in KINDS.items():
        assert f"`{name}`" in page, name
        assert kind.title in page, kind.title


def test_masks_that_are_all_shifted_are_told_once(clean: Path, tmp_path: Path) -> None:
    for path in sorted((clean / "images").rglob("*.png")):
        name = path.relative_to(clean / "images")
        mask = cv2.imread(str(clean / "masks" / name), cv2.IMREAD_UNCHANGED)
        write_png(tmp_path / "images" / name, cv2.imread(str(path))[..., ::-1])
        move = np.float32([[1, 0, 16], [0, 1, 0]])
        write_png(tmp_path / "masks" / name, cv2.warpAffine((mask > 0).astype(np.uint8) * 255, move, (320, 256)))
    found = check([open_source(tmp_path)]).by_kind
    (finding,) = found["shifted"]
    told = re.fullmatch(
        r"throughout, masks fit their images better moved by (.*)% of the width to the left", finding.what
    )
    assert float(told[1]) == pytest.approx(5, abs=0.5)


# ------------------------------------------------------------------ sets, not frames


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def make(root: Path, groups: dict[str, int], classes: tuple[int, ...] = (0, 1)) -> Path:
    """Frames of noise with a bar of each class."""
    (root / "classes.json").parent.mkdir(parents=True, exist_ok=True)
    for group, count in groups.items():
        for index in range(count):
            mask = np.zeros((24, 32), np.uint8)
            for row, value in enumerate(classes):
                mask[8 * row : 8 * row + 6, 6:26] = value
            write_png(root / f"images/{group}/{index:02d}.png", noise(hash((group, index)) % 2**32))
            write_png(root / f"masks/{group}/{index:02d}.png", mask)
    return root


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"a": 14, "b": 4, "c": 4}, "64% of the records are of one of 3 groups, a"),
        ({"a": 22}, "all 22 records are of one group, a"),
        ({"a": 11, "b": 11}, None),
        ({"a": 9, "b": 2, "c": 2}, None),  # too few to say
    ],
)
def test_a_group_that_dominates(groups: dict[str, int], told: str | None, tmp_path: Path) -> None:
    found = check([open_source(make(tmp_path, groups))]).by_kind.get("dominant-group", [])
    assert [told in finding.what for finding in found] == ([True] if told else [])


def test_a_rare_and_an_absent_class(tmp_path: Path) -> None:
    make(tmp_path, {"a": 11, "b": 11})
    (tmp_path / "classes.json").write_text('{"background": 0, "shaft": 1, "tip": 2, "clip": 3}')
    rare = cv2.imread(str(tmp_path / "masks/a/00.png"), cv2.IMREAD_UNCHANGED)
    rare[0, :8] = 2
    write_png(tmp_path / "masks/a/00.png", rare)
    report = check([open_source(tmp_path)])
    told = [finding.what for finding in report.by_kind["imbalance"]]
    assert told[0].startswith("class tip is rare: in 1 record of 22")
    assert told[1] == "class clip is in no mask"
    assert report.sources[0].class_records == {"background": 22, "shaft": 22, "tip": 1, "clip": 0}


def test_mixed_resolutions_are_one_warning(tmp_path: Path) -> None:
    make(tmp_path, {"a": 3})
    write_png(tmp_path / "images/a/00.png", cv2.resize(noise(1), (64, 32)))
    write_png(tmp_path / "masks/a/00.png", np.zeros((32, 64), np.uint8))
    (finding,) = check([open_source(tmp_path)]).by_kind["resolutions"]
    assert "2 sizes, from 32 to 64 pixels" in finding.what


def test_a_logo_in_the_same_place_of_every_frame(tmp_path: Path) -> None:
    for group in "ab":
        for index in range(10):
            seed = index + 20 * (group == "b")
            scene = draw_scene(seed, size_hw=(120, 160), procedure=seed)
            image = scene.image.copy()
            cv2.putText(image, "ACME", (100, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
            write_png(tmp_path / f"images/{group}/{index}.png", image)
            write_png(tmp_path / f"masks/{group}/{index}.png", (scene.parts > 0).astype(np.uint8) * 255)
    (finding,) = check([open_source(tmp_path)]).by_kind["text"]
    assert "same place of 20 frames, top right" in finding.what


def test_the_heat_map_is_the_mean_of_the_masks(tmp_path: Path) -> None:
    make(tmp_path, {"a": 2})
    write_png(tmp_path / "masks/a/00.png", np.zeros((24, 32), np.uint8))
    heat = np.array(check([open_source(tmp_path)]).sources[0].heat)
    expected = np.zeros((24, 32))
    expected[8:14, 6:26] = 0.5  # one mask of two; a cell is a pixel here
    np.testing.assert_allclose(heat, expected, atol=1e-3)


# ------------------------------------------------------------------ causes and measures


def shape() -> np.ndarray:
    mask = np.zeros((200, 240), np.uint8)
    cv2.line(mask, (10, 190), (200, 30), 255, 30)
    return mask


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (anti_alias(shape()), "anti-aliasing"),
        (cv2.resize(cv2.resize(shape(), (120, 100), interpolation=cv2.INTER_AREA), (240, 200)), "anti-aliasing"),
        (cv2.imdecode(cv2.imencode(".jpg", shape(), [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 0), "a JPEG on the way"),
        (shape() // 255 * 70, "labels of several classes (0, 70)"),
        (np.repeat((shape() // 255)[..., None] * np.uint8([200, 10, 0]), 1, axis=2), "a colour map of 2 colours"),
        (cv2.GaussianBlur(shape(), (0, 0), 12), "a map of probabilities"),
        (np.random.default_rng(0).integers(60, 200, (50, 50, 3), dtype=np.uint8), "a photograph"),
    ],
)
def test_the_likely_cause_of_unexpected_values(stored: np.ndarray, words: str) -> None:
    assert words in str(masks.likely_cause(stored))


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, (9, 11), elements=st.integers(0, 1)))
def test_pieces_and_holes_agree_with_labelling(mask: np.ndarray) -> None:
    outer, inner = masks._areas(mask)
    labels, pieces = ndimage.label(mask, structure=np.ones((3, 3)))
    filled = [ndimage.binary_fill_holes(labels == i + 1).sum() for i in range(pieces)]
    assert sorted(outer.tolist()) == sorted(filled)
    background, count = ndimage.label(np.pad(mask == 0, 1, constant_values=True))
    holes = [ndimage.binary_fill_holes(background == i + 1, np.ones((3, 3))).sum() for i in range(count)]
    holes.pop(background[0, 0] - 1)
    assert sorted(inner.tolist()) == sorted(holes)


def test_blur_grows_with_blurring_whatever_the_scene() -> None:
    for seed in range(4):
        grey = cv2.cvtColor(draw_scene(seed, size_hw=(240, 320), preset="varied").image, cv2.COLOR_RGB2GRAY)
        values = [picture.blur(grey), *(picture.blur(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (2, 4, 8))]
        assert values == sorted(values)
        assert values[0] < 0.9 < values[2]
    assert picture.blur(np.full((240, 320), 80, np.uint8)) == 1.0


def test_the_hash_is_of_the_lowest_waves_against_their_median() -> None:
    for seed in range(8):
        grey = cv2.cvtColor(draw_scene(seed, size_hw=(240, 320), preset="varied").image, cv2.COLOR_RGB2GRAY)
        waves = cv2.dct(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))
        lowest = [*waves[:8, :8].ravel()[1:], waves[8, 0]]
        bits = "".join(str(int(value > np.median(lowest))) for value in lowest)
        assert picture.perceptual_hash(grey) == int(bits, 2)


def test_a_frame_that_is_lit_throughout_has_no_surround() -> None:
    grey = cv2.cvtColor(draw_scene(1, size_hw=(256, 320)).image, cv2.COLOR_RGB2GRAY)
    view, margins = picture._view(np.maximum(grey, 13))
    assert view.all()
    assert margins == (0, 0, 0, 0)


def test_the_black_surround_is_measured() -> None:
    image = np.zeros((256, 320, 3), np.uint8)
    image[:, 80:288] = draw_scene(1, size_hw=(256, 208)).image
    seen = picture.measure(image)
    assert seen.surround == pytest.approx((80 / 320, 0, 32 / 320, 0), abs=0.02)
    assert seen.outside == pytest.approx(112 / 320, abs=0.02)
    assert seen.marks_outside == 0
