"""Keras sees the very samples that our own training sees."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from trocar.config import Dilate, PreprocessSettings, load_recipe
from trocar.data.loading import PreparedSet, ordered_plan
from trocar.data.sources import open_source
from trocar.errors import UserError
from trocar.interop.tfdata import to_tf_dataset

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

LETTERBOX = PreprocessSettings(size_hw=(64, 64), mask_steps=(Dilate(),))


@pytest.mark.parametrize(
    "preprocess",
    [LETTERBOX, load_recipe("notebook", ["preprocess.size_hw=[48,64]"]).preprocess],
    ids=["letterbox", "notebook"],
)
@pytest.mark.parametrize("training", [False, True])
def test_samples_equal_those_of_our_own_loader(
    tf: ModuleType, drawn: Path, preprocess: PreprocessSettings, training: bool
) -> None:
    source = open_source(drawn)
    ours = PreparedSet(source.records, preprocess, join=True, training=training)
    theirs = to_tf_dataset(source, preprocess, batch_size=8, training=training, normalise=False)
    batches = list(theirs.as_numpy_iterator())
    assert [len(images) for images, _, _ in batches] == [8, 8, 4]
    for batch, (images, masks, weights) in zip(ours.batches(ordered_plan(len(ours), 8)), batches, strict=True):
        np.testing.assert_array_equal(images, batch.frames.numpy())
        counted = batch.masks.numpy() != 255
        np.testing.assert_array_equal(weights == 1, counted)
        np.testing.assert_array_equal(masks[..., 0][counted], batch.masks.numpy()[counted])
        assert not masks[..., 0][~counted].any()
        assert (weights[~counted] == 0).all()


def test_normalised_as_the_network_does_it(tf: ModuleType, drawn: Path) -> None:
    source = open_source(drawn)
    plain = next(to_tf_dataset(source, LETTERBOX, normalise=False).as_numpy_iterator())[0]
    images = next(to_tf_dataset(source, LETTERBOX).as_numpy_iterator())[0]
    expected = (plain / 255.0 - np.array(LETTERBOX.mean)) / np.array(LETTERBOX.std)
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_samples_are_shuffled_anew_each_epoch_and_none_is_lost(tf: ModuleType, drawn: Path) -> None:
    source = open_source(drawn)
    shuffled = to_tf_dataset(source, LETTERBOX, batch_size=7, shuffle_seed=1, normalise=False)
    ordered = np.concatenate([b[0] for b in to_tf_dataset(source, LETTERBOX, normalise=False).as_numpy_iterator()])
    epochs = [np.concatenate([batch[0] for batch in shuffled.as_numpy_iterator()]) for _ in range(2)]
    keys = [sorted(image.tobytes() for image in images) for images in (*epochs, ordered)]
    assert keys[0] == keys[1] == keys[2]
    orders = [[image.tobytes() for image in images] for images in (*epochs, ordered)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_two_steps_of_keras_fit(tf: ModuleType, drawn: Path) -> None:
    import keras

    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.Conv2D(1, 1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    dataset = to_tf_dataset(open_source(drawn), LETTERBOX, batch_size=4, shuffle_seed=0, training=True)
    history = model.fit(dataset, steps_per_epoch=2, epochs=1, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"][0])


def test_without_tensorflow_the_extra_is_named(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"tf\.data need tensorflow") as caught:
        to_tf_dataset(open_source(drawn), LETTERBOX)
    assert "trocar[keras]" in str(caught.value)
