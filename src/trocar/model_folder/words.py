"""The texts of a model folder that people read: README.md and LICENSE."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from trocar.config import mask_steps_in_words
from trocar.model_folder.card import ModelCard, ValidationCurve
from trocar.plain import evenly
from trocar.sizes import shown_size

LICENCE_HEADING = "Licence of these weights"
CURVE_COLUMNS: Final = 7  # of the table in the README


def derived_licence(dataset: str, encoder: str, encoder_weights: str) -> str:
    """The LICENSE of weights that somebody trained: they follow the data and the start, not trocar's own licence."""
    start = (
        "from random weights"
        if encoder_weights == "none"
        else f"from pretrained weights of {encoder} ({Path(encoder_weights).name})"
    )
    return (
        f"{LICENCE_HEADING}\n\n"
        f"These weights were trained on the data {dataset}, starting {start}.\n"
        "They derive from both: whoever passes them on must keep to the licence of the data and to the licence of the\n"
        "pretrained weights. Trocar's own licence (Apache-2.0) covers the program that made them and does not by\n"
        "itself cover the weights.\n"
    )


README_TEMPLATE = """\
# {{ card.name }}

Segments {{ card.classes[1:] | join(", ") }} in endoscopic and surgical images: {{ card.model.architecture }} on
{{ card.model.encoder }}. For research only; **not a medical device**.

## Trained on

- data: {{ p.dataset }} ({{ p.data_fingerprint }})
{% if p.groups %}
- groups: {{ p.groups[:12] | join(", ") }}
{%- if p.groups | length > 12 %} and {{ p.groups | length - 12 }} more{% endif %}

{% endif %}
{% if p.fold %}
- fold: {{ p.fold }}
{% endif %}
{% for before in p.began_from %}
- {{ "began" if loop.first else "that one" }} from: {{ before.name }}, trained on {{ before.dataset }}
{%- if before.groups %} ({{ before.groups[:12] | join(", ") }}
{%- if before.groups | length > 12 %} and {{ before.groups | length - 12 }} more{% endif %})
{%- endif %}

{% endfor %}
{% if p.split_fingerprint %}
- split: {{ p.split_fingerprint }}
{% endif %}
- recipe {{ p.recipe }}, seed {{ p.seed }}, epoch {{ p.best_epoch }} of {{ p.epochs }}, {{ card.loss.name }} loss
- {{ p.created }}, on {{ p.device }} in precision {{ p.precision }}, trocar {{ card.trocar_version }}
  {%- for name, version in p.versions.items() %}, {{ name }} {{ version }}{% endfor %}


## What goes in, what comes out

One uint8 RGB image of any size. It is brought to {{ card.preprocess.size_hw | size }} (width x height) by
{{ card.preprocess.fit }}
{%- if card.preprocess.image_steps %}
, after {{ card.preprocess.image_steps | map(attribute="step") | join(", ") }}
{%- endif %};
probabilities are resized bilinearly to the image's own size.
{% if mask_steps %}

Masks were altered ({{ mask_steps }}) before training
{%- if card.preprocess.mask_steps_on == "all" %}
, and so were the masks that its scores were taken with: they are not comparable with scores against masks as labelled
{%- endif %}
.
{% endif %}
{% if card.preprocess.mask_resize == "bilinear" %}

Masks were resized bilinearly for the loss: borders were shares between 0 and 1.
{% endif %}

Classes:

| index | class |
|---|---|
{% for name in card.classes %}
| {{ loop.index0 }} | {{ name }} |
{% endfor %}

{% if card.binary %}
A pixel is {{ card.classes[1] }} from probability {{ "%.4g" | format(card.threshold) }} on; the threshold comes from:
{{ card.threshold_from }}.
{% else %}
A pixel is of its most probable class ({{ card.threshold_from }}).
{% endif %}

## Scores

{% if card.scores %}
| side | images | loss | Dice | Jaccard | undefined | threshold | resolution |
|---|---|---|---|---|---|---|---|
{% for side, s in card.scores.items() %}
| {{ side }} | {{ s.records }} | {{ s.loss | figure }} | {{ s.dice | figure }} | {{ s.jaccard | figure }} |
 {{- " " }}{{ s.undefined }} | {{ s.threshold | figure }} | {{ s.resolution }} |
{% endfor %}

Dice and Jaccard are means over images; an image that shows no instrument is undefined and left out.
The threshold and the epoch were chosen with the val side, so its figures flatter; the train side was learnt. Neither
says how the model does elsewhere: for that, `trocar evaluate` on data it has never seen.
{% else %}
None were taken.
{% endif %}

{% if card.held_out %}
## On frames it has not seen

| frames | what was scored | images | groups | Dice, mean | median | Jaccard |
|---|---|---|---|---|---|---|
{% for one in card.held_out %}
| {{ one.data }} | {{ one.models }} | {{ one.frames }} | {{ one.groups }} | {{ one.dice | figure }}
 {%- if one.dice_interval %} ({{ one.dice_interval[0] | figure }} to {{ one.dice_interval[1] | figure }}){% endif %} |
 {{- " " }}{{ one.dice_median | figure }} | {{ one.jaccard | figure }} |
{% endfor %}

Means over images at native size; brackets are 95 % bootstrap intervals that resample groups, where there are several.

{% endif %}
{% if card.exports %}
## Exported forms

| folder | frames | Dice of PyTorch | Dice | pixels that differ | probabilities differ by up to | layers in float |
|---|---|---|---|---|---|---|
{% for key, e in card.exports.items() %}
| {{ key }} | {{ e.size_hw | size if e.size_hw else "any size" }} | {{ e.agreement.dice_torch | figure }} |
 {{- " " }}{{ e.agreement.dice | figure }} | {{ "%.3f" | format(100 * e.agreement.pixels) }} % |
 {{- " " }}{{ e.agreement.probability | figure }} | {{ e.in_float | length }} |
{% endfor %}

Compared on validation frames, by `trocar export`. On a CPU the first of openvino-int8, openvino-bf16, openvino,
onnx-int8 and onnx is taken; `--engine torch` takes the weights themselves.

{% endif %}
{% if card.threshold_curve or card.calibration or card.quality %}
## Threshold, calibration, quality

Fitted on the validation side; how they do elsewhere, `trocar evaluate` tells.

{% if curve %}
| threshold |{% for threshold, _ in curve %} {{ "%.2f" | format(threshold) }} |{% endfor %}

|---|{{ "---|" * (curve | length) }}
| Dice, mean over {{ card.threshold_curve.frames }} frames |{% for _, dice in curve %} {{ dice | figure }} |{% endfor %}


{% endif %}
{% if card.calibration %}
{% set c = card.calibration %}
- Expected calibration error (at {{ c.resolution }}, {{ c.frames }} frames): {{ c.ece | figure }}
{%- if c.temperature %}; after temperature scaling by {{ c.temperature | figure }}: {{ c.ece_after | figure }}.
  The threshold belongs to the unscaled probabilities, which are the ones that come out
{%- else %}; no temperature fits
{%- endif %}.
{% endif %}
{% if card.quality %}
{% set q = card.quality %}
{% if q.limit is not none %}
- Frames whose quality is below {{ q.limit | figure }} are to be looked at. Promised: {{ q.assumption }}.
  For a frame of quality q the promise is a Dice of at least 1 - {{ "%.3g" | format(q.factor) }} (1 - q).
{% else %}
- Quality promises nothing: {{ q.assumption }}.
{% endif %}
{% endif %}

{% endif %}
## Use

```
trocar predict IMAGES --model THIS_FOLDER --out predictions
```

```python
import trocar

prediction = trocar.load("THIS_FOLDER")(image)  # image: uint8 RGB (H, W, 3)
prediction.mask  # uint8 (H, W), class indices
```

## Limits

{% for remark in card.remarks %}
- {{ remark }}
{% endfor %}
{% if card.remarks %}

{% endif %}
It knows what its data showed: other instruments, organs, cameras, lighting, smoke or blood may fail without a sign.
Nobody has assessed it for clinical use. The weights have a licence of their own: see LICENSE.
"""


def readme(card: ModelCard) -> str:
    """The card for people, as Markdown."""
    import jinja2  # only who writes a model waits for it

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["figure"] = lambda value: "-" if value is None else f"{value:.4f}"
    environment.filters["size"] = shown_size
    return environment.from_string(README_TEMPLATE).render(
        card=card,
        p=card.provenance,
        mask_steps=mask_steps_in_words(card.preprocess),
        curve=_few_points(card.threshold_curve),
    )


def _few_points(curve: ValidationCurve | None) -> list[tuple[float, float]]:
    """Threshold and Dice at some of the points, evenly: the whole curve is in `model.json`."""
    if curve is None or not curve.dice:
        return []
    return evenly(list(zip(curve.thresholds, curve.dice, strict=True)), CURVE_COLUMNS)
