from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trocar.config import DataSettings, SplitSettings, load_recipe, validate
from trocar.data.files import write_png
from trocar.data.joining import open_data, open_parts, rooted
from trocar.data.loading import draws, shuffled_plan
from trocar.data.records import Record, Source
from trocar.data.splits import make_split
from trocar.errors import UserError, UserErrors

TOOLS = {"background": 0, "hook": 1, "clip": 2, "thread": 3}
ARMS = {"background": 0, "arm": 1, "hook": 2}


def mask_of(values: tuple[int, ...], shift: int = 0) -> np.ndarray:
    """Columns of the values, side by side, in a mask of 24x32."""
    mask = np.zeros((24, 32), np.uint8)
    for place, value in enumerate(values):
        mask[4:20, 4 + 6 * place + shift : 9 + 6 * place + shift] = value
    return mask


def make(
    root: Path, classes: dict[str, int], groups: tuple[str, ...], frames: int = 2, *, instances: bool = False
) -> Path:
    generator = np.random.default_rng(len(classes))
    for group, index in itertools.product(groups, range(frames)):
        write_png(root / "images" / group / f"{index}.png", generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        values = (*range(1, len(classes)), 255)
        write_png(root / "masks" / group / f"{index}.png", mask_of(values, index))
        if instances:
            write_png(root / "instances" / group / f"{index}.png", mask_of(values[:-1], index))
    (root / "classes.json").write_text(json.dumps({**classes, "ignore": 255}))
    return root


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return (
        make(tmp_path / "tools", TOOLS, ("p1", "p2"), instances=True),
        make(tmp_path / "arms", ARMS, ("p1", "p2", "p3")),
    )


def settings_of(two: tuple[Path, Path], **other: object) -> DataSettings:
    tree = {
        "target": "types",
        "classes": ["hook", "other"],
        "sources": {
            "tools": {"source": str(two[0]), "classes": {"clip": "other", "thread": "ignore"}},
            "arms": {"source": str(two[1]), "classes": {"arm": "background"}},
        },
    }
    return validate(DataSettings, tree | other, where="here")


def test_names_groups_and_classes_are_common(two: tuple[Path, Path]) -> None:
    source = open_data(settings_of(two))
    assert source.classes == ("background", "hook", "other")
    assert list(source.groups) == ["tools/p1", "tools/p2", "arms/p1", "arms/p2", "arms/p3"]
    assert [record.name for record in source.records][3:5] == ["tools/p2/1", "arms/p1/0"]
    assert {record.source for record in source.records} == {"tools", "arms"}
    assert {record.dataset for record in source.records} == {"folder"}
    assert source.root == two[0].parent.resolve()
    records = {record.name: record for record in source.records}
    # hook 1 -> 1, clip 2 -> other 2, thread 3 -> ignore; 255 stays
    np.testing.assert_array_equal(records["tools/p1/1"].mask(), mask_of((1, 2, 255, 255), 1))
    # arm 1 -> background, hook 2 -> 1
    again = pickle.loads(pickle.dumps(records["arms/p1/0"]))
    np.testing.assert_array_equal(again.mask(), mask_of((0, 1, 255)))
    assert again.instances is None


def test_instances_of_classes_that_are_not_learnt_are_left_out(two: tuple[Path, Path]) -> None:
    record = open_data(settings_of(two)).records[0]
    assert record.instances is not None
    np.testing.assert_array_equal(record.instances(), mask_of((1, 2, 0)))


def test_one_class_needs_no_mapping_and_takes_one(two: tuple[Path, Path]) -> None:
    sources = {"tools": {"source": str(two[0])}, "arms": {"source": str(two[1]), "classes": {"arm": "ignore"}}}
    source = open_data(settings_of(two, target="instrument", classes=[], sources=sources))
    assert source.classes == ("background", "instrument")
    records = {record.name: record for record in source.records}
    np.testing.assert_array_equal(records["tools/p1/0"].mask(), mask_of((1, 1, 1, 255)))
    np.testing.assert_array_equal(records["arms/p1/0"].mask(), mask_of((255, 1, 255)))


def test_classes_without_a_common_one_are_all_listed_at_once(two: tuple[Path, Path]) -> None:
    sources = {
        "tools": {"source": str(two[0]), "classes": {"hok": "other"}},
        "arms": {"source": str(two[1])},
        "gone": {"source": str(two[0] / "nowhere")},
    }
    with pytest.raises(UserErrors) as caught:
        open_data(settings_of(two, sources=sources))
    text = str(caught.value)
    assert "data.sources.tools.classes names hok, which is no class of it" in text
    assert "did you mean hook" in text
    assert "source tools: 2 classes have no common class: clip, thread" in text
    assert "source arms: 1 classes have no common class: arm" in text
    assert "source gone: no folder" in text
    assert len(caught.value.errors) == 4


def test_wrong_settings_are_told_together(two: tuple[Path, Path]) -> None:
    with pytest.raises(UserErrors) as caught:
        validate(
            DataSettings,
            {
                "source": "x",
                "target": "parts",
                "sources": {"a/b": {"source": "y", "side": "train", "classes": {"tip": "typ"}}},
            },
            where="here",
        )
    text = str(caught.value)
    for part in ("give one of the two", "all sources have side `train`", "need `classes`", "'a/b': names are", "typ"):
        assert part in text
    with pytest.raises(UserErrors, match="leave it out"):
        validate(DataSettings, {"classes": ["tip"]}, where="here")
    with pytest.raises(UserErrors, match="shuffled-batches forms batches once"):
        load_recipe(None, ["data.sources.a.source=x", "data.sources.a.weight=2", "train.batches=shuffled-batches"])


def test_set_reaches_into_a_source_and_its_unknown_keys_are_named() -> None:
    recipe = load_recipe(None, ["data.sources.a.source=x", "data.sources.a.weight=0.5", "data.every=3"])
    assert recipe.data.sources["a"].weight == 0.5
    assert recipe.data.of("a").every == 3
    with pytest.raises(UserErrors, match=r"did you mean data\.sources\.NAME\.weight"):
        load_recipe(None, ["data.sources.a.source=x", "data.sources.a.wieght=2"])


def test_excluding_names_records_of_the_joined_source(two: tuple[Path, Path]) -> None:
    (two[0] / "masks/p2/1.png").unlink()
    assert "source tools: the image has no mask" in str(open_data(settings_of(two)).findings[0])
    source = open_data(settings_of(two, exclude=["tools/p2/1", "arms/p1/0"]))
    assert source.findings == ()
    assert len(source) == 3 + 5
    with pytest.raises(UserErrors) as caught:
        open_data(settings_of(two, exclude=["p2/1", "arms/p9/0"]))
    assert "begins with the name of no source" in str(caught.value)
    assert "source arms: data.exclude names p9/0" in str(caught.value)


def test_the_fingerprint_is_of_all_sources(two: tuple[Path, Path]) -> None:
    before = open_data(settings_of(two)).fingerprint()
    assert open_data(settings_of(two)).fingerprint() == before
    write_png(two[1] / "images/p3/2.png", np.zeros((24, 32, 3), np.uint8))
    write_png(two[1] / "masks/p3/2.png", mask_of((1, 2)))
    assert open_data(settings_of(two)).fingerprint() != before


def test_rooted_settings_open_the_same_data_from_elsewhere(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two[0].parent)
    here = settings_of((Path("tools"), Path("arms")))
    before = open_data(here)
    fingerprint = before.fingerprint()
    monkeypatch.chdir("/")
    assert before.settings == rooted(before.settings)  # type: ignore[arg-type]
    assert open_data(before.settings).fingerprint() == fingerprint  # type: ignore[arg-type]


# ------------------------------------------------------------------ splits


def of_training_only(two: tuple[Path, Path]) -> DataSettings:
    tree = settings_of(two).model_dump()
    tree["sources"]["tools"]["side"] = "train"
    return validate(DataSettings, tree, where="here")


@pytest.mark.parametrize("strategy", ["leave-one-group-out", "random-groups", "random-records", "k-fold"])
def test_a_source_for_training_only_is_on_the_training_side_of_every_fold(
    two: tuple[Path, Path], strategy: str
) -> None:
    source = open_data(of_training_only(two))
    split = make_split(source, SplitSettings(strategy=strategy, folds=3, test_share=0.3))  # type: ignore[arg-type]
    spare = {record.name for record in source.records if record.train_only}
    assert len(spare) == 4
    for fold in split.folds.values():
        assert spare <= set(fold.train)
        assert not spare & {*fold.val, *fold.test}
    if strategy == "leave-one-group-out":
        assert list(split.folds) == ["arms/p1", "arms/p2", "arms/p3"]
    assert any("for training only: tools, 4 records" in note for note in split.notes)
    split.check_against(source)


def test_a_split_by_hand_cannot_judge_by_them(two: tuple[Path, Path]) -> None:
    everything, source = open_data(settings_of(two)), open_data(of_training_only(two))
    split = make_split(everything, SplitSettings(strategy="leave-one-group-out"))
    with pytest.raises(UserError, match="for training only"):
        split.check_against(source)


def test_copies_of_judged_frames_are_not_trained_on(two: tuple[Path, Path]) -> None:
    (two[0] / "images/p1/0.png").write_bytes((two[1] / "images/p2/1.png").read_bytes())
    source = open_data(of_training_only(two))
    settings = SplitSettings(strategy="leave-one-group-out", join_near_duplicates=True, val_from="tail", val_share=0.5)
    split = make_split(source, settings)
    for fold in split.folds.values():
        copies = {name for name in fold.train if name.startswith("tools/p1/")}
        assert bool(copies) == ("arms/p2/1" not in {*fold.val, *fold.test})
    assert any("stand on no side" in note for note in split.notes)


def official(root: Path, lists: dict[str, tuple[str, ...]] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from trocar.data import joining

    before = joining.open_source

    def opened(path: str | Path, settings: DataSettings) -> Source:
        source = before(path, settings)
        return dataclasses.replace(source, official=lists) if Path(path) == root else source  # type: ignore[arg-type]

    monkeypatch.setattr(joining, "open_source", opened)


def test_official_lists_are_joined_where_all_have_them(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    official(two[0], {"train": ("p1/0", "p1/1"), "val": ("p2/0",), "test": ("p2/1",)}, monkeypatch)
    source = open_data(settings_of(two))
    assert source.official is None
    assert any("no joined official split: arms has none" in note for note in source.notes)
    official(two[1], {"train": ("p1/0", "p2/0"), "test": ("p3/0",)}, monkeypatch)
    source = open_data(settings_of(two))
    assert source.official == {
        "train": ("tools/p1/0", "tools/p1/1", "arms/p1/0", "arms/p2/0", "tools/p2/0"),
        "val": (),
        "test": ("tools/p2/1", "arms/p3/0"),
    }
    assert any("validation lists are not used: arms has none" in note for note in source.notes)
    lists = open_data(of_training_only(two)).official
    assert lists == {"train": ("arms/p1/0", "arms/p2/0"), "val": (), "test": ("arms/p3/0",)}
    fold = make_split(source, SplitSettings(strategy="official", val_from="random-records")).fold()
    assert fold.test == ("tools/p2/1", "arms/p3/0")


# ------------------------------------------------------------------ weights


def weighed(**sources: tuple[int, float]) -> list[Record]:
    def nothing() -> np.ndarray:
        return np.zeros((4, 4), np.uint8)

    return [
        Record(f"{name}/{index}", name, "made", nothing, nothing, source=name, weight=weight)
        for name, (count, weight) in sources.items()
        for index in range(count)
    ]


def test_each_source_is_drawn_as_often_as_its_weight_says() -> None:
    records = weighed(rare=(4, 2.5), drawn=(10, 0.3), plain=(7, 1.0))
    over_epochs: Counter[int] = Counter()
    for epoch in range(20):
        drawn = draws(records, seed=5, epoch=epoch)
        assert drawn is not None
        assert len(drawn) == len(set(drawn)) == 10 + 3 + 7
        times = Counter(index % len(records) for index in drawn)
        assert {times[index] for index in range(4)} == {2, 3}
        assert sum(times[index] for index in range(4)) == 10
        assert sum(times[index] for index in range(4, 14)) == 3
        assert [times[index] for index in range(14, 21)] == [1] * 7
        over_epochs += times
    assert [over_epochs[index] for index in range(4)] == [50] * 4
    assert [over_epochs[index] for index in range(4, 14)] == [6] * 10


def test_further_draws_of_a_record_are_numbered_from_nought() -> None:
    records = weighed(rare=(3, 2.5))
    for epoch in range(6):
        numbers: dict[int, list[int]] = {}
        for index in sorted(draws(records, seed=0, epoch=epoch) or ()):
            numbers.setdefault(index % 3, []).append(index // 3)
        assert all(found == list(range(len(found))) for found in numbers.values())


def test_draws_depend_on_seed_and_epoch_alone_and_weights_of_one_change_nothing() -> None:
    records = weighed(rare=(4, 2.5), drawn=(10, 0.3))
    assert draws(records, seed=1, epoch=3) == draws(records, seed=1, epoch=3)
    assert draws(records, seed=1, epoch=3) != draws(records, seed=1, epoch=4)
    assert draws(records, seed=1, epoch=3) != draws(records, seed=2, epoch=3)
    assert draws(weighed(one=(4, 1.0), other=(3, 1.0)), seed=0, epoch=0) is None
    drawn = draws(records, seed=1, epoch=3)
    plan = shuffled_plan(14, 4, seed=1, epoch=3, drawn=drawn)
    assert sorted(index for batch in plan for _, index in batch) == sorted(drawn or ())
    assert {epoch for batch in plan for epoch, _ in batch} == {3}


def test_a_weight_never_leaves_a_source_out() -> None:
    assert len(draws(weighed(few=(2, 0.1), plain=(3, 1.0)), seed=0, epoch=0) or ()) == 1 + 3


def test_parts_are_opened_one_by_one_with_common_classes(two: tuple[Path, Path]) -> None:
    tools, arms = open_parts(settings_of(two))
    assert tools.classes == arms.classes == ("background", "hook", "other")
    assert tools.records[0].name == "tools/p1/0"


def test_a_folder_beside_a_recipe_of_several_sources_is_refused(two: tuple[Path, Path]) -> None:
    from trocar.data.sources import open_source

    with pytest.raises(UserError, match="names 2 sources, and a folder is given besides"):
        open_source(two[0], settings_of(two))
