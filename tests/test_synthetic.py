"""Drawn scenes: equal seeds give equal pixels, and the masks are where the instruments are."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from trocar.errors import UserError
from trocar.synthetic import PARTS, PRESETS, Scene, draw_clip, draw_scene, write_dataset
from trocar.synthetic import scene as scene_module
from trocar.synthetic.instruments import Pose
from trocar.synthetic.materials import matcap
from trocar.synthetic.painting import Labels, paint, place

SIZE = (96, 128)


def draw(seed: int, **settings) -> Scene:
    return draw_scene(seed, **{"size_hw": SIZE, **settings})


def same(left: Scene, right: Scene) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("image", "parts", "instances"))


@pytest.mark.parametrize("preset", PRESETS)
def test_equal_arguments_give_equal_pixels(preset: str) -> None:
    first = draw(3, preset=preset, procedure=5)
    scene_module._look.cache_clear()
    assert same(first, draw(3, preset=preset, procedure=5))


@pytest.mark.parametrize("preset", PRESETS)
def test_seed_and_procedure_change_the_scene(preset: str) -> None:
    scenes = [draw(seed, preset=preset, procedure=procedure) for seed in (0, 1) for procedure in (0, 1)]
    assert not any(np.array_equal(a.image, b.image) for i, a in enumerate(scenes) for b in scenes[:i])


def test_a_procedure_keeps_its_colours_over_frames() -> None:
    colours = np.array(
        [[draw(seed, procedure=p, instruments=0).image.mean((0, 1)) for seed in range(6)] for p in range(6)]
    )
    within = colours.std(1).mean()
    between = colours.mean(1).std(0).mean()
    assert between > within


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size_hw", [(32, 32), (33, 57), (101, 64), (192, 256)])
def test_any_size(size_hw: tuple[int, int], preset: str) -> None:
    for seed in range(4):
        scene = draw_scene(seed, size_hw=size_hw, preset=preset, procedure=seed)
        assert scene.image.shape == (*size_hw, 3)
        assert scene.image.dtype == scene.parts.dtype == scene.instances.dtype == np.uint8
        assert scene.parts.shape == scene.instances.shape == size_hw
        assert scene.parts.max() < len(PARTS)
        assert scene.instances.max() <= 3
        assert np.array_equal(scene.parts > 0, scene.instances > 0)


def test_a_scene_keeps_its_layout_at_another_size() -> None:
    small, large = (draw(2, size_hw=size).parts for size in ((96, 128), (192, 256)))
    shrunk = cv2.resize(large, (128, 96), interpolation=cv2.INTER_AREA) > 0
    both = np.count_nonzero(shrunk & (small > 0))
    assert 2 * both / (np.count_nonzero(shrunk) + np.count_nonzero(small)) > 0.9


@pytest.mark.parametrize("preset", PRESETS)
def test_no_instruments_leave_the_masks_empty(preset: str) -> None:
    scene = draw(1, preset=preset, instruments=0)
    assert not scene.parts.any()
    assert not scene.instances.any()
    assert scene.image.std() > 5


def test_as_many_instruments_as_asked_for() -> None:
    for count in (1, 2, 3):
        seen = [len(np.unique(draw(seed, procedure=seed, instruments=count).instances)) - 1 for seed in range(5)]
        assert max(seen) == count
        assert min(seen) >= 1


def test_the_mask_covers_what_instruments_change() -> None:
    """The tissue's random numbers do not depend on the instruments, so the difference is instrument or shadow."""
    inside, outside = [], []
    for seed in range(6):
        scene, bare = (draw(seed, procedure=seed, instruments=n) for n in (None, 0))
        change = np.abs(scene.image.astype(int) - bare.image).max(-1)
        mask = (scene.parts > 0).astype(np.uint8)
        inside.append(change[mask > 0])
        # Instruments brighten nothing outside their mask: shadows only darken. 2 pixels: soft edges.
        near = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0
        brighter = (scene.image.astype(int) - bare.image).max(-1)
        outside.append(brighter[~near])
    assert np.mean(np.concatenate(inside) > 20) > 0.85
    assert np.mean(np.concatenate(outside) > 8) < 0.01


def test_labels_agree_with_a_polygon_sampled_point_by_point() -> None:
    """A straight shaft across the view, against a count of 64 sample points per pixel by the same geometry."""
    design = scene_module._look(0, "demo", SIZE).designs[0]
    pose = Pose(port=(-1.5, -0.4), joint=(1.5, 0.3), opening=0.3, wrist=0.0, bend=0.0, taper=1.5)
    placed = place(design, pose, SIZE)
    labels = Labels(SIZE)
    labels.add(placed)
    parts, _, coverage = labels.read()

    samples = (np.arange(8) + 0.5) / 8
    x = (np.arange(SIZE[1])[:, None] + samples).ravel() - placed.joint_px[0]
    y = (np.arange(SIZE[0])[:, None] + samples).ravel() - placed.joint_px[1]
    along = -(x[None, :] * placed.axis[0] + y[:, None] * placed.axis[1]) / placed.length_px
    across = np.abs(x[None, :] * placed.across[0] + y[:, None] * placed.across[1])
    hit = across <= placed.radius_px * (1 + 0.5 * along)
    expected = hit.reshape(SIZE[0], 8, SIZE[1], 8).mean((1, 3))
    assert np.abs(coverage - expected).max() < 0.35  # filling counts the fine pixels that an edge touches
    assert np.abs(coverage - expected).mean() < 0.01
    assert np.mean((parts > 0) == (expected >= 0.5)) > 0.995


def test_transparent_instruments_are_labelled_in_full() -> None:
    """Clear plastic has the mask of steel, although what is behind it shows through."""
    steel = scene_module._look(0, "demo", SIZE).designs[0]
    material = matcap(np.random.default_rng(0), "clear", np.full(3, 0.2, np.float32))
    clear = replace(steel, materials=dict.fromkeys(steel.materials, material))
    pose = Pose(port=(-1.5, -0.4), joint=(0.1, 0.1), opening=0.3, wrist=0.2, bend=0.0, taper=1.5)
    masks, behind_matters = [], []
    for design in (steel, clear):
        placed = place(replace(design, soiled=0.0), pose, SIZE)
        labels = Labels(SIZE)
        labels.add(placed)
        masks.append(labels.read()[0])
        over_black, over_white = np.zeros((*SIZE, 3), np.float32), np.ones((*SIZE, 3), np.float32)
        for image in (over_black, over_white):
            paint(image, placed, np.ones(SIZE, np.float32))
        behind_matters.append((over_white - over_black).max(-1))
    assert np.array_equal(*masks)
    core = cv2.erode((masks[0] == 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.count_nonzero(core) > 100
    assert behind_matters[0][core].max() < 1e-5
    assert np.median(behind_matters[1][core]) > 0.3


@pytest.mark.parametrize("preset", PRESETS)
def test_clips_move_smoothly(preset: str) -> None:
    clip = list(draw_clip(30, 1, size_hw=SIZE, preset=preset, procedure=2))
    masks = [scene.parts > 0 for scene in clip]
    assert len(clip) == 30
    assert not masks[0].any(), "instruments start outside the view"
    assert masks[-1].any()
    overlaps = [
        np.count_nonzero(a & b) / min(np.count_nonzero(a), np.count_nonzero(b))
        for a, b in pairwise(masks)
        if np.count_nonzero(a) > 300
    ]
    assert min(overlaps) > 0.5
    assert np.mean(overlaps) > 0.8
    assert max(abs(int(b.sum()) - int(a.sum())) for a, b in pairwise(masks)) < 0.05 * masks[0].size, "they slide in"
    assert not np.array_equal(masks[-1], masks[-5]), "they keep moving"


def test_a_frame_does_not_depend_on_the_length_of_its_clip() -> None:
    short = list(draw_clip(3, 7, size_hw=SIZE))
    longer = list(draw_clip(5, 7, size_hw=SIZE))
    assert all(same(a, b) for a, b in zip(short, longer, strict=False))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "set"
    return write_dataset(
        out, procedures=3, frames_per_procedure=4, empty_share=0.25, clip_frames=20, size_hw=(64, 96), seed=2
    )


def test_write_dataset_lays_out_what_it_says(written: Path) -> None:
    about = json.loads((written / "dataset.json").read_text())
    assert (about["format"], about["kind"], about["preset"], about["seed"]) == (1, "drawn", "demo", 2)
    assert about["size_hw"] == [64, 96]
    assert about["complete"] is True
    assert json.loads((written / "classes.json").read_text()) == {"background": 0, "shaft": 1, "tip": 2}
    assert list(about["procedures"]) == ["procedure-01", "procedure-02", "procedure-03"]
    assert about["clip"]["procedure"] not in about["procedures"]
    assert sum(len(p["empty"]) for p in about["procedures"].values()) == 3
    for kind in ("images", "masks", "instances"):
        found = sorted(str(path.relative_to(written / kind)) for path in (written / kind).rglob("*.*"))
        assert found == [f"{name}/{frame}.png" for name, p in about["procedures"].items() for frame in p["frames"]]
    for name, procedure in about["procedures"].items():
        for frame in procedure["frames"]:
            image, mask, instances = (
                cv2.imread(str(written / kind / name / f"{frame}.png"), cv2.IMREAD_UNCHANGED)
                for kind in ("images", "masks", "instances")
            )
            assert image.shape == (64, 96, 3)
            assert mask.shape == instances.shape == (64, 96)
            assert mask.any() == instances.any() == (frame not in procedure["empty"])
            assert image[..., 2].mean() > image[..., 0].mean(), "tissue is red: the channels are in order"


def test_the_clip_has_a_mask_for_every_frame(written: Path) -> None:
    with av.open(str(written / "clip" / "clip.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 25)
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    masks = sorted((written / "clip" / "masks").iterdir())
    assert [path.name for path in masks] == [f"{index:04d}.png" for index in range(20)]
    assert len(frames) == 20
    drawn = list(draw_clip(20, 2, size_hw=(64, 96), procedure=20_003))
    for frame, path, scene in zip(frames, masks, drawn, strict=True):
        assert np.abs(frame.astype(int) - scene.image).mean() < 6
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), scene.parts)


def test_an_earlier_drawn_set_is_replaced_whole(tmp_path: Path) -> None:
    settings = {"clip_frames": 1, "size_hw": (33, 35)}  # odd sides: the clip as well
    write_dataset(tmp_path, procedures=2, frames_per_procedure=2, **settings)
    (tmp_path / "images" / "notes.txt").write_text("kept")
    write_dataset(tmp_path, procedures=1, frames_per_procedure=1, **settings)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert left == [
        "classes.json",
        "clip/clip.mp4",
        "clip/masks/0000.png",
        "dataset.json",
        "images/notes.txt",
        "images/procedure-01/0000.png",
        "instances/procedure-01/0000.png",
        "masks/procedure-01/0000.png",
    ]


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("my only copy")
    with pytest.raises(UserError, match="something else") as caught:
        write_dataset(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write") as caught:
        write_dataset(tmp_path / "file" / "set")
    assert caught.value.mend


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "wild"}, "demo, varied"),
        ({"size_hw": (31, 64)}, "at least 32"),
        ({"empty_share": 1.5}, "empty share"),
        ({"procedures": 0}, "at least one"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_bad_settings_say_how_to_mend_them(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path / "set", **settings)
    assert not (tmp_path / "set").exists()


def test_bad_scenes_are_refused() -> None:
    for settings in ({"preset": "wild"}, {"size_hw": (64, 8)}, {"instruments": 4}, {"procedure": -1}):
        with pytest.raises(UserError):
            draw(0, **settings)
