"""The report of an evaluation: one HTML page that needs nothing else, and the same numbers as JSON and CSV.

Worst frames come first, frames without instruments stand on their own line, undefined figures are dashes (HTML),
null (JSON) or blank (CSV) and are counted. What was not looked at has no section.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from trocar.data.files import atomic_write_text
from trocar.evaluation import Evaluation
from trocar.metrics.frames import FrameScores
from trocar.metrics.strata import Stratum
from trocar.metrics.traits import TRAITS
from trocar.plain import without_nan
from trocar.reporting import words
from trocar.reporting.figures import (
    curve_svgs,
    histogram_svg,
    reliability_svg,
    risk_coverage_svg,
    strip_svg,
    threshold_svg,
)
from trocar.reporting.galleries import Gallery, draw_galleries, places
from trocar.reporting.pages import rendered, write_json
from trocar.reporting.table import DISTANCES, distance_digits, frame_table, per_image_csv, score_names
from trocar.reporting.words import verdict

PANEL_THRESHOLDS = (0.3, 0.5, 0.99)  # besides the one that was scored


def write_report(
    evaluation: Evaluation,
    out: Path,
    *,
    pictures: bool = True,
) -> Path:
    """Write report.html, report.json and per_image.csv into `out`; returns the path of the page.

    `pictures` embeds frames (of patients, as the page then says), predicted once more for it; without them the page
    holds figures and names only. Raises `UserError` where `out` cannot be written to.
    """
    tree = without_nan({"verdict": verdict(evaluation), **evaluation.as_dict()})
    write_json(tree, out / "report.json")
    atomic_write_text(out / "per_image.csv", per_image_csv(evaluation.rows))
    galleries = draw_galleries(evaluation, PANEL_THRESHOLDS) if pictures else []
    atomic_write_text(out / "report.html", _page(evaluation, galleries))
    return out / "report.html"


def _page(evaluation: Evaluation, galleries: Sequence[Gallery]) -> str:
    return rendered(
        "report.html",
        {"figure": words.figure, "share": words.share, "side": words.side_in_words},
        title=_title(evaluation),
        folds_are_groups=_folds_are_groups(evaluation.rows),
        verdict=verdict(evaluation),
        evaluation=evaluation,
        summary=evaluation.summary,
        score_names=score_names(evaluation.ruler),
        distances=DISTANCES,
        figures=_distributions(evaluation),
        strata=_by_trait(evaluation.strata),
        definitions={name: trait.definition for name, trait in TRAITS.items()},
        nsd_tolerance=str(evaluation.ruler),
        distance_digits=distance_digits(evaluation.ruler),
        threshold_figures={
            fold: threshold_svg(choice, words.side_in_words(evaluation.side))
            for fold, choice in evaluation.thresholds.items()
        },
        reliability_figure=reliability_svg(evaluation.calibration) if evaluation.calibration else "",
        risk_figure=risk_coverage_svg(evaluation.failure)
        if evaluation.failure and evaluation.failure.risk_coverage
        else "",
        promises=_promises(evaluation),
        galleries=galleries,
        curves={fold: curve_svgs(log) for fold, log in evaluation.curves.items() if log},
        table=frame_table(evaluation.rows, places(galleries), evaluation.ruler),
    )


def _promises(evaluation: Evaluation) -> dict[str, str]:
    """What the quality score of each model promises, in words, by fold."""
    cards = {part.fold or "": part.card for part in evaluation.parts}
    return {fold: card.quality.assumption for fold, card in cards.items() if card is not None and card.quality}


def _distributions(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    if not summary.scores["dice"].n:
        return []
    by_group: dict[str, list[float]] = {}
    for row in evaluation.rows:
        by_group.setdefault(row.group, []).append(row.dice)
    whole = histogram_svg([row.dice for row in evaluation.rows], "Dice")
    return [whole, strip_svg(by_group, "Dice")] if summary.groups else [whole]


def _by_trait(strata: Sequence[Stratum]) -> list[list[Stratum]]:
    """Strata of one trait together, in the order they come; the trait of the first stratum first."""
    order = list(dict.fromkeys(stratum.trait for stratum in strata))
    ranked = sorted(strata, key=lambda stratum: order.index(stratum.trait))
    return [list(members) for _, members in itertools.groupby(ranked, key=lambda stratum: stratum.trait)]


def _title(evaluation: Evaluation) -> str:
    cards = [part.card for part in evaluation.parts if part.card is not None]
    if not cards:
        return evaluation.protocol["predictions"]
    if len(cards) == 1:
        return cards[0].name
    return f"{', '.join(sorted({card.provenance.recipe for card in cards}))}, {len(cards)} folds"


def _folds_are_groups(rows: Sequence[FrameScores]) -> bool:
    """Whether each fold scores one group: two tables would then say the same."""
    pairs = {(row.fold, row.group) for row in rows}
    return len(pairs) == len({fold for fold, _ in pairs}) == len({group for _, group in pairs})
