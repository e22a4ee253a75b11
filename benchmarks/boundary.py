"""NSD, HD95 and Dice of one pair of 1280x1024 masks: trocar beside surface-distance and MONAI, one run, one thread.

    OMP_NUM_THREADS=1 python benchmarks/boundary.py [repeats]

Needs `pip install surface-distance monai` (both in the extra `dev`). Truth: drawn instruments. Predictions: the truth
moved and with its outline made wavy by some pixels, plus a false patch. The three take turns on each pair, so that
whatever else the machine does hits them alike, and processor time is told beside the clock's. All give their figures,
which must agree where the definitions do: MONAI's HD95 is of pixels without weights, its NSD with `use_subvoxels=True`
is surface-distance's.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import surface_distance
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from trocar.metrics.boundary import boundary_distances
from trocar.metrics.overlap import BoolArray, dice
from trocar.synthetic import draw_scene

SIZE_HW, TOLERANCE, PAIRS = (1024, 1280), 2.0, 6
Figures = tuple[float, float, float]  # NSD, HD95, Dice


def by_trocar(pred: BoolArray, truth: BoolArray) -> Figures:
    """What `trocar evaluate` computes."""
    distances = boundary_distances(pred, truth)
    return distances.surface_dice(TOLERANCE), distances.hausdorff(95), dice(pred, truth)


def by_surface_distance(pred: BoolArray, truth: BoolArray) -> Figures:
    """DeepMind's package; both figures share one computation of the distances."""
    distances = surface_distance.compute_surface_distances(truth, pred, (1, 1))
    return (
        float(surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE)),
        float(surface_distance.compute_robust_hausdorff(distances, 95)),
        float(surface_distance.compute_dice_coefficient(truth, pred)),
    )


def by_monai(pred: BoolArray, truth: BoolArray) -> Figures:
    """MONAI on the CPU, one channel; making the tensors counts, as making masks of them does not for the others."""
    batch = [torch.from_numpy(mask)[None, None] for mask in (pred, truth)]
    y_pred, y = (mask.float() for mask in batch)
    nsd = compute_surface_dice(y_pred, y, [TOLERANCE], include_background=True, use_subvoxels=True)
    hd95 = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95)
    return float(nsd), float(hd95), float(compute_dice(y_pred, y))


def draw_pair(seed: int) -> tuple[BoolArray, BoolArray]:
    """A prediction that is nearly right, and the truth."""
    truth = (draw_scene(seed, size_hw=SIZE_HW, preset="varied", instruments=1 + seed % 3).parts > 0).astype(np.uint8)
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in SIZE_HW), indexing="ij"))
    wave = [cv2.GaussianBlur(rng.normal(0, 1, SIZE_HW).astype(np.float32), (0, 0), 12) for _ in range(2)]
    rows, columns = (axis + 2 * field / field.std() + 1 for axis, field in zip(grid, wave, strict=True))
    pred = cv2.remap(truth, columns, rows, cv2.INTER_NEAREST)
    cv2.circle(pred, (int(rng.integers(100, 1180)), int(rng.integers(100, 924))), 25, 1, -1)
    return pred > 0, truth > 0


def main(repeats: int = 5) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")  # surface-distance calls SciPy by names that it will lose
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    ways: dict[str, Callable[[BoolArray, BoolArray], Figures]] = {
        "trocar": by_trocar,
        "surface-distance": by_surface_distance,
        "MONAI": by_monai,
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}  # processor's, clock's
    figures: dict[str, list[Figures]] = {name: [] for name in ways}
    for pred, truth in map(draw_pair, range(PAIRS)):
        for repeat in range(repeats + 1):
            for name, way in ways.items():
                start, start_clock = time.process_time(), time.perf_counter()
                found = way(pred, truth)
                if repeat:  # the first warms up
                    seconds[name].append((time.process_time() - start, time.perf_counter() - start_clock))
                else:
                    figures[name].append(found)
    np.testing.assert_allclose(figures["trocar"], figures["surface-distance"], rtol=1e-9)
    medians = {name: np.median(times, axis=0) * 1000 for name, times in seconds.items()}
    print("| | processor time, ms | clock, ms | ratio of processor times | of clocks | NSD at 2 px | HD95, px | Dice |")
    print("|---|---|---|---|---|---|---|---|")
    for name, median in medians.items():
        spent = " | ".join(f"{value:.1f}" for value in (*median, *(median / medians["trocar"])))
        print(f"| {name} | {spent} | {' | '.join(f'{value:.4f}' for value in np.mean(figures[name], axis=0))} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
