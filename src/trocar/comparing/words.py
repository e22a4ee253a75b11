"""What a comparison allows one to say, in plain words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from trocar.metrics.comparison import PairedDifference
from trocar.plain import many

if TYPE_CHECKING:
    from trocar.comparing import Comparison, Pair

Outcome: TypeAlias = Literal["higher", "lower", "chance", "few groups", "seeds", "equal", "undefined"]

_NAMES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "precision": "precision",
    "recall": "recall",
    "nsd": "NSD",
    "hd95": "HD95",
}


def outcome_of(
    paired: PairedDifference, p: float, *, level: float, few_groups: bool, seed_error: float = math.nan
) -> Outcome:
    """What may be said of the first result against the second.

    They are told apart where p is under 1 - level and the interval leaves 0 out. `few groups`: so it is frame by frame,
    but there are too few groups to say so of others. `seeds`: so it is, but by less than twice `seed_error`, the
    standard error that the spread of runs gives the difference.
    """
    mean = paired.difference.mean
    if not paired.difference.n:
        return "undefined"
    if not paired.higher and not paired.lower:
        return "equal"
    if not (p < 1 - level and (mean.low > 0 or mean.high < 0)):
        return "chance"
    if few_groups:
        return "few groups"
    if abs(mean.value) < 2 * seed_error:  # never so where the error is not known, NaN
        return "seeds"
    return "higher" if mean.value > 0 else "lower"


def verdict(comparison: Comparison, pair: Pair) -> str:
    """One pair in a paragraph."""
    paired, score = pair.paired, score_in_words(comparison.score)
    if pair.outcome == "undefined":
        return f"{pair.first} and {pair.second} have no frame in common whose {score} is defined."
    if pair.outcome == "equal":
        return f"{pair.first} and {pair.second} have the same {score} in all {paired.difference.n} frames."
    sentences = [f"{_opening(comparison, pair)}: {_figures(comparison, pair)}.", *_reasons(comparison, pair)]
    left_out = paired.first_only + paired.second_only
    if left_out:
        sentences.append(f"Left out: {many(left_out, 'frame')} defined in only one of the two.")
    return " ".join(sentences)


def score_in_words(column: str) -> str:
    """The name of a score, from that of its column."""
    return _NAMES.get(column, column.replace("_", " "))


def outcome_in_words(pair: Pair) -> str:
    """The outcome in a few words, for a table."""
    return {
        "higher": f"{pair.first} is higher",
        "lower": f"{pair.first} is lower",
        "chance": "cannot be told apart",
        "few groups": "differs on these frames; too few groups to say more",
        "seeds": "no more than other seeds would change",
        "equal": "equal in every frame",
        "undefined": "nothing to compare",
    }[pair.outcome]


def p_in_words(p: float) -> str:
    """Such as "p = 0.034"."""
    return "p undefined" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _opening(comparison: Comparison, pair: Pair) -> str:
    better, worse = (pair.second, pair.first) if _turned(comparison, pair) else (pair.first, pair.second)
    openings = {
        "chance": f"{pair.first} and {pair.second} cannot be told apart",
        "few groups": f"On these frames {better} is better than {worse}; on other groups that cannot be told",
        "seeds": f"{better} is better than {worse} on these frames, but by no more than other seeds would change",
    }
    return openings.get(pair.outcome, f"{better} is better than {worse}")


def _turned(comparison: Comparison, pair: Pair) -> bool:
    """Whether the sentence names the second result first, as the better one."""
    return pair.outcome != "chance" and (pair.paired.difference.mean.value > 0) != comparison.higher_is_better


def _figures(comparison: Comparison, pair: Pair) -> str:
    paired, mean = pair.paired, pair.paired.difference.mean
    means, span = (paired.first_mean, paired.second_mean), (mean.value, mean.low, mean.high)
    if _turned(comparison, pair):
        means, span = (paired.second_mean, paired.first_mean), (-mean.value, -mean.high, -mean.low)
    return (
        f"mean {score_in_words(comparison.score)} {means[0]:.3f} against {means[1]:.3f} over the same "
        f"{many(paired.difference.n, 'frame')}, difference {span[0]:+.3f} "
        f"({paired.difference.level:.0%} interval {span[1]:+.3f} to {span[2]:+.3f})"
    )


def _reasons(comparison: Comparison, pair: Pair) -> list[str]:
    corrected = f", corrected for {pair.corrected_for} pairs" if pair.corrected_for > 1 else ""
    how = f"{p_in_words(pair.p)} by {pair.decided_by.method}{corrected}."
    test = "Frame by frame, as if those of one group were independent" if pair.few_groups else "Permutation test"
    sentences = [f"{test}: {how}"]
    mean, alpha = pair.paired.difference.mean, 1 - comparison.level
    if pair.outcome == "chance" and pair.p < alpha:
        sentences.append("But the interval holds 0.")
    elif pair.outcome == "chance" and (mean.low > 0 or mean.high < 0):
        sentences.append(f"The interval leaves 0 out, but p is not under {alpha:.2g}.")
    if pair.few_groups:
        sentences.append(_too_few_groups(pair))
    if pair.outcome == "chance":
        sentences.append(
            f"That does not make them equal: true differences of {mean.low:+.3f} to {mean.high:+.3f} fit these frames."
        )
    if pair.outcome == "seeds":
        sentences.append(f"The spread of runs alone gives the difference a standard error of {pair.seed_error:.3f}.")
    return sentences


def _too_few_groups(pair: Pair) -> str:
    by_group, groups = pair.paired.by_group, pair.paired.groups
    if by_group is None:
        return "All frames are of one group: they say nothing about others."
    smallest = min(1.0, 2.0 ** (1 - groups) * pair.corrected_for)
    corrected = "corrected p" if pair.corrected_for > 1 else "p"
    return (
        f"By groups {p_in_words(by_group.p)}, but {groups} groups cannot give a {corrected} under {smallest:g}: "
        "such a test can show nothing here."
    )
