"""Splits that look at the pictures: balanced sides, near-duplicates kept together, and what changed since."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from trocar.config import SplitSettings
from trocar.data import alike
from trocar.data.balance import deal, worth_of
from trocar.data.checks.duplicates import NEAR_BITS, NEAR_CORRELATION
from trocar.data.checks.facts import Facts
from trocar.data.checks.picture import Picture
from trocar.data.files import write_jpeg, write_png
from trocar.data.sources import open_source
from trocar.data.splits import Split, make_split, read_split, write_split
from trocar.errors import UserError, UserErrors


def scene(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture of its own for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def square(share: float) -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    mask[:, : round(64 * share)] = 255
    return mask


def write(root: Path, name: str, seed: int, share: float = 0.25) -> None:
    write_png(root / f"images/{name}.png", scene(seed))
    write_png(root / f"masks/{name}.png", square(share))


def write_groups(root: Path, groups: int = 6, frames: int = 4) -> Path:
    for group, frame in itertools.product(range(groups), range(frames)):
        write(root, f"p{group}/{frame}", 100 * group + frame)
    return root


def sides_of(split: Split, fold: str) -> dict[str, str]:
    return {name: side for side in ("train", "val", "test") for name in split.folds[fold].side(side)}  # type: ignore[arg-type]


@pytest.mark.parametrize("stratify", [False, True])
def test_k_fold_tests_every_record_once_and_cuts_no_group(tmp_path: Path, stratify: bool) -> None:
    source = open_source(write_groups(tmp_path, groups=7, frames=3))
    split = make_split(source, SplitSettings(strategy="k-fold", folds=3, stratify=stratify))
    assert list(split.folds) == ["1of3", "2of3", "3of3"]
    tested = [name for fold in split.folds.values() for name in fold.test]
    assert sorted(tested) == sorted(record.name for record in source.records)
    assert sorted(len(fold.test) for fold in split.folds.values()) == [6, 6, 9]
    for name in split.folds:
        side = sides_of(split, name)
        assert len(side) == len(source)
        for group in split.groups.values():
            assert len({side[record] for record in group}) == 1
    assert split.cut_groups is None
    assert split.seed == 0
    write_split(split, tmp_path / "split.yaml")
    assert read_split(tmp_path / "split.yaml") == split


def test_more_folds_than_groups_are_refused(tmp_path: Path) -> None:
    source = open_source(write_groups(tmp_path, groups=3, frames=1))
    with pytest.raises(UserError, match="3 groups cannot make 5 folds"):
        make_split(source, SplitSettings(strategy="k-fold"))


def misfit(amounts: np.ndarray, shares: np.ndarray, sides: np.ndarray) -> float:
    """What `deal` lowers, written out: squared distance of each side's share of each column, records as all others."""
    parts = amounts / amounts.sum(axis=0)
    weights = np.array([amounts.shape[1] - 1, *[1] * (amounts.shape[1] - 1)])
    held = np.array([parts[sides == side].sum(axis=0) for side in range(len(shares))])
    return float((weights * (held - shares[:, None]) ** 2 / shares[:, None]).sum())


@pytest.mark.parametrize("seed", range(6))
def test_dealing_comes_near_the_best_of_all_ways(seed: int) -> None:
    amounts = np.random.default_rng(seed).gamma(1.0, size=(9, 3))
    shares = np.array([0.3, 0.7])
    ways = [np.array(way) for way in itertools.product([0, 1], repeat=9) if 0 < sum(way) < 9]
    costs = np.sort([misfit(amounts, shares, way) for way in ways])
    assert misfit(amounts, shares, deal(amounts, shares, seed)) <= costs[len(costs) // 50]  # of 510, among the best ten


def test_no_side_stays_empty() -> None:
    amounts = np.array([[1000.0], [1.0], [1.0]])
    assert sorted(deal(amounts, np.full(3, 1 / 3), 0).tolist()) == [0, 1, 2]
    assert set(deal(amounts, np.array([0.0, 1.0]), 0).tolist()) == {0, 1}


def test_balanced_folds_beat_those_of_scikit_learn(tmp_path: Path) -> None:
    """Groups of very unequal foreground: its folds balance a class a record, ours shares of each kind too."""
    draw = np.random.default_rng(0)
    for group in range(16):
        level = draw.choice([0.0, 0.1, 0.3, 0.8])
        for frame in range(int(draw.integers(2, 7))):
            write(tmp_path, f"p{group:02d}/{frame}", 100 * group + frame, level)
    source = open_source(tmp_path)
    foreground = np.array([(record.mask() == 1).mean() for record in source.records])
    groups = [record.group for record in source.records]
    split = make_split(source, SplitSettings(strategy="k-fold", folds=4, stratify=True))
    place = {record.name: number for number, record in enumerate(source.records)}
    ours = [[place[name] for name in fold.test] for fold in split.folds.values()]
    kinds = np.digitize(foreground, [0.01, 0.2, 0.5])
    theirs = [test for _, test in StratifiedGroupKFold(4).split(kinds, kinds, groups)]

    def uneven(folds: list) -> tuple[float, float]:
        return (
            float(np.std([len(fold) for fold in folds])),
            float(np.std([foreground[fold].sum() for fold in folds])),
        )

    plain = make_split(source, SplitSettings(strategy="k-fold", folds=4))
    assert uneven(ours)[0] <= uneven(theirs)[0] + 1
    assert uneven(ours)[1] <= uneven(theirs)[1]
    assert uneven(ours)[1] < uneven([[place[n] for n in fold.test] for fold in plain.folds.values()])[1]


def test_worth_counts_kinds_and_classes(tmp_path: Path) -> None:
    for name, share in {"a": 0.0, "b": 0.25, "c": 0.5, "d": 0.75, "e": 1.0}.items():
        write(tmp_path, name, ord(name), share)
    source = open_source(tmp_path)
    facts = alike.read_facts(source)
    worth = worth_of(source, facts)
    rows = np.array([worth[name] for name in "abcde"])
    assert rows[:, 1] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert rows[:, 2:].argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert rows[:, 0].tolist() == rows[:, 2:].sum(axis=1).tolist() == [1] * 5
    three = dataclasses.replace(source, classes=("background", "shaft", "tip"))
    assert worth_of(three, facts)["c"][7:].tolist() == [1, 0]


def drawn_facts(count: int, seed: int) -> list[Facts]:
    """Records some of which are near-duplicates: close hashes, equal hashes, thumbnails that agree or do not."""
    draw = np.random.default_rng(seed)
    kinds = draw.integers(0, 1 << 63, 12, dtype=np.uint64)
    thumbs = draw.integers(0, 256, (6, 256))
    facts = []
    for _ in range(count):
        bits = sum(1 << int(bit) for bit in draw.integers(0, 64, draw.integers(0, 5)))
        noise = draw.normal(0, draw.choice([0, 20, 60]), 256)
        thumb = np.clip(thumbs[draw.integers(6)] + noise, 0, 255).astype(np.uint8)
        if draw.random() < 0.1:
            thumb[:] = 7  # one even grey: like nothing
        facts.append(
            Facts(
                picture=Picture(
                    int(draw.choice(kinds)) ^ bits, thumb.tobytes(), 0, 0, 0, 0, (0.0, 0.0, 0.0, 0.0), 0, b"", 0
                )
            )
        )
    facts[3] = Facts()  # could not be read
    return facts


def near_by_definition(one: Facts, other: Facts) -> bool:
    if one.picture is None or other.picture is None:
        return False
    if (one.picture.hash ^ other.picture.hash).bit_count() > NEAR_BITS:
        return False
    thumbs = [np.frombuffer(fact.picture.thumbnail, np.uint8).astype(float) for fact in (one, other) if fact.picture]
    return min(np.ptp(thumb) for thumb in thumbs) > 0 and float(np.corrcoef(*thumbs)[0, 1]) >= NEAR_CORRELATION


@pytest.mark.parametrize("seed", range(3))
def test_twins_are_those_that_comparing_all_pairs_finds(seed: int) -> None:
    facts = drawn_facts(120, seed)
    groups = np.random.default_rng(seed).integers(0, 20, len(facts))
    truth = {
        (i, j)
        for i, j in itertools.combinations(range(len(facts)), 2)
        if groups[i] != groups[j] and near_by_definition(facts[i], facts[j])
    }
    twins = alike.Twins(facts)
    assert {tuple(sorted(pair)) for pair in twins.across(groups).tolist()} == truth
    assert len(truth) > 20
    of, among = list(range(60)), list(range(60, 120))
    expected = {i for i in of if any(near_by_definition(facts[i], facts[j]) for j in among)}
    found = twins.nearest(of, among)
    assert {i for i, _, _ in found} == expected
    assert all(near_by_definition(facts[i], facts[j]) for i, j, _ in found)
    assert [score for _, _, score in found] == sorted((score for _, _, score in found), reverse=True)


@pytest.mark.parametrize("among", [[1, 2], [2, 1]])
def test_equal_hashes_are_all_compared(among: list[int]) -> None:
    """Of two records with the hash of the first, one is like it and the other is not, whichever comes first."""
    thumbs = np.random.default_rng(0).integers(0, 256, (2, 256), dtype=np.uint8)
    shots = [Picture(77, thumbs[n].tobytes(), 0, 0, 0, 0, (0.0, 0.0, 0.0, 0.0), 0, b"", 0) for n in (0, 0, 1)]
    twins = alike.Twins([Facts(picture=shot) for shot in shots])
    assert twins.nearest([0], among) == [(0, 1, pytest.approx(1))]
    assert twins.nearest([2], [0, 1]) == []


def test_near_duplicates_of_two_groups_stay_together(tmp_path: Path) -> None:
    write_groups(tmp_path)
    image = scene(100)  # p1/0, as a JPEG of half the size under another name
    write_jpeg(tmp_path / "images/p4/9.jpg", np.asarray(cv2.resize(image, (32, 24)), np.uint8), quality=80)
    write_png(tmp_path / "masks/p4/9.png", np.zeros((24, 32), np.uint8))
    source = open_source(tmp_path)
    apart = 0
    for seed in range(3):
        side = sides_of(make_split(source, SplitSettings(seed=seed)), "random-groups")
        apart += side["p1/0"] != side["p4/9"]
        split = make_split(source, SplitSettings(seed=seed, join_near_duplicates=True))
        side = sides_of(split, "random-groups")
        assert len({side[name] for name in split.groups["p1+p4"]}) == 1
        assert len(split.groups["p1+p4"]) == 9
    assert apart  # without joining, chance alone decides
    assert "2 groups hold near-duplicates of each other and count as one: p1, p4" in split.notes
    assert split.fingerprint == source.fingerprint()
    left_out = make_split(source, SplitSettings(strategy="leave-one-group-out", join_near_duplicates=True))
    assert list(left_out.folds) == ["p0", "p1+p4", "p2", "p3", "p5"]


def test_a_tail_is_cut_of_each_video_though_they_are_joined(tmp_path: Path) -> None:
    write_groups(tmp_path, groups=4)
    write(tmp_path, "p2/copy", 100)
    settings = SplitSettings(
        strategy="leave-one-group-out", val_from="tail", val_share=0.25, join_near_duplicates=True, stratify=True
    )
    fold = make_split(open_source(tmp_path), settings).fold("p0")
    assert fold.val == ("p1/3", "p2/copy", "p3/3")


def test_where_no_groups_are_known_near_duplicates_become_groups(tmp_path: Path) -> None:
    for index in range(12):
        write(tmp_path, f"{index:02d}", index // 2 if index < 4 else index)
    split = make_split(open_source(tmp_path), SplitSettings(join_near_duplicates=True))
    assert split.groups["00+01"] == ("00", "01")
    assert split.groups["02+03"] == ("02", "03")
    assert len(split.groups) == 10
    assert [note for note in split.notes if "patients are not known" in note and "4 near-duplicates in 2 sets" in note]
    assert not [note for note in split.notes if "near-identical images may be split apart" in note]


def test_one_picture_everywhere_cannot_be_divided(tmp_path: Path) -> None:
    for group, frame in itertools.product("abc", range(2)):
        write(tmp_path, f"{group}/{frame}", frame)
    source = open_source(tmp_path)
    with pytest.raises(UserError, match="link all 3 groups into one"):
        make_split(source, SplitSettings(join_near_duplicates=True))
    assert make_split(source, SplitSettings()).folds


def test_unreadable_records_are_all_named(tmp_path: Path) -> None:
    write_groups(tmp_path)
    for name in ("p1/0", "p2/3"):
        (tmp_path / f"images/{name}.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserErrors) as caught:
        make_split(open_source(tmp_path), SplitSettings(stratify=True))
    assert [name for name in ("p1/0", "p2/3") if name in str(caught.value)] == ["p1/0", "p2/3"]


def test_the_official_validation_list_is_used(tmp_path: Path) -> None:
    source = open_source(write_groups(tmp_path))
    names = {group: tuple(record.name for record in records) for group, records in source.groups.items()}
    official = {"train": names["p0"] + names["p1"], "val": names["p2"], "test": names["p3"] + names["p0"][:1]}
    cut = dataclasses.replace(source, official={**official, "train": official["train"][1:]})
    split = make_split(cut, SplitSettings(strategy="official"))
    assert split.fold().val == names["p2"]
    assert split.cut_groups == "the official lists put 1 groups on two sides, the first p0"


# ------------------------------------------------------------------ data that changed


def test_training_refuses_changed_data_and_names_what_changed(tmp_path: Path) -> None:
    data = write_groups(tmp_path / "data")
    split = make_split(open_source(data), SplitSettings())
    write_split(split, tmp_path / "split.yaml")
    size = (data / "images/p1/2.png").stat().st_size
    assert split.file_bytes["p1/2"].startswith(f"{size}+")
    again = SplitSettings(strategy="file", file=str(tmp_path / "split.yaml"))
    assert make_split(open_source(data), again) == split

    write_png(data / "images/p1/2.png", scene(1, 50, 64))
    for folder in ("images", "masks"):
        (data / folder / "p3/0.png").unlink()
    write(data, "p5/new", 9)
    with pytest.raises(UserError) as caught:
        make_split(open_source(data), again)
    text = str(caught.value)
    assert "1 of its records are gone (first p3/0)" in text
    assert "1 records are not in it (first p5/new)" in text
    assert "1 records have files of other sizes (first p1/2: p1/2 had " in text
    new = (data / "images/p1/2.png").stat().st_size
    assert f"had {split.file_bytes['p1/2']} bytes and has {new}+" in text


def test_records_in_other_groups_are_named(tmp_path: Path) -> None:
    source = open_source(write_groups(tmp_path, groups=4, frames=2))
    split = make_split(source, SplitSettings())
    moved = tuple(dataclasses.replace(r, group="p0" if r.name == "p1/1" else r.group) for r in source.records)
    with pytest.raises(UserError, match=r"1 records are in other groups \(first p1/1\)"):
        split.check_against(dataclasses.replace(source, records=moved))


def test_files_of_older_versions_still_open(tmp_path: Path) -> None:
    source = open_source(write_groups(tmp_path / "data"))
    split = make_split(source, SplitSettings())
    write_split(split, tmp_path / "split.yaml")
    lines = (tmp_path / "split.yaml").read_text().splitlines(keepends=True)
    start, end = lines.index("file_bytes:\n"), lines.index("groups:\n")
    (tmp_path / "split.yaml").write_text("".join(lines[:start] + lines[end:]))
    old = read_split(tmp_path / "split.yaml")
    assert old.file_bytes == {}
    assert old.own_fingerprint() == split.own_fingerprint()
    old.check_against(source)
    write_png(tmp_path / "data/images/p1/2.png", scene(1, 50, 64))
    with pytest.raises(UserError, match="other files, sizes of files"):
        old.check_against(open_source(tmp_path / "data"))
