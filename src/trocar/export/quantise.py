"""int8 that keeps its promise: quantise a graph, and where masks suffer, put the worst layers back to float.

Which layers are worst is measured on calibration frames: how much nearer to the float graph's logits does one layer in
float bring the int8 graph. How many must go back is decided by `check`, which looks at validation records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trocar.export.graphs import Graph
from trocar.progress import Watcher

G = TypeVar("G", bound=Graph)
RANKED_ON = 8  # calibration frames that rank the layers: each costs a run a layer


@dataclass(frozen=True)
class Quantised(Generic[G]):
    """An int8 graph and what was done to it."""

    graph: G
    in_float: tuple[str, ...]  # layers that were put back, the worst first
    costs: tuple[tuple[str, float], ...]  # layer and the share of the error that is its own, largest first; may be ()


def quantise(
    graph: G, frames: Sequence[NDArray[np.uint8]], check: Callable[[G], bool], *, watcher: Watcher
) -> Quantised[G]:
    """`graph` in int8, with as few layers in float as `check` asks for (1, 2, 4, ... up to half of them).

    `frames` are prepared frames (1, h, w, 3) of training records. Where `check` is never content, the graph with none
    in float comes back, with `costs`, for its caller to refuse.
    """
    watcher.message(f"quantising: ranges of the layers from {len(frames)} training frames")
    full = graph.quantised(frames)
    if check(full):
        return Quantised(full, (), ())
    watcher.message("masks suffer in int8: looking for the layers that cost most")
    costs = rank_layers(graph, full, frames[:RANKED_ON], watcher=watcher)
    worst = [name for name, _ in costs]
    count = 1
    while count <= max(1, len(worst) // 2):
        tried = full.without(worst[:count], graph)
        watcher.message(f"with {count} of {len(worst)} layers in float")
        if check(tried):
            return Quantised(tried, tuple(worst[:count]), tuple(costs))
        count *= 2
    return Quantised(full, (), tuple(costs))


def rank_layers(graph: G, full: G, frames: Sequence[NDArray[np.uint8]], *, watcher: Watcher) -> list[tuple[str, float]]:
    """Each int8 layer and the share of the logits' squared error that goes when it alone is float, largest first."""
    wanted = _logits(graph, frames)
    error = float(np.mean((_logits(full, frames) - wanted) ** 2)) or 1.0
    layers, costs = full.layers(), []
    for index, layer in enumerate(layers, start=1):
        left = float(np.mean((_logits(full.without([layer], graph), frames) - wanted) ** 2))
        costs.append((layer, 1 - left / error))
        watcher.preparing("ranking layers", index, len(layers))
    return sorted(costs, key=lambda item: -item[1])


def _logits(graph: Graph, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    engine = graph.engine("int8")
    return np.concatenate([engine(frame) for frame in frames])
