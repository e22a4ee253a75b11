"""Properties of what reads files of strangers: for any input an answer of the right form, or a `UserError`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trocar.data.annotations.raster import (
    as_ring,
    fill,
    from_brush_rle,
    from_coco_rle,
    from_cvat_rle,
    to_brush_rle,
    to_coco_rle,
    to_cvat_rle,
)
from trocar.data.annotations.shapes import size_hw
from trocar.data.checks.masks import count_values
from trocar.data.files import read_image, read_mask_file, read_reduced_image, write_png
from trocar.data.leakage import read_lists
from trocar.data.sources.encoding import ZERO_255
from trocar.data.sources.labels import find_image, is_within, stem_of
from trocar.data.sources.listing import natural
from trocar.documents import parse_yaml
from trocar.errors import UserError

quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
masks = sizes.flatmap(lambda size: st.binary(min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
    lambda data: (np.frombuffer(data, np.uint8).reshape(size) & 1).astype(bool)
))  # fmt: skip
anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def answer_or_refusal(read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except UserError as refusal:
        str(refusal).encode()
        return None


# ------------------------------------------------------------------ run lengths and outlines


@quick
@given(masks)
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(from_coco_rle(to_coco_rle(mask), mask.shape), mask)
    np.testing.assert_array_equal(from_brush_rle(bytes(to_brush_rle(mask)), mask.shape), mask)
    if mask.any():
        rle = to_cvat_rle(mask)
        runs = [int(run) for run in rle["rle"].split(",")]
        box = (rle["left"], rle["top"], rle["width"], rle["height"])
        np.testing.assert_array_equal(from_cvat_rle(runs, box, mask.shape), mask)


@quick
@given(st.lists(st.integers(-3, 80) | st.integers(), max_size=8) | st.text(max_size=20) | anything, anything, sizes)
def test_any_run_lengths_give_a_mask_or_are_refused(counts: Any, size: Any, size_of_image: tuple[int, int]) -> None:
    for claimed in (size, None, list(size_of_image)):
        mask = answer_or_refusal(from_coco_rle, {"counts": counts, "size": claimed}, size_of_image)
        assert mask is None or (mask.shape, mask.dtype) == (size_of_image, np.dtype(bool))


@quick
@given(st.binary(max_size=40), sizes)
def test_any_brush_gives_a_mask_or_is_refused(packed: bytes, size: tuple[int, int]) -> None:
    for data in (packed, (4 * size[0] * size[1]).to_bytes(4, "big") + packed):
        mask = answer_or_refusal(from_brush_rle, data, size)
        assert mask is None or (mask.shape, mask.dtype) == (size, np.dtype(bool))


@quick
@given(st.lists(st.floats(-20, 40) | st.floats() | st.integers(), max_size=12) | anything, sizes)
def test_any_outline_gives_a_mask_or_is_refused(points: Any, size: tuple[int, int]) -> None:
    mask = answer_or_refusal(lambda: fill([as_ring(points)], size))
    assert mask is None or (mask.shape, mask.dtype) == (size, np.dtype(bool))


@quick
@given(anything, anything)
def test_any_size_is_two_numbers_or_refused(height: Any, width: Any) -> None:
    size = answer_or_refusal(size_hw, height, width, "here")
    assert size is None or (0 < size[0] * size[1] <= 2**26 and all(isinstance(side, int) for side in size))


@quick
@given(sizes, st.lists(st.integers(0, 255), min_size=1, max_size=7), st.integers(0, 2**32 - 1))
def test_values_of_a_mask_are_counted_as_numpy_does(size: tuple[int, int], values: list[int], seed: int) -> None:
    mask = np.random.default_rng(seed).choice(np.array(values, np.uint8), size)
    found, counts = np.unique(mask, return_counts=True)
    assert list(count_values(mask).items()) == list(zip(found.tolist(), counts.tolist(), strict=True))


@quick
@given(sizes, st.sampled_from([[0, 255], [0], [255], [0, 1, 255], [0, 254], [128]]), st.integers(0, 2**32 - 1))
def test_black_and_white_masks_are_read_or_refused(size: tuple[int, int], values: list[int], seed: int) -> None:
    stored = np.random.default_rng(seed).choice(np.array(values, np.uint8), size)
    mask = answer_or_refusal(ZERO_255._from_values, stored.copy(), Path("a.png"))
    if set(np.unique(stored)) <= {0, 255}:
        np.testing.assert_array_equal(mask, stored == 255)
        assert mask.dtype == np.uint8
    else:
        assert mask is None


# ------------------------------------------------------------------ names


@quick
@given(st.lists(st.text(max_size=12), max_size=6))
def test_names_have_an_order(names: list[str]) -> None:
    ordered = sorted(["f10", *names, "f9"], key=natural)
    assert ordered.index("f9") < ordered.index("f10")


@quick
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./\\"), max_size=20))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    stem = stem_of(name)
    assert not stem.startswith(("/", "../"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        for outside in (Path(folder) / "a.png", root / "a.png"):
            outside.touch()
        found = answer_or_refusal(find_image, f"{name}a.png", [root], root, "here")
        assert found is None or (is_within(found, root) and os.path.realpath(found) == os.path.realpath(root / "a.png"))


# ------------------------------------------------------------------ files

PNG = st.sampled_from(
    [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"BM", b"II*\x00", b"RIFF", b""]
)


@quick
@given(PNG, st.binary(max_size=200))
def test_any_bytes_are_an_image_or_refused(head: bytes, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        path.write_bytes(head + data)
        for read in (read_image, read_mask_file, lambda path: read_reduced_image(path, 8)[0]):
            pixels = answer_or_refusal(read, path)
            assert pixels is None or pixels.dtype == np.uint8


@quick
@given(masks)
def test_a_written_mask_comes_back(mask: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder) / "a.png", mask.astype(np.uint8) * 255)
        np.testing.assert_array_equal(read_mask_file(Path(folder) / "a.png") > 0, mask)


@quick
@given(
    st.text(max_size=60) | anything.map(lambda tree: json.dumps(tree)) | st.text("&*<>:-[]{}!a1\n ?,|'\"", max_size=40)
)
def test_any_text_is_yaml_or_refused(text: str) -> None:
    try:
        parse_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - only where it is raised


@quick
@given(st.dictionaries(st.sampled_from(["train", "val", "test", "folds", "fingerprint", "cut_groups"]), anything))
def test_any_tree_is_a_split_or_refused(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("s.yaml", "s.csv"):
            path = Path(folder) / name
            path.write_text(json.dumps(tree))
            listed = answer_or_refusal(read_lists, path)
            assert listed is None or all(
                isinstance(one, str) for fold in listed.folds.values() for side in fold.values() for one in side
            )
