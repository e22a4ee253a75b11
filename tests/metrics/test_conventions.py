"""Each convention against another reckoning of its authors' rules: scikit-learn, MONAI, surface-distance, pixel sets.

`fake_frames` has every case that conventions differ in: truth, prediction or both empty, ignored pixels, several
classes, instruments at the image's edge.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn import metrics as sk

from trocar.metrics.conventions import CONVENTIONS, Frame
from trocar.metrics.notebook import mean_of_batches, soft_batch_dice, soft_batch_jaccard

surface_distance = pytest.importorskip("surface_distance")
pytestmark = pytest.mark.filterwarnings("ignore:Please (use|import):DeprecationWarning")

BINARY = ("background", "instrument")
PARTS = ("background", "shaft", "wrist", "claspers")
H, W = 40, 56


def painted(rng: np.random.Generator, values: Sequence[int]) -> np.ndarray:
    """Rectangles of these values, later ones on top; some reach over the edge of the image."""
    mask = np.zeros((H, W), np.uint8)
    for value in values:
        top, left = rng.integers(-6, H - 6), rng.integers(-6, W - 6)
        height, width = rng.integers(4, 22, 2)
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = value
    return mask


def shifted(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    down, right = rng.integers(-3, 4, 2)
    return np.roll(mask, (down, right), (0, 1))


def fake_frames(classes: tuple[str, ...] = BINARY, count: int = 24, *, ignoring: bool = True) -> list[Frame]:
    rng = np.random.default_rng(len(classes))
    frames = []
    for number in range(count):
        truth = painted(rng, rng.integers(1, len(classes), 2))
        pred, more = shifted(truth, rng), painted(rng, range(1, len(classes)))
        pred = pred if number % 2 else np.maximum(pred, more)
        truth_instances, pred_instances = painted(rng, [1, 4, 2]), painted(rng, range(1, 1 + number % 5))
        if number % 6 in (0, 1):
            truth[:], truth_instances[:] = 0, 0
        if number % 6 in (0, 2):
            pred[:], pred_instances[:] = 0, 0
        if ignoring and number % 4 == 3:
            truth[:, 30:37] = 255
        probability = np.clip(0.7 * (pred > 0) + rng.normal(0.1, 0.08, (H, W)), 0, 1).astype(np.float32)
        share = np.where(truth == 255, np.nan, np.clip((truth > 0) - 0.3 * rng.random((H, W)), 0, 1))
        share[-4:] = np.nan  # padding
        network = probability, share.astype(np.float32)
        frames.append(Frame(pred, truth, classes, pred_instances, truth_instances, network))
    return frames


def figures(name: str, frames: Sequence[Frame], groups: Sequence[str] | None = None) -> dict[str, float]:
    convention = CONVENTIONS[name]
    rows = [convention.per_frame(frame) for frame in frames]
    assert None not in rows
    return convention.figures(rows, groups)


def flat(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Counted pixels of truth and prediction, any instrument as 1."""
    known = frame.truth != 255
    return (frame.truth[known] > 0).astype(int), (frame.pred[known] > 0).astype(int)


def nanmean(values: Sequence[float]) -> float:
    return float(np.nanmean(values))


def by_sklearn(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    score: Callable[..., float],
    where_undefined: float = math.nan,
    **kwargs: float,
) -> float:
    return nanmean([score(truth, pred, zero_division=where_undefined, **kwargs) for truth, pred in pairs])


def test_per_image_leaves_frames_without_instrument_out() -> None:
    frames = fake_frames()
    pairs = [pair for pair in map(flat, frames) if pair[0].any()]
    assert len(pairs) == 16
    ours = figures("per-image", frames)
    assert ours["dice"] == pytest.approx(by_sklearn(pairs, sk.f1_score), rel=1e-12)
    assert ours["jaccard"] == pytest.approx(by_sklearn(pairs, sk.jaccard_score, 0), rel=1e-12)
    assert ours["precision"] == pytest.approx(by_sklearn(pairs, sk.precision_score), rel=1e-12)
    assert ours["recall"] == pytest.approx(by_sklearn(pairs, sk.recall_score), rel=1e-12)


def test_endovis2015_leaves_only_what_is_undefined_out() -> None:
    frames = fake_frames()
    pairs = [flat(frame) for frame in frames]
    ours = figures("endovis2015", frames)
    assert ours["dice"] == pytest.approx(by_sklearn(pairs, sk.f1_score), rel=1e-12)
    assert ours["precision"] == pytest.approx(by_sklearn(pairs, sk.precision_score), rel=1e-12)
    assert ours["recall"] == pytest.approx(by_sklearn(pairs, sk.recall_score), rel=1e-12)
    assert ours["dice"] < figures("per-image", frames)["dice"]  # false finds in empty frames count 0


def test_medai2021_inverts_frames_without_instrument() -> None:
    frames = fake_frames()
    pairs = [(truth, pred) if truth.any() else (1 - truth, 1 - pred) for truth, pred in map(flat, frames)]
    ours = figures("medai2021", frames)
    assert ours["jaccard"] == pytest.approx(by_sklearn(pairs, sk.jaccard_score, 0), rel=1e-12)
    assert ours["dice"] == pytest.approx(by_sklearn(pairs, sk.f1_score), rel=1e-12)
    assert ours["recall"] == pytest.approx(by_sklearn(pairs, sk.recall_score), rel=1e-12)
    assert ours["precision"] == pytest.approx(by_sklearn(pairs, sk.precision_score, 0), rel=1e-12)
    assert ours["accuracy"] == pytest.approx(nanmean([sk.accuracy_score(*pair) for pair in pairs]), rel=1e-12)


def test_kvasir_is_scikit_learn_as_its_authors_call_it() -> None:
    frames = fake_frames()
    pairs = []
    for probability, target in (frame.network for frame in frames if frame.network is not None):
        known = ~np.isnan(target)
        pairs.append(((target[known] > 0.5).astype(int), (probability[known] > 0.5).astype(int)))
    assert any(not truth.any() and not pred.any() for truth, pred in pairs)
    ours = figures("kvasir", frames)
    assert ours["jaccard"] == pytest.approx(by_sklearn(pairs, sk.jaccard_score, 0), rel=1e-12)
    assert ours["dice"] == pytest.approx(by_sklearn(pairs, sk.f1_score, 0), rel=1e-12)
    assert ours["recall"] == pytest.approx(by_sklearn(pairs, sk.recall_score, 0), rel=1e-12)
    assert ours["precision"] == pytest.approx(by_sklearn(pairs, sk.precision_score, 1), rel=1e-12)
    assert ours["f2"] == pytest.approx(by_sklearn(pairs, sk.fbeta_score, 1, beta=2.0), rel=1e-12)
    assert ours["accuracy"] == pytest.approx(nanmean([sk.accuracy_score(*pair) for pair in pairs]), rel=1e-12)


def test_notebook_pools_eight_frames_in_order() -> None:
    frames = fake_frames(count=19)
    networks = [frame.network for frame in frames if frame.network is not None]
    targets = [np.nan_to_num(target) for _, target in networks]
    probabilities = [np.where(np.isnan(target), 0, probability) for probability, target in networks]
    ours = figures("notebook", frames)
    assert ours["soft_dice"] == pytest.approx(mean_of_batches(soft_batch_dice, targets, probabilities), rel=1e-5)
    assert ours["soft_jaccard"] == pytest.approx(mean_of_batches(soft_batch_jaccard, targets, probabilities), rel=1e-5)
    assert ours != pytest.approx(figures("notebook", frames[::-1]))


def overlap_of_sets(truth: set[int], pred: set[int], tiny: float) -> tuple[float, float]:
    """IoU and Dice, smoothed as their authors smooth."""
    both = len(truth & pred)
    return (both + tiny) / (len(truth | pred) + tiny), (2 * both + tiny) / (len(truth) + len(pred) + tiny)


def pixels(mask: np.ndarray, known: np.ndarray, values: Sequence[int]) -> set[int]:
    return set(np.flatnonzero(np.isin(mask, values) & known).tolist())


@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_ternaus_counts_empty_and_empty_as_one(classes: tuple[str, ...]) -> None:
    frames = fake_frames(classes)
    every = range(1, len(classes))
    whole, by_class = [], []
    for frame in frames:
        known = frame.truth != 255
        whole.append(overlap_of_sets(pixels(frame.truth, known, every), pixels(frame.pred, known, every), 1e-15))
        held = [index for index in every if pixels(frame.truth, known, [index])]
        each = [
            overlap_of_sets(pixels(frame.truth, known, [index]), pixels(frame.pred, known, [index]), 1e-15)
            for index in held
        ]
        empty = 0.0 if pixels(frame.pred, known, every) else 1.0
        by_class.append(np.mean(each, axis=0) if held else (empty, empty))
    ours = figures("ternaus", frames)
    assert (ours["jaccard"], ours["dice"]) == pytest.approx(tuple(np.mean(whole, axis=0)), rel=1e-12)
    if classes == BINARY:
        assert set(ours) == {"jaccard", "dice"}
    else:
        expected = tuple(np.mean(by_class, axis=0))
        assert (ours["mean_class_jaccard"], ours["mean_class_dice"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_isinet_follows_its_loop_over_classes(classes: tuple[str, ...]) -> None:
    frames = fake_frames(classes)
    challenge, isi = [], []
    of_class: dict[int, list[float]] = {index: [] for index in range(1, len(classes))}
    for frame in frames:
        known = frame.truth != 255
        truth = {index: pixels(frame.truth, known, [index]) for index in of_class}
        pred = {index: pixels(frame.pred, known, [index]) for index in of_class}
        if not any(pred.values()) and any(truth.values()):  # a case of its own in the authors' loop
            challenge.append(0.0)
            isi.append(0.0)
            for index in of_class:
                of_class[index] += [0.0] if truth[index] else []
            continue
        ious = {i: len(truth[i] & pred[i]) / len(truth[i] | pred[i]) for i in of_class if truth[i] or pred[i]}
        for index, iou in ious.items():
            of_class[index].append(iou)
        if ious:
            isi.append(np.mean(list(ious.values())))
        if held := [iou for index, iou in ious.items() if truth[index]]:
            challenge.append(np.mean(held))
    assert len(challenge) < len(isi) < len(frames)
    ours = figures("isinet", frames)
    assert ours["challenge_iou"] == pytest.approx(np.mean(challenge), rel=1e-12)
    assert ours["isi_iou"] == pytest.approx(np.mean(isi), rel=1e-12)
    assert ours["mean_class_iou"] == pytest.approx(np.mean([np.mean(own) for own in of_class.values()]), rel=1e-12)
    if classes == PARTS:
        assert ours["iou wrist"] == pytest.approx(np.mean(of_class[2]), rel=1e-12)
    else:
        assert set(ours) == {"challenge_iou", "isi_iou", "mean_class_iou"}


@pytest.mark.filterwarnings("ignore")  # MONAI warns of empty masks, and of its own call of a deprecated argument
@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_sar_rarp50_is_monai_as_its_authors_call_it(classes: tuple[str, ...]) -> None:
    import torch
    from monai.metrics import MeanIoU, SurfaceDiceMetric  # takes long to import

    frames = fake_frames(classes, count=18, ignoring=False)
    iou = MeanIoU(include_background=False, ignore_empty=False)
    nsd = SurfaceDiceMetric([10] * (len(classes) - 1), include_background=False)
    scores = []
    for frame in frames:
        truth, pred = (
            torch.from_numpy(np.stack([mask == index for index in range(len(classes))])[None]).float()
            for mask in (frame.truth, frame.pred)
        )
        surface = nsd(pred, truth)
        neither = ~(truth + pred)[:, 1:].any(dim=(2, 3))
        surface[neither] = 1
        scores.append((float(iou(pred, truth).mean()), float(surface.nan_to_num().mean())))
    assert min(score for _, score in scores) < 0.9
    rows = [CONVENTIONS["sar-rarp50"].per_frame(frame) for frame in frames]
    np.testing.assert_allclose([(row["mean_iou"], row["mean_nsd"]) for row in rows if row], scores, atol=1e-6)

    videos = ["long"] * 13 + ["short"] * 5
    means = np.mean([np.mean(scores[:13], axis=0), np.mean(scores[13:], axis=0)], axis=0)
    ours = figures("sar-rarp50", frames, videos)
    assert (ours["mean_iou"], ours["mean_nsd"]) == pytest.approx(tuple(means), abs=1e-6)
    assert ours["score"] == pytest.approx(math.sqrt(means[0] * means[1]), abs=1e-6)
    one_video = figures("sar-rarp50", frames)
    assert one_video["mean_iou"] == pytest.approx(np.mean([score for score, _ in scores]), abs=1e-6)


def test_sar_rarp50_counts_a_frame_nobody_predicted_0_and_an_absent_class_1() -> None:
    truth = np.zeros((H, W), np.uint8)
    truth[10:20, 10:20] = 1
    nothing = np.zeros_like(truth)
    parts = CONVENTIONS["sar-rarp50"].per_frame(Frame(nothing, truth, PARTS))
    assert parts == {"mean_iou": pytest.approx(2 / 3), "mean_nsd": pytest.approx(2 / 3)}
    missing = CONVENTIONS["sar-rarp50"].per_frame(Frame(nothing, truth, PARTS, missing=True))
    assert missing == {"mean_iou": 0, "mean_nsd": 0}


def test_sar_rarp50_draws_no_rim_along_ignored_pixels() -> None:
    truth = np.zeros((60, 60), np.uint8)
    truth[20:40, :] = 1
    pred = truth.copy()
    truth[:, 30:] = 255
    pred[20:40, 12:30] = 0
    # Rims: of the truth columns 0 to 29 above and below and its left side, of the prediction 0 to 11 and both sides.
    # The truth is near the prediction up to column 21; inside what is near, its side at the ignored pixels is no rim.
    true_rim, pred_rim = 2 * 30 + 18, 2 * 12 + 2 * 18
    row = CONVENTIONS["sar-rarp50"].per_frame(Frame(pred, truth))
    # The right side of the prediction is up to 10 px from the truth's upper and lower rims everywhere.
    assert row is not None
    assert row["mean_nsd"] == pytest.approx((true_rim - 2 * 8 + pred_rim) / (true_rim + pred_rim))


@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_pooled_is_one_confusion_matrix(classes: tuple[str, ...]) -> None:
    frames = fake_frames(classes)
    truth = np.concatenate([frame.truth[frame.truth != 255] for frame in frames])
    pred = np.concatenate([frame.pred[frame.truth != 255] for frame in frames])
    labels = range(len(classes))
    ious = sk.jaccard_score(truth, pred, labels=labels, average=None)
    dices = sk.f1_score(truth, pred, labels=labels, average=None)
    ours = figures("pooled", frames)
    assert ours["mean_iou"] == pytest.approx(ious[1:].mean(), rel=1e-12)
    assert ours["mean_iou_with_background"] == pytest.approx(ious.mean(), rel=1e-12)
    assert ours["mean_dice"] == pytest.approx(dices[1:].mean(), rel=1e-12)
    assert ours["mean_dice_with_background"] == pytest.approx(dices.mean(), rel=1e-12)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(truth, pred), rel=1e-12)
    assert ours["jaccard"] == pytest.approx(sk.jaccard_score(truth > 0, pred > 0), rel=1e-12)
    assert ours["dice"] == pytest.approx(sk.f1_score(truth > 0, pred > 0), rel=1e-12)


def test_pooled_takes_a_prediction_of_255_for_a_miss_and_leaves_an_absent_class_out() -> None:
    truth = np.array([[0, 1, 1, 1, 255]], np.uint8)
    pred = np.array([[0, 1, 255, 0, 1]], np.uint8)
    ours = figures("pooled", [Frame(pred, truth, PARTS)])
    assert ours["jaccard"] == ours["mean_iou"] == pytest.approx(1 / 3)
    assert ours["mean_iou_with_background"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert ours["accuracy"] == pytest.approx(2 / 4)


def dice_of(first: np.ndarray, second: np.ndarray) -> float:
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else math.nan


def nsd_of(pred: np.ndarray, truth: np.ndarray) -> float:
    if not (pred.any() and truth.any()):
        return 0.0 if pred.any() or truth.any() else math.nan
    distances = surface_distance.compute_surface_distances(truth, pred, (1, 1))
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, 13.01))


def one_by_one(pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Every way to pair labels, background and all, tried; missing partners made up by labels nobody has."""
    truths, preds = (sorted({0, *np.unique(mask).tolist()}) for mask in (truth, pred))
    size = max(len(truths), len(preds))
    truths += [-1] * (size - len(truths))
    preds += [-2] * (size - len(preds))
    dice = {(t, p): np.nan_to_num(dice_of(truth == t, pred == p)) for t in truths for p in preds}
    best = max(itertools.permutations(preds), key=lambda order: sum(map(dice.get, zip(truths, order, strict=True))))
    pairs = list(zip(truths, best, strict=True))[1:]
    nsds = [0.0 if -1 in pair or -2 in pair else nsd_of(pred == pair[1], truth == pair[0]) for pair in pairs]
    return (float(np.mean([dice[pair] for pair in pairs])), float(np.mean(nsds))) if pairs else (math.nan, math.nan)


def test_robust_mis_agrees_with_all_matchings_and_surface_distance() -> None:
    frames = fake_frames(count=18, ignoring=False)
    wholes = [
        (dice_of(frame.pred > 0, frame.truth > 0), nsd_of(frame.pred > 0, frame.truth > 0))
        if frame.truth.any()
        else (math.nan, 0.0 if frame.pred.any() else math.nan)
        for frame in frames
    ]
    each = [one_by_one(frame.pred_instances, frame.truth_instances) for frame in frames]
    expected = np.array([[*whole, *one] for whole, one in zip(wholes, each, strict=True)])
    assert np.isnan(expected[:, 3]).any()
    ours = figures("robust-mis", frames)
    assert ours["mi_nsd"] != pytest.approx(ours["mi_dice"], abs=0.05)
    for column, key in enumerate(("dice", "nsd", "mi_dice", "mi_nsd")):
        assert ours[key] == pytest.approx(np.nanmean(expected[:, column]), rel=1e-9)
        assert ours[f"{key}_p5"] == pytest.approx(np.nanpercentile(expected[:, column], 5), rel=1e-9, abs=1e-12)


def test_robust_mis_by_hand() -> None:
    truth = np.zeros((40, 100), np.uint8)
    truth[5:15, 0:20], truth[25:35, 0:20] = 7, 3
    pred = np.zeros_like(truth)
    pred[5:15, 0:10] = 1  # half of the first, and none of the second
    pred[5:15, 80:90] = 2  # a false one, which makes up the second's pair
    frame = Frame((pred > 0).astype(np.uint8), (truth > 0).astype(np.uint8), BINARY, pred, truth)
    row = CONVENTIONS["robust-mis"].per_frame(frame)
    assert row is not None
    assert row["mi_dice"] == pytest.approx((2 * 100 / 300 + 0) / 2)
    assert row["mi_nsd"] == pytest.approx((1 + 0) / 2)  # half an instrument is off by 10 px, within the 13
    pred[pred == 2] = 0
    assert CONVENTIONS["robust-mis"].per_frame(frame) == {**row, "mi_dice": pytest.approx(1 / 3)}


def test_robust_mis_without_instances_has_its_binary_figures() -> None:
    frames = fake_frames()
    bare = [Frame(frame.pred, frame.truth) for frame in frames]
    expected = figures("robust-mis", frames)
    assert figures("robust-mis", bare) == {key: value for key, value in expected.items() if not key.startswith("mi_")}
    assert "instance" in CONVENTIONS["robust-mis"].needs


def test_conventions_of_the_network_need_one() -> None:
    for name in ("notebook", "kvasir"):
        assert CONVENTIONS[name].per_frame(Frame(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))) is None
        assert CONVENTIONS[name].needs


EMPTY_CASES = {  # both empty; a false find on a tenth of the frame; all of a true instrument missed
    "per-image": ("dice", math.nan, math.nan, 0),
    "endovis2015": ("dice", math.nan, 0, 0),
    "medai2021": ("jaccard", 1, 0.9, 0),
    "ternaus": ("dice", 1, 0, 0),
    "kvasir": ("dice", 0, 0, 0),
    "notebook": ("soft_dice", 1, 1 / 41, 1 / 41),
    "isinet": ("challenge_iou", math.nan, math.nan, 0),
    "sar-rarp50": ("mean_iou", 1, 0, 0),
    "robust-mis": ("dice", math.nan, math.nan, 0),
    "pooled": ("dice", math.nan, 0, 0),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_frames_without_instrument(name: str) -> None:
    nothing, something = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    something[3:7, 2:12] = 1
    key, *expected = EMPTY_CASES[name]
    cases = [(nothing, nothing), (something, nothing), (nothing, something)]
    ours = [
        figures(name, [Frame(pred, truth, network=(pred.astype(np.float32), truth.astype(np.float32)))])[key]
        for pred, truth in cases
    ]
    assert ours == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_what_is_ignored_counts_nowhere(name: str, classes: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    for frame in fake_frames(classes, 8):
        ignored = frame.truth == 255
        assert frame.pred_instances is not None
        assert frame.truth_instances is not None
        assert frame.network is not None
        pred, pred_instances, truth_instances, probability = (
            np.where(ignored, noise, mask)
            for noise, mask in (
                (painted(rng, [1, 1]), frame.pred),
                (painted(rng, [1, 2, 9]), frame.pred_instances),
                (painted(rng, [1, 2, 9]), frame.truth_instances),
                (np.float32(0.9), frame.network[0]),
            )
        )
        network = probability, frame.network[1]
        other = Frame(pred, frame.truth, classes, pred_instances, truth_instances, network)
        convention = CONVENTIONS[name]
        expected = convention.per_frame(frame)
        assert expected is not None
        assert convention.per_frame(other) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_frame_that_is_ignored_entirely_changes_nothing(name: str) -> None:
    frames = fake_frames(count=7)
    void = np.full((H, W), 255, np.uint8)
    network = np.full((H, W), 0.6, np.float32), np.full((H, W), np.nan, np.float32)
    instances = painted(np.random.default_rng(0), [1, 2])
    blind = Frame(np.ones((H, W), np.uint8), void, BINARY, instances, instances, network)
    assert figures(name, [*frames, blind]) == pytest.approx(figures(name, frames), nan_ok=True)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("classes", [BINARY, PARTS])
def test_a_perfect_prediction_scores_one(name: str, classes: tuple[str, ...]) -> None:
    frames = []
    for frame in fake_frames(classes, 12, ignoring=False):
        if frame.truth.any() or name in ("ternaus", "medai2021", "sar-rarp50"):
            network = (frame.truth > 0).astype(np.float32), (frame.truth > 0).astype(np.float32)
            frames.append(
                Frame(frame.truth, frame.truth, classes, frame.truth_instances, frame.truth_instances, network)
            )
    ours = figures(name, frames)
    assert ours == pytest.approx(dict.fromkeys(ours, 1.0))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_say_what_they_are_and_keep_little_of_a_frame(name: str) -> None:
    convention = CONVENTIONS[name]
    assert convention.name == name
    for text in (convention.title, convention.source, convention.definition, convention.empty_rule):
        assert text
    row = convention.per_frame(fake_frames(PARTS, 6)[5])
    assert row is not None
    assert len(pickle.dumps(dict(row))) < 1000
    assert all(type(value) is float for value in row.values())
    assert all(math.isnan(value) for value in convention.figures([]).values())


def test_the_same_masks_differ_by_points_from_convention_to_convention() -> None:
    frames = fake_frames()
    dices = {name: figures(name, frames)["dice"] for name in ("per-image", "ternaus", "medai2021", "pooled")}
    assert len({round(value, 2) for value in dices.values()}) == len(dices)
