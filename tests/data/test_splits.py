from pathlib import Path

import numpy as np
import pytest

from trocar.config import SplitSettings
from trocar.data.records import Record, Source
from trocar.data.splits import Fold, Split, make_split, read_split, write_split
from trocar.errors import UserError, UserErrors


def make_source(sizes: dict[str, int], *, video: bool = False, every: int = 1) -> Source:
    records = [
        Record(
            name=f"{group}/{index * every:04d}",
            group=group,
            dataset="made",
            image=lambda: np.zeros((4, 4, 3), np.uint8),
            mask=lambda: np.zeros((4, 4), np.uint8),
            frame=index * every if video else None,
        )
        for group, size in sizes.items()
        for index in range(size)
    ]
    return Source("made", Path("made"), ("background", "instrument"), tuple(records))


def groups_of(names: tuple[str, ...]) -> set[str]:
    return {name.split("/")[0] for name in names}


@pytest.mark.parametrize("seed", range(5))
def test_random_groups_stay_whole_and_every_record_is_used_once(seed: int) -> None:
    source = make_source({f"p{index}": 3 + index for index in range(10)})
    fold = make_split(source, SplitSettings(seed=seed)).fold()
    assert sorted(fold.train + fold.val + fold.test) == sorted(record.name for record in source.records)
    assert not groups_of(fold.train) & groups_of(fold.test)
    assert not groups_of(fold.train) & groups_of(fold.val)
    assert not groups_of(fold.val) & groups_of(fold.test)


def test_the_same_seed_gives_the_same_split_and_another_another() -> None:
    source = make_source({f"p{index}": 4 for index in range(12)})
    first, again, other = (make_split(source, SplitSettings(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.folds != other.folds


def test_leave_one_group_out_holds_out_each_group_once() -> None:
    source = make_source({"a": 8, "b": 8, "c": 8})
    split = make_split(source, SplitSettings(strategy="leave-one-group-out", val_from="tail", val_share=0.25))
    assert list(split.folds) == ["a", "b", "c"]
    for name, fold in split.folds.items():
        assert groups_of(fold.test) == {name}
        assert len(fold.train) == 12
        assert len(fold.val) == 4
        assert name not in groups_of(fold.train + fold.val)
    assert split.cut_groups is not None
    assert "last 25%" in split.cut_groups


def test_the_tail_is_last_in_time_after_a_gap() -> None:
    source = make_source({"a": 40, "b": 40}, video=True, every=5)
    settings = SplitSettings(strategy="leave-one-group-out", val_from="tail", val_share=0.25, gap_frames=25)
    fold = make_split(source, settings).fold("a")
    train, val = ([int(name.split("/")[1]) for name in names] for names in (fold.train, fold.val))
    assert val == list(range(150, 200, 5))
    assert max(train) == 120  # 125 to 145 are the gap
    assert val[0] - max(train) > 25


def test_official_lists_and_every_sixth_by_name() -> None:
    source = make_source({f"{index:02d}": 1 for index in range(20)})
    names = [record.name for record in source.records]
    official = {"train": tuple(reversed(names[:14])), "val": (), "test": tuple(names[14:])}
    source = Source(source.dataset, source.root, source.classes, source.records, official=official)
    fold = make_split(source, SplitSettings(strategy="official", val_from="every-sixth")).fold()
    assert fold.val == (names[5], names[11])
    assert fold.test == tuple(names[14:])
    assert len(fold.train) == 12


def test_a_split_file_comes_back_equal(tmp_path: Path) -> None:
    split = make_split(make_source({"a": 5, "b": 5, "ü": 5}), SplitSettings(seed=3))
    write_split(split, tmp_path / "split.yaml")
    assert read_split(tmp_path / "split.yaml") == split


def test_a_leak_must_be_declared() -> None:
    facts = {"strategy": "by hand", "fingerprint": "sha256:0", "groups": {"a": ("a/1", "a/2"), "b": ("b/1",)}}
    leaky = {"only": Fold(train=("a/1", "a/2"), val=("a/1",), test=("b/1",))}
    with pytest.raises(ValueError, match="shared_records"):
        Split(**facts, folds=leaky, cut_groups="meant")
    split = Split(**facts, folds=leaky, cut_groups="meant", shared_records="as the notebook has it")
    assert split.fold().val == ("a/1",)


def test_a_cut_group_must_be_declared() -> None:
    facts = {"strategy": "by hand", "fingerprint": "sha256:0", "groups": {"a": ("a/1", "a/2"), "b": ("b/1",)}}
    with pytest.raises(ValueError, match="cut_groups"):
        Split(**facts, folds={"only": Fold(train=("a/1",), val=("b/1",), test=("a/2",))})


def test_other_data_is_refused_with_what_differs() -> None:
    source = make_source({"a": 5, "b": 5, "c": 5})
    split = make_split(source, SplitSettings())
    with pytest.raises(UserError, match="first b/0004"):
        split.check_against(make_source({"a": 5, "b": 4, "c": 5}))
    with pytest.raises(UserError, match="2 records are not in it"):
        split.check_against(make_source({"a": 7, "b": 5, "c": 5}))
    split.check_against(make_source({"a": 5, "b": 5, "c": 5}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "valid dictionary"),
        ("folds: [", "cannot read"),
        ("format: 2\nstrategy: x", "format"),
        ("strategy: x\nfingerprint: y\ngroups: {}\nfolds: {a: {train: [q], val: [q]}}", "two sides"),
    ],
)
def test_broken_split_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_split(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="one group"):
        make_split(make_source({"a": 5}), SplitSettings())
    with pytest.raises(UserError, match="without an official split"):
        make_split(make_source({"a": 5, "b": 5}), SplitSettings(strategy="official"))
    with pytest.raises(UserError, match="0 validation"):
        make_split(make_source({"a": 5, "b": 5}), SplitSettings())
    with pytest.raises(UserErrors, match="no record"):
        make_source({"a": 5}).select(["a/0001", "zz"])


def test_a_fold_is_chosen_by_name() -> None:
    split = make_split(make_source({"a": 8, "b": 8}), SplitSettings(strategy="leave-one-group-out", val_from="tail"))
    with pytest.raises(UserError, match="several folds"):
        split.fold()
    with pytest.raises(UserError, match="no fold c"):
        split.fold("c")
