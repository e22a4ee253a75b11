"""Settings of data and splits: which labelled frames, which of their classes, and what they are used for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from trocar.config.base import Fraction, Settings

Target: TypeAlias = Literal["instrument", "parts", "types"]
Kind: TypeAlias = Literal[
    "auto",
    "folder",
    "videos",
    "kvasir-instrument",
    "endovis15",
    "endovis17",
    "endovis18",
    "robust-mis",
    "cholecseg8k",
    "cholec-instances",
    "sar-rarp50",
    "cadis",
    "drawn",
    "coco",
    "labelme",
    "cvat",
    "cvat-masks",
    "label-studio",
    "yolo",
]
GroupBy: TypeAlias = Literal["auto", "folder", "none"]
BACKGROUND, INSTRUMENT, IGNORED = "background", "instrument", "ignore"  # names that classes are mapped to


class SourceSettings(Settings):
    """One of several sources of a recipe. What is left out of how to read it is as in `data`."""

    source: str = Field(description="folder of its data")
    side: Literal["all", "train"] = Field(
        "all", description="`train`: its records only train, and are never validation or test; such as drawn scenes"
    )
    weight: PositiveFloat = Field(
        1.0,
        description="how often each of its training records is drawn in an epoch: 2 is twice, 0.25 a quarter of them, "
        "others every epoch",
    )
    classes: Mapping[str, str] = Field(
        {},
        description="its classes by name, each to one of data.classes (of `instrument` where data.target is that), "
        "`background` or `ignore`; those named alike need no line",
    )
    target: Target | None = Field(None, description="its data.target, where its labels are finer or coarser")
    kind: Kind | None = Field(None, description="its data.kind")
    images: str | None = Field(None, description="its data.images")
    masks: str | None = Field(None, description="its data.masks")
    group_by: GroupBy | None = Field(None, description="its data.group_by")
    every: PositiveInt | None = Field(None, description="its data.every")


class DataSettings(Settings):
    """Which labelled frames, and which of their classes are to be learnt."""

    source: str | None = Field(None, description="folder of the data; `--data` sets it from the command line")
    sources: Mapping[str, SourceSettings] = Field(
        {}, description="several sources by a name of your own, instead of `source`; see docs/recipes.md"
    )
    kind: Kind = Field("auto", description="layout of the data, see docs/data.md; `auto` recognises it")
    images: str = Field(
        "images", description="layouts folder and videos: name of the folder of images below the source, or each video"
    )
    masks: str = Field(
        "masks", description="layouts folder and videos: name of the folder of masks below the source, or each video"
    )
    group_by: GroupBy = Field(
        "auto",
        description="folder layout: `folder` makes each sub-folder of images a group (patient, video), `none` each "
        "image its own; `auto` takes folders where there are any",
    )
    target: Target = Field(
        "instrument",
        description="`instrument`: one class for every instrument; `parts`: shaft, wrist, clasper and the like; "
        "`types`: kinds of instruments. Research sets label one or both, see docs/data.md; of a folder with a class "
        "table, parts and types both keep all its classes",
    )
    classes: tuple[str, ...] = Field(
        (),
        description="several sources, target parts or types: the common classes in order, without the background",
    )
    every: PositiveInt = Field(1, description="of a video take every n-th frame only")
    exclude: tuple[str, ...] = Field((), description="names of records to leave out")

    @model_validator(mode="after")
    def _sources_fit_together(self) -> DataSettings:
        if problems := [*self._wrong_of_all(), *self._wrong_of_each()]:
            raise ValueError("; ".join(problems))
        return self

    def _wrong_of_all(self) -> Iterator[str]:
        if not self.sources:
            if self.classes:
                yield "`classes` are the common ones of several `sources`: leave it out"
            return
        if self.source is not None:
            yield "`source` names one folder, `sources` several: give one of the two (--data is `source`)"
        if all(one.side == "train" for one in self.sources.values()):
            yield "all sources have side `train`: none is left to choose and judge the model"
        if self.target == "instrument" and self.classes:
            yield "with target `instrument` there is one common class, of that name: leave `classes` out"
        if self.target != "instrument" and not self.classes:
            yield f"with target `{self.target}` several sources need `classes`, the common ones in order"
        if wrong := [name for name in self.classes if name in (BACKGROUND, IGNORED)]:
            yield f"`classes` are the common ones without {' and '.join(wrong)}"
        if len(set(self.classes)) < len(self.classes):
            yield "`classes` names one twice"

    def _wrong_of_each(self) -> Iterator[str]:
        possible = (*self.common_classes, IGNORED)
        for name, one in self.sources.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                yield f"source {name!r}: names are made of letters, digits, _ and -"
            for theirs, ours in one.classes.items():
                if ours not in possible:
                    yield f"source {name}: {theirs} is mapped to {ours}, which is none of {', '.join(possible)}"

    @property
    def common_classes(self) -> tuple[str, ...]:
        """Several sources: the name of each class index after mapping; [0] is the background."""
        return (BACKGROUND, *((INSTRUMENT,) if self.target == "instrument" else self.classes))

    def of(self, name: str) -> DataSettings:
        """How to read one of several sources by itself."""
        one = self.sources[name]
        own = {
            key: value
            for key in ("kind", "images", "masks", "group_by", "every", "target")
            if (value := getattr(one, key)) is not None
        }
        exclude = tuple(text.removeprefix(f"{name}/") for text in self.exclude if text.startswith(f"{name}/"))
        return self.model_copy(update={"source": one.source, "sources": {}, "classes": (), "exclude": exclude, **own})


class SplitSettings(Settings):
    """How records are divided into train, val and test. Groups stay whole unless `val_from` cuts them, declared."""

    strategy: Literal["official", "leave-one-group-out", "k-fold", "random-groups", "random-records", "file"] = Field(
        "random-groups",
        description="`official`: the lists that come with the data, of validation too where there is one; "
        "`leave-one-group-out`: one fold a group; `k-fold`: groups dealt to `folds` folds, each of them the test once; "
        "`random-groups`: groups drawn by the seed; `random-records`: records drawn one by one by the seed, whatever "
        "their groups, as scikit-learn's train_test_split draws them; `file`: the split file named below",
    )
    file: str | None = Field(None, description="path of a split file, for the strategy `file`")
    val_from: Literal["groups", "tail", "every-sixth", "random-records", "leaked-records"] = Field(
        "groups",
        description="where validation records come from: whole training groups; the last part (tail) of each training "
        "group in time order, which cuts groups; every sixth training record by name; random-records: drawn one "
        "by one, which cuts groups too; leaked-records: the same, and they stay in training, as in the notebook",
    )
    val_share: Fraction = Field(0.2, description="share of the training records used for validation")
    test_share: Fraction = Field(0.2, description="random-...: share of the records held out for the test")
    gap_frames: NonNegativeInt = Field(
        0, description="tail: frames of a video dropped between its training and its validation part"
    )
    folds: Annotated[int, Field(ge=2)] = Field(5, description="k-fold: number of folds")
    stratify: bool = Field(
        False,
        description="draw groups so that every side has its share of records of much, little and no foreground and of "
        "each class; reads all masks, those of the test too",
    )
    join_near_duplicates: bool = Field(
        False,
        description="count groups that hold nearly the same image as one, so that copies stay on one side; reads all "
        "images, those of the test too",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32 - 1)] = Field(
        0, description="seed of what is drawn for the test; validation is drawn with the next one"
    )

    @model_validator(mode="after")
    def _file_is_named(self) -> SplitSettings:
        if (self.strategy == "file") != (self.file is not None):
            raise ValueError("`file` names the split file of strategy `file`: give both or neither")
        return self
