from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open

from tiny import tiny_card
from trocar.config import Clahe, ModelSettings, PreprocessSettings
from trocar.errors import UserError, UserErrors
from trocar.metrics.failure import DiceBound
from trocar.model_folder import (
    HeldOut,
    ModelCard,
    QualityLimit,
    Scores,
    TemperatureScaling,
    ValidationCurve,
    derived_licence,
    read_card,
    read_tensors,
    readme,
    resolve_model,
    write_model,
    writing,
)

TENSORS = {"kernel": torch.arange(6.0).reshape(2, 3), "seen": torch.tensor(7)}


def make_card(**changes: Any) -> ModelCard:
    facts: dict[str, Any] = {
        "name": "a model",
        "dataset": "drawn scenes",
        "data_fingerprint": "sha256:abc",
        "groups": ("p1", "p2"),
        "versions": {"torch": "2.x"},
        "preprocess": PreprocessSettings(size_hw=(64, 96), image_steps=(Clahe(),)),
        "threshold": 0.45,
        "threshold_from": "best mean Dice on val",
        "scores": {"val": Scores(records=9, loss=0.25, dice=0.875, threshold=0.45)},
    }
    return tiny_card(**(facts | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", make_card(), TENSORS, "licence of the weights")
    return tmp_path / "model"


def errors_of(caught: pytest.ExceptionInfo[UserError]) -> list[UserError]:
    return caught.value.errors if isinstance(caught.value, UserErrors) else [caught.value]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


# ------------------------------------------------------------------ writing and reading


def test_half_precision_takes_half_the_room_and_changes_no_integer(tmp_path: Path) -> None:
    tensors = {"kernel": torch.linspace(-3, 3, 5000), "seen": torch.tensor(70_000)}
    write_model(tmp_path / "whole", make_card(), tensors, "licence")
    write_model(tmp_path / "half", make_card(), tensors, "licence", half=True)
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[0] - sizes[1] == 2 * 5000
    read = read_tensors(tmp_path / "half")
    assert torch.equal(read["kernel"], tensors["kernel"].half())
    assert read["seen"] == 70_000


def test_the_readme_shows_held_out_scores_and_remarks() -> None:
    seen = HeldOut(data="another hospital", frames=9, groups=2, dice=0.75, dice_interval=(0.5, 1.0), jaccard=None)
    text = readme(make_card(held_out=(seen,), remarks=("Fails on white shafts.",)))
    assert "| another hospital | this model | 9 | 2 | 0.7500 (0.5000 to 1.0000) | - | - |" in text
    assert "\n- Fails on white shafts.\n" in text
    assert "not seen" not in readme(make_card())


def test_round_trip_keeps_card_and_tensors(folder: Path) -> None:
    card = read_card(folder)
    assert card.model_copy(update={"files": {}}) == make_card()
    tensors = read_tensors(folder)
    assert set(tensors) == set(TENSORS)
    assert torch.equal(tensors["kernel"], TENSORS["kernel"])
    assert tensors["seen"] == 7
    assert tensors["seen"].dtype == torch.int64
    assert tensors["seen"].shape == ()


def test_the_card_lists_the_digest_of_every_other_file(folder: Path) -> None:
    listed = json.loads((folder / "model.json").read_text())["files"]
    others = {path.name: path for path in folder.iterdir() if path.name != "model.json"}
    assert listed == {name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for name, path in others.items()}
    assert set(listed) == {"weights.safetensors", "README.md", "LICENSE"}
    assert (folder / "LICENSE").read_text() == "licence of the weights"


def test_layout_and_precision_of_a_tensor_do_not_matter(tmp_path: Path) -> None:
    kernel = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    tensors = {
        "channels_last": kernel.to(memory_format=torch.channels_last),
        "half": kernel.bfloat16(),
        "strided": kernel[:, ::2],
        "shared": kernel,
        "also_shared": kernel,
        "numpy": kernel.double().numpy().T,
    }
    write_model(tmp_path / "m", make_card(), tensors, "")
    with safe_open(tmp_path / "m" / "weights.safetensors", framework="np") as stored:
        for name in tensors:
            expected = tensors[name]
            expected = expected if isinstance(expected, np.ndarray) else expected.float().numpy()
            assert stored.get_tensor(name).dtype == np.float32
            np.testing.assert_array_equal(stored.get_tensor(name), expected.astype(np.float32))


def test_a_model_is_replaced_whole_and_leaves_nothing_behind(folder: Path) -> None:
    (folder / "openvino").mkdir()
    write_model(folder, make_card(name="second"), {"other": torch.zeros(1)}, "")
    assert read_card(folder).name == "second"
    assert set(read_tensors(folder)) == {"other"}
    assert not (folder / "openvino").exists(), "an export of the old weights must not survive"
    assert leftovers(folder) == []


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_a_failed_write_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(writing, "save_file", fail)
    with pytest.raises(UserError, match="cannot write the model") as caught:
        write_model(folder, make_card(name="second"), TENSORS, "")
    assert caught.value.where == str(folder)
    assert caught.value.mend
    assert read_card(folder).name == "a model"
    assert leftovers(folder) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError("busy")])
def test_a_stop_between_the_two_renames_puts_the_old_model_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    rename = Path.rename

    def stopping(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopping)
    monkeypatch.setattr(writing, "_exchange", lambda *_: False)  # as on other systems than Linux
    with pytest.raises((KeyboardInterrupt, UserError)):
        write_model(folder, make_card(name="second"), TENSORS, "")
    assert read_card(folder).name == "a model"
    assert leftovers(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders at once")
def test_the_old_and_the_new_model_change_places_at_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "one" / "a").write_text("a")
    assert writing._exchange(tmp_path / "one", tmp_path / "other")
    assert not (tmp_path / "one" / "a").exists()
    assert (tmp_path / "other" / "a").read_text() == "a"
    assert not writing._exchange(tmp_path / "one", tmp_path / "absent")


def test_nothing_but_a_model_is_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="in the way"):
        write_model(theirs, make_card(), TENSORS, "")
    with pytest.raises(UserError, match="in the way"):
        write_model(theirs / "thesis.tex", make_card(), TENSORS, "")
    assert (theirs / "thesis.tex").read_text() == "years of work"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model") as caught:
        write_model(tmp_path / "file" / "model", make_card(), TENSORS, "")
    assert str(tmp_path / "file" / "model") in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_no_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_model(tmp_path / "model", make_card(), TENSORS, "")
    finally:
        tmp_path.chmod(0o700)


# ------------------------------------------------------------------ damage


def test_every_missing_or_altered_file_is_listed_at_once(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with (folder / "README.md").open("a") as file:
        file.write("!")
    (folder / "LICENSE").unlink()
    with pytest.raises(UserErrors) as caught:
        read_card(folder)
    found = {Path(str(error.where)).name: error.what for error in errors_of(caught)}
    assert "SHA-256 differs" in found["weights.safetensors"]
    assert "SHA-256 differs" in found["README.md"]
    assert "lacks LICENSE" in found["LICENSE"]
    assert all(error.mend for error in errors_of(caught))


def test_an_extra_byte_of_weights_is_seen(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"weights\.safetensors is not what the model was written with"):
        read_card(folder)


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"format": 1,', "no JSON"),
        (b"\xff\xfe\x00", "cannot read the model's card"),
        (b"[]", "names no format"),
        (b"{}", "names no format"),
        (b'{"format": 1}', "problems"),
    ],
)
def test_a_malformed_card_is_refused(folder: Path, text: bytes, message: str) -> None:
    (folder / "model.json").write_bytes(text)
    with pytest.raises(UserError) as caught:
        read_card(folder)
    assert message in caught.value.what
    assert all(str(folder / "model.json") in str(error) for error in errors_of(caught))


def test_a_newer_format_asks_for_a_newer_trocar(folder: Path) -> None:
    edit(folder, format=2, trocar_version="9.1", something_new=True)
    with pytest.raises(UserError, match="is of format 2") as caught:
        read_card(folder)
    assert "9.1" in str(caught.value.mend)


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"threshold": 1.5},
        {"threshold": None},
        {"classes": ["background", "shaft", "tip"]},
        {"files": {"weights.safetensors": "sha256:0", "../../passwd": "sha256:0"}},
        {"files": {"weights.safetensors": "sha256:0", "/passwd": "sha256:0"}},
    ],
)
def test_a_card_that_says_impossible_things_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises(UserErrors) as caught:
        read_card(folder)
    assert "model.json" in str(caught.value)


def test_weights_that_the_card_does_not_vouch_for_are_refused(folder: Path) -> None:
    edit(folder, files={})
    with pytest.raises(UserError, match=r"does not list weights\.safetensors"):
        read_card(folder)


def test_a_pickle_in_the_folder_is_refused(folder: Path) -> None:
    (folder / "extra").mkdir()
    (folder / "extra" / "weights.PT").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="holds no pickle") as caught:
        read_card(folder)
    assert "weights.PT" in str(caught.value)


def test_other_files_beside_the_model_do_not_matter(folder: Path) -> None:
    (folder / ".DS_Store").write_bytes(b"")
    read_card(folder)


def test_what_is_no_folder_of_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model folder"):
        read_card(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no card"):
        read_card(tmp_path)


def test_broken_weights_are_named(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read the weights"):
        read_tensors(folder)


# ------------------------------------------------------------------ finding


def test_a_model_and_the_run_around_it_are_found(tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "model", make_card(), TENSORS, "")
    assert resolve_model(tmp_path / "run") == tmp_path / "run" / "model"
    assert resolve_model(str(tmp_path / "run" / "model")) == tmp_path / "run" / "model"


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train: {epochs: 40}\n")
    with pytest.raises(UserError, match="no epoch is finished"):
        resolve_model(tmp_path)
    (tmp_path / "log.csv").write_text("epoch,step,val_dice\n1,10,0.5\n2,20,0.6\n")
    with pytest.raises(UserError, match="2 of 40 epochs") as caught:
        resolve_model(tmp_path)
    assert f"--resume {tmp_path}" in str(caught.value.mend)


def test_a_run_of_folds_names_those_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text(json.dumps({"folds": {"OP1": "fold-OP1", "OP2": "fold-OP2"}}))
    with pytest.raises(UserError, match="2 folds, 0 with a model"):
        resolve_model(tmp_path)
    write_model(tmp_path / "fold-OP2" / "model", make_card(), TENSORS, "")
    with pytest.raises(UserError, match="2 folds, 1 with a model") as caught:
        resolve_model(tmp_path)
    assert "fold-OP2" in str(caught.value.mend)
    assert "fold-OP1" not in str(caught.value.mend)
    (tmp_path / "folds.json").write_text("{")
    with pytest.raises(UserError, match="the list of folds"):
        resolve_model(tmp_path)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such model"):
        resolve_model(tmp_path / "nowhere")
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(UserError, match="a folder, not a file"):
        resolve_model(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"no model\.json"):
        resolve_model(tmp_path)


# ------------------------------------------------------------------ texts and rules


def test_a_card_does_not_say_where_things_lay_on_the_machine_that_made_it(tmp_path: Path) -> None:
    model = ModelSettings(encoder="resnet18", encoder_weights="/home/somebody/weights/resnet18.safetensors")
    write_model(tmp_path / "model", make_card(model=model), {"zero": np.zeros(1)}, "none")
    assert read_card(tmp_path / "model").model.encoder_weights == "resnet18.safetensors"
    assert not any(b"somebody" in file.read_bytes() for file in (tmp_path / "model").iterdir())


def test_the_card_for_people_has_the_facts() -> None:
    text = readme(make_card())
    facts = ("drawn scenes", "sha256:abc", "p1, p2", "to 96x64 (width x height)", "letterbox", "clahe")
    for fact in (*facts, "| 1 | instrument |", "0.45"):
        assert fact in text
    assert "best mean Dice on val" in text
    assert "not a medical device" in text
    assert "| val | 9 | 0.2500 | 0.8750 | - | 0 | 0.4500 | native size |" in text
    assert "trocar predict" in text
    assert "trocar.load" in text


def test_the_card_for_people_of_a_model_of_several_classes() -> None:
    card = make_card(
        classes=("background", "shaft", "tip"), target="parts", threshold=None, threshold_from="argmax", scores={}
    )
    text = readme(card)
    assert "shaft, tip" in text
    assert "most probable class" in text
    assert "None were taken" in text


def test_the_licence_names_data_and_start() -> None:
    text = derived_licence("Kvasir-Instrument", "resnet50", "/home/somebody/resnet50.safetensors")
    assert "Kvasir-Instrument" in text
    assert "resnet50.safetensors" in text
    assert "somebody" not in text
    assert "random" in derived_licence("x", "resnet50", "none")


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, trocar.model_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------ what was learnt from validation


LEARNT: dict[str, Any] = {
    "threshold_curve": ValidationCurve(
        thresholds=tuple(percent / 100 for percent in range(5, 96)),
        dice=tuple(0.9 - abs(percent - 45) / 500 for percent in range(5, 96)),
        frames=17,
    ),
    "calibration": TemperatureScaling(temperature=1.25, ece=0.0312, ece_after=0.0101, frames=20),
    "quality": QualityLimit(
        limit=0.9,
        factor=3.0,
        bad_dice=0.7,
        alpha=0.1,
        frames=18,
        assumption=DiceBound(3.0, 0.1, 18).in_words(),
    ),
}


def test_a_card_tells_what_was_learnt_from_validation(tmp_path: Path) -> None:
    card = make_card(**LEARNT)
    write_model(tmp_path / "model", card, TENSORS, "")
    assert read_card(tmp_path / "model").model_copy(update={"files": {}}) == card
    text = readme(card)
    assert "| threshold | 0.05 | 0.20 | 0.35 | 0.50 | 0.65 | 0.80 | 0.95 |\n|---|---|---|---|---|---|---|---|\n" in text
    assert "| Dice, mean over 17 frames | 0.8200 | 0.8500 | 0.8800 | 0.8900 | 0.8600 | 0.8300 | 0.8000 |" in text
    assert "0.0312; after temperature scaling by 1.2500: 0.0101." in text
    assert "below 0.9000 are to be looked at" in text
    assert "exchangeable with the 18 validation frames" in text
    assert "at least 1 - 3 (1 - q)" in text


def test_what_could_not_be_learnt_is_said() -> None:
    few = DiceBound(math.nan, 0.1, 4)
    text = readme(
        make_card(
            calibration=TemperatureScaling(temperature=None, ece=0.5, ece_after=None, frames=4),
            quality=QualityLimit(limit=None, factor=None, bad_dice=0.7, alpha=0.1, frames=4, assumption=few.in_words()),
        )
    )
    assert "0.5000; no temperature fits." in text
    assert "Quality promises nothing: none: 4 validation frames in which something was found are too few" in text
    assert "| threshold | 0.05" not in text


def test_a_card_from_before_these_fields_still_opens(folder: Path) -> None:
    tree = json.loads((folder / "model.json").read_text())
    for name in LEARNT:
        del tree[name]
    (folder / "model.json").write_text(json.dumps(tree))
    card = read_card(folder)
    assert card.threshold_curve is card.calibration is card.quality is None
    assert card.format == 1
    assert "Threshold, calibration" not in readme(card)


def test_a_curve_with_a_dice_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="2 thresholds but 1 Dice"):
        ValidationCurve(thresholds=(0.4, 0.5), dice=(0.8,), frames=3)


def test_names_longer_than_the_system_takes(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text(json.dumps({"folds": {"a": "x" * 300}}))
    for path in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot look for a model: File name too long"):
            resolve_model(path)
