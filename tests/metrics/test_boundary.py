from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from trocar.metrics.boundary import Distances, boundary_distances, boundary_iou

SHAPE = (11, 13)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
EDGES = ("closed", "open")
masks = hnp.arrays(np.bool_, SHAPE)
blobs = st.integers(0, 10_000)  # seeds of `blob`

# surface-distance calls SciPy by names that SciPy will drop; NumPy 2 has dropped its np.Inf, so it never sees an
# empty mask here.
pytestmark = pytest.mark.filterwarnings("ignore:Please (use|import):DeprecationWarning")


def blob(seed: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    """Something with straight and wavy outlines that may leave the image."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(2, 6), mode="nearest")
    mask = field > np.quantile(field, rng.uniform(0.5, 0.97))
    top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
    mask[top : top + 9, left : left + 15] = True
    return mask


def square(top: int, left: int, side: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def figures(distances: Distances) -> tuple[float, ...]:
    nsd = (distances.surface_dice(tolerance) for tolerance in (0, 1, 1.5, 2, 5, 10))
    return (*nsd, distances.hausdorff(), distances.hausdorff(95), distances.hausdorff(50), distances.average)


# ------------------------------------------------------------------ other implementations


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("spacing", [None, (0.25, 0.25), (0.3, 0.7), (1.9, 0.2)])
def test_agrees_with_surface_distance(seed: int, spacing: tuple[float, float] | None) -> None:
    pred, target = blob(2 * seed), blob(2 * seed + 1)
    ours = boundary_distances(pred, target, spacing=spacing)
    theirs = surface_distance.compute_surface_distances(target, pred, spacing or (1, 1))
    np.testing.assert_allclose(ours.pred, theirs["distances_pred_to_gt"], rtol=1e-12)
    np.testing.assert_allclose(ours.target, theirs["distances_gt_to_pred"], rtol=1e-12)
    for percent in (50, 95, 100):
        expected = surface_distance.compute_robust_hausdorff(theirs, percent)
        assert ours.hausdorff(percent) == pytest.approx(expected, rel=1e-12)
    for tolerance in (0, 1.05, 2.05, 10.05):  # between the distances that spacings give: no tie is decided by rounding
        expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert ours.surface_dice(tolerance) == pytest.approx(expected, rel=1e-12)
    there, back = surface_distance.compute_average_surface_distance(theirs)
    long, other = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert ours.average == pytest.approx((there * long + back * other) / (long + other), rel=1e-12)


@pytest.mark.filterwarnings("ignore")  # MONAI 1.6 warns of its own call of a deprecated argument
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 5.0])
def test_nsd_agrees_with_monai_on_subvoxels(seed: int, tolerance: float) -> None:
    from monai.metrics import compute_surface_dice  # takes long to import

    pred, target = blob(2 * seed), blob(2 * seed + 1)
    batch = [torch.from_numpy(mask)[None, None].float() for mask in (pred, target)]
    expected = compute_surface_dice(*batch, [tolerance], include_background=True, use_subvoxels=True)
    ours = boundary_distances(pred, target).surface_dice(tolerance)
    assert ours == pytest.approx(float(expected), abs=1e-6)  # MONAI adds up in float32


def by_brute_force(pred: np.ndarray, target: np.ndarray, spacing: tuple[float, float], edge: str) -> tuple[float, ...]:
    """Every element of contour against every other, corner by corner."""

    def elements(mask: np.ndarray) -> list[tuple[float, float, float]]:
        found = []
        for row, column in itertools.product(range(mask.shape[0] + 1), range(mask.shape[1] + 1)):
            around = [
                mask[r, c] if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] else None
                for r, c in itertools.product((row - 1, row), (column - 1, column))
            ]
            if edge == "open" and None in around:
                continue
            a, b, c, d = map(bool, around)
            if a == b == c == d:
                continue
            diagonal = math.hypot(*spacing) / 2
            if a == b and c == d:
                length = spacing[1]
            elif a == c and b == d:
                length = spacing[0]
            else:
                length = 2 * diagonal if a == d and b == c else diagonal
            found.append((row * spacing[0], column * spacing[1], length))
        return found

    sets = elements(pred), elements(target)
    near = total = summed = 0.0
    percentiles = []
    for own, other in (sets, sets[::-1]):
        ranked = sorted((min(math.hypot(y - v, x - u) for v, u, _ in other), length) for y, x, length in own)
        total += sum(length for _, length in ranked)
        near += sum(length for distance, length in ranked if distance <= 1.25)
        summed += sum(distance * length for distance, length in ranked)
        upto, whole = 0.0, sum(length for _, length in ranked)
        for distance, length in ranked:
            upto += length
            if upto / whole >= 0.9 - 1e-12:
                percentiles.append(distance)
                break
    return near / total, max(percentiles), summed / total


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.4, 1.1)])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_brute_force(seed: int, spacing: tuple[float, float], edge) -> None:
    pred, target = blob(seed, (17, 23)), blob(seed + 50, (17, 23))
    ours = boundary_distances(pred, target, spacing=spacing, edge=edge)
    expected = by_brute_force(pred, target, spacing, edge)
    assert (ours.surface_dice(1.25), ours.hausdorff(90), ours.average) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("edge", EDGES)
@settings(max_examples=40, deadline=None)
@given(masks, masks)
def test_distances_are_those_of_an_exact_transform(edge, pred: np.ndarray, target: np.ndarray) -> None:
    ours = boundary_distances(pred, target, edge=edge)

    def contour(mask: np.ndarray) -> np.ndarray:
        m = np.pad(mask, 1).astype(int)
        corners = m[:-1, :-1] + m[1:, :-1] + m[:-1, 1:] + m[1:, 1:]
        grid = (corners > 0) & (corners < 4)
        return grid if edge == "closed" else np.pad(grid[1:-1, 1:-1], 1)

    of_pred, of_target = contour(pred), contour(target)
    for mine, own, other in ((ours.pred, of_pred, of_target), (ours.target, of_target, of_pred)):
        expected = np.sort(ndimage.distance_transform_edt(~other)[own]) if other.any() else np.full(own.sum(), np.inf)
        np.testing.assert_allclose(mine, expected, rtol=1e-15)


def test_distances_across_a_large_image_are_exact() -> None:
    pred, target = square(5, 3, 2, (1100, 1300)), square(1090, 1280, 2, (1100, 1300))
    pred[300:310, 700:900] = True
    ours = boundary_distances(pred, target)
    assert ours.hausdorff() == math.hypot(1090 - 5, 1280 - 3)
    flat = boundary_distances(pred[5:8], target[5:8] | (np.arange(1300) > 1290))
    assert flat.hausdorff() == math.hypot(1300 - 5, 3 - 2)


# ------------------------------------------------------------------ by hand


def test_a_square_moved_by_three() -> None:
    distances = boundary_distances(square(10, 13, 10), square(10, 10, 10))
    # Each contour: 4 corners of half a diagonal, 4 sides of 9. The upper and lower sides lie on each other for 7
    # elements, the last 3 of each stick out by 1, 2, 3 (the corner); the upright side is 3 away, less near its ends.
    length = 36 + 2 * math.sqrt(2)
    assert distances.target_lengths.sum() == pytest.approx(length)
    assert distances.hausdorff() == distances.hausdorff(95) == 3
    assert distances.surface_dice(3) == 1
    # Within 0: of one contour the upper and lower sides' columns 13 to 19 and, of its inner upright side's elements,
    # the ends: the other's sides run from 10 to 20, and 13 is the column of a corner of the other.
    on_each_other = 2 * (7 - 1 + 1) + 2 * (math.sqrt(2) / 2)
    assert distances.surface_dice(0) == pytest.approx(on_each_other / length)


def test_concentric_squares_are_as_far_apart_as_their_sides() -> None:
    distances = boundary_distances(square(12, 12, 10), square(10, 10, 14))
    small, large = 4 * 9 + 2 * math.sqrt(2), 4 * 13 + 2 * math.sqrt(2)
    # Of the larger one the corners are a diagonal of 2 away, and the two elements beside each the root of 5.
    assert distances.surface_dice(1.9) == 0
    assert distances.surface_dice(2) == pytest.approx((small + 4 * 11) / (small + large))
    assert distances.hausdorff() == math.hypot(2, 2)
    assert distances.hausdorff(94) == math.sqrt(5)  # the corners are 5.2 % of the length


def test_pixels_that_touch_by_their_corners_have_a_whole_diagonal_between_them() -> None:
    for touching in (np.eye(2, dtype=bool), np.eye(2, dtype=bool)[::-1]):
        lengths = boundary_distances(np.pad(touching, 3), np.pad(touching, 3)).pred_lengths
        assert sorted(lengths) == pytest.approx([math.sqrt(2) / 2] * 6 + [math.sqrt(2)])


def test_hd95_forgets_a_twentieth_of_the_contour_and_hausdorff_does_not() -> None:
    target = square(5, 5, 60, (100, 200))
    pred = target.copy()
    pred[80, 190] = True  # 4 corners of half a diagonal among some 240 elements
    distances = boundary_distances(pred, target)
    assert distances.hausdorff(95) == 0
    assert distances.hausdorff() == math.hypot(81 - 65, 191 - 65)


def test_a_spacing_scales_distances_and_a_tolerance_in_mm_is_met_exactly() -> None:
    pred, target = square(10, 13, 10), square(10, 10, 10)
    in_mm = boundary_distances(pred, target, spacing=(0.1, 0.1))
    assert in_mm.hausdorff() == pytest.approx(0.3)
    assert in_mm.surface_dice(0.3) == 1  # although 3 x 0.1 > 0.3 in floating point
    assert in_mm.surface_dice(0.29) < 1


# ------------------------------------------------------------------ the edge of the image


def test_the_edge_of_the_image_is_contour_only_if_closed() -> None:
    shaft = np.zeros((40, 60), bool)
    shaft[15:25, :40] = True  # enters from the left
    closed, opened = (boundary_distances(shaft, shaft, edge=edge) for edge in EDGES)
    assert closed.pred_lengths.sum() == pytest.approx(2 * 39 + 2 * 9 + 2 * math.sqrt(2))
    assert opened.pred_lengths.sum() == pytest.approx(2 * 39 + 9 + math.sqrt(2))


def test_what_ends_a_pixel_short_of_the_edge_is_a_pixel_off_if_closed_and_half_its_width_if_open() -> None:
    shaft = np.zeros((40, 60), bool)
    shaft[15:25, :40] = True
    short = shaft.copy()
    short[:, 0] = False
    assert boundary_distances(short, shaft).hausdorff() == 1
    assert boundary_distances(short, shaft, edge="open").hausdorff() == 5


def test_a_far_edge_of_the_crop_is_not_the_edge_of_the_image() -> None:
    inner = square(10, 10, 8)
    for edge in EDGES:
        assert boundary_distances(inner, inner, edge=edge).pred_lengths.sum() == pytest.approx(28 + 2 * math.sqrt(2))


# ------------------------------------------------------------------ empty and ignored

TABLE = [  # prediction, truth, edge -> NSD, whether distances are defined, boundary IoU
    (EMPTY, EMPTY, "closed", math.nan, False, math.nan),
    (EMPTY, EMPTY, "open", math.nan, False, math.nan),
    (EMPTY, square(3, 3, 4, SHAPE), "closed", 0, False, 0),
    (EMPTY, square(3, 3, 4, SHAPE), "open", 0, False, 0),
    (square(3, 3, 4, SHAPE), EMPTY, "closed", 0, False, 0),
    (square(3, 3, 4, SHAPE), EMPTY, "open", 0, False, 0),
    (FULL, FULL, "closed", 1, True, 1),
    (FULL, FULL, "open", math.nan, False, math.nan),  # no contour is seen
    (FULL, EMPTY, "closed", 0, False, 0),
    (FULL, EMPTY, "open", math.nan, False, math.nan),
    (FULL, square(3, 3, 4, SHAPE), "open", 0, False, 0),
]


@pytest.mark.parametrize(("pred", "target", "edge", "nsd", "defined", "rims"), TABLE)
def test_every_empty_case(pred, target, edge, nsd: float, *, defined: bool, rims: float) -> None:
    distances = boundary_distances(pred, target, edge=edge)
    assert distances.surface_dice(2) == pytest.approx(nsd, abs=0, nan_ok=True)
    for value in (distances.hausdorff(), distances.hausdorff(95), distances.average):
        assert value == 0 if defined else math.isnan(value)
    assert boundary_iou(pred, target, edge=edge) == pytest.approx(rims, abs=0, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(masks, masks, masks, masks)
def test_what_is_predicted_on_ignored_pixels_changes_nothing(pred, other, target, ignore) -> None:
    changed = np.where(ignore, other, pred)
    for edge in EDGES:
        one, two = (boundary_distances(mask, target, ignore, edge=edge) for mask in (pred, changed))
        assert figures(one) == pytest.approx(figures(two), nan_ok=True)
        rims = [boundary_iou(mask, target, ignore, width_px=2, edge=edge) for mask in (pred, changed)]
        assert rims[0] == pytest.approx(rims[1], abs=0, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(blobs, blobs)
def test_ignoring_nothing_changes_nothing(first: int, second: int) -> None:
    pred, target = blob(first, SHAPE), blob(second, SHAPE)
    assert figures(boundary_distances(pred, target, EMPTY)) == figures(boundary_distances(pred, target))
    assert boundary_iou(pred, target, EMPTY) == boundary_iou(pred, target)


def test_contour_beside_ignored_pixels_weighs_nothing_and_can_still_be_what_is_near() -> None:
    target, ignore = square(10, 10, 10), np.zeros((40, 40), bool)
    ignore[:, 18:22] = True  # over the right side of the truth, which then ends at column 18
    pred = square(10, 10, 16)[:, :]
    pred[20:] = False  # runs on beneath the ignored strip, to column 26
    distances = boundary_distances(pred, target, ignore)
    # Left of the strip both contours agree; right of it the prediction goes on, off by what lies nearest: column 18.
    assert distances.hausdorff() == 26 - 18
    assert (distances.target == 0).all()
    assert distances.target_lengths.sum() == pytest.approx(2 * 7 + 9 + math.sqrt(2))
    assert boundary_distances(pred, target, ignore | (np.arange(40) > 17)).surface_dice(0) == 1


def test_where_all_contour_is_ignored_nothing_is_defined() -> None:
    target = square(10, 10, 10)
    ring = ndimage.binary_dilation(target) ^ ndimage.binary_erosion(target)
    assert np.isnan(figures(boundary_distances(target, target, ring))).all()


# ------------------------------------------------------------------ properties


@pytest.mark.parametrize("edge", EDGES)
@settings(max_examples=25, deadline=None)
@given(blobs, blobs)
def test_properties_of_any_two_masks(edge, first: int, second: int) -> None:
    pred, target = blob(first, (20, 26)), blob(second, (20, 26))
    distances = boundary_distances(pred, target, edge=edge)
    expected = figures(distances)
    assert figures(boundary_distances(target, pred, edge=edge)) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    rims = boundary_iou(pred, target, edge=edge)
    for turn in (np.flipud, np.fliplr, np.rot90, np.transpose):
        turned = boundary_distances(turn(pred), turn(target), edge=edge)
        assert figures(turned) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        assert boundary_iou(turn(pred), turn(target), edge=edge) == pytest.approx(rims, abs=0, nan_ok=True)
    if not math.isnan(expected[0]):
        nsd = [distances.surface_dice(tolerance) for tolerance in np.linspace(0, 40, 9)]
        assert nsd == sorted(nsd)
        assert 0 <= nsd[0] <= nsd[-1] <= 1
    if not math.isnan(distances.average):
        assert distances.hausdorff(50) <= distances.hausdorff(95) <= distances.hausdorff()
        assert distances.average <= distances.hausdorff()


@settings(max_examples=40, deadline=None)
@given(blobs)
def test_a_mask_against_itself_is_perfect(seed: int) -> None:
    mask = blob(seed)
    distances = boundary_distances(mask, mask)
    assert distances.surface_dice(0) == boundary_iou(mask, mask) == 1
    assert distances.hausdorff() == distances.hausdorff(95) == distances.average == 0


# ------------------------------------------------------------------ boundary IoU


def rim_of_the_authors(mask: np.ndarray) -> np.ndarray:
    """`mask_to_boundary` of the authors' code, with SciPy for OpenCV: one ring after the other, 0 around the image."""
    width = max(1, round(0.02 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    padded = np.pad(mask, 1)
    return (padded ^ ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=width))[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(20, 30), (60, 80), (90, 140)])
def test_boundary_iou_agrees_with_the_authors(seed: int, shape: tuple[int, int]) -> None:
    pred, target = blob(seed, shape), blob(seed + 20, shape)
    rims = rim_of_the_authors(pred), rim_of_the_authors(target)
    expected = np.count_nonzero(rims[0] & rims[1]) / np.count_nonzero(rims[0] | rims[1])
    assert boundary_iou(pred, target) == expected


def test_boundary_iou_by_hand() -> None:
    pred, target = square(10, 12, 10), square(10, 10, 10)
    # rims of 1 px: 36 px each; they share the upper and lower side of 8 px
    assert boundary_iou(pred, target, width_px=1) == 16 / (36 + 36 - 16)
    wide = np.zeros((40, 40), bool)
    wide[:, :10] = True  # touches three sides of the image
    assert boundary_iou(wide, wide & (np.arange(40) < 9), width_px=1, edge="open") == 0  # columns 9 and 8 alone
    assert boundary_iou(wide, wide & (np.arange(40) < 9), width_px=1) > 0


# ------------------------------------------------------------------ refusals


def test_what_makes_no_sense_is_refused() -> None:
    for metric in (boundary_distances, boundary_iou):
        with pytest.raises(ValueError, match="do not broadcast"):
            metric(FULL[:1], FULL)
        with pytest.raises(ValueError, match="do not broadcast"):
            metric(FULL, FULL, FULL[:1])
        with pytest.raises(ValueError, match="ambiguous"):
            metric(FULL.astype(np.uint8) * 255, FULL)
    distances = boundary_distances(FULL, FULL)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance"):
            distances.surface_dice(tolerance)
    for percent in (0, 101, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            distances.hausdorff(percent)
    for spacing in ((0, 1), (1, -1), (1, math.nan)):
        with pytest.raises(ValueError, match="spacing"):
            boundary_distances(FULL, FULL, spacing=spacing)
    with pytest.raises(ValueError, match="rim"):
        boundary_iou(FULL, FULL, width_px=0)
