"""Make the model that ships from the run that trained it: half-precision weights, an int8 form, a card, a licence.

    python tools/make_box.py RUN

int8 is calibrated on training records of the run and gated on its validation records, so its data must still lie where
it was. docs/results.md has how the run is made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trocar import box
from trocar.config import load_recipe
from trocar.data.joining import open_data
from trocar.export import export
from trocar.model_folder import HeldOut, read_card, read_tensors, resolve_model, write_model

BOX = Path(box.__file__).parent

# It was trained on all groups, so nothing is left to judge it by: these are of smaller trainings alike, each judged on
# the surgery or procedure that it had not seen (docs/results.md, "The model that ships").
HELD_OUT = (
    HeldOut(
        data="EndoVis 2015 rigid, in vivo",
        models="three shorter trainings of the same recipe (512x384), each on what it had not seen",
        frames=120,
        groups=3,
        dice=0.854,
        dice_interval=(0.816, 0.883),
        dice_median=0.907,
        jaccard=0.772,
    ),
    HeldOut(
        data="EndoVis 2015 robotic, ex vivo",
        models="three smaller trainings alike (320x240), each on what it had not seen",
        frames=224,
        groups=3,
        dice=0.916,
        dice_interval=(0.902, 0.935),
        dice_median=0.920,
        jaccard=0.847,
    ),
)
REMARKS = (
    "Trained on three laparoscopic surgeries in vivo, three ex-vivo procedures with da Vinci instruments, and drawn "
    "scenes: frames of gastroenteroscopy, of eyes, of open surgery it has not seen.",
    "Fails on instruments of kinds that it has not seen, white and transparent shafts above all; on shafts as dim as "
    "the tissue around them, in the dark corners of the view, behind smoke; where one fills most of the frame.",
    "Gauze, needles, threads, drains and clips are background to it, as in its training data.",
)


def main() -> None:
    """Parse, and write trocar/box/NAME."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default=box.DEFAULT)
    args = parser.parse_args()

    folder, run = BOX / args.name, args.run
    trained = resolve_model(run)
    changes = {"name": args.name, "held_out": HELD_OUT, "remarks": REMARKS, "exports": {}}
    licence = (Path(__file__).parent / "LICENSE-weights.txt").read_text(encoding="utf-8")
    write_model(folder, read_card(trained).model_copy(update=changes), read_tensors(trained), licence, half=True)
    data = open_data(load_recipe(run / "recipe.yaml").data)
    made = export(folder, to="openvino", precision="int8", data=data, split=run / "split.yaml")
    print(made.export.agreement)


if __name__ == "__main__":
    main()
