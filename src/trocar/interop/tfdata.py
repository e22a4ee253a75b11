"""Any source as `tf.data.Dataset`, prepared as trocar prepares it. Needs TensorFlow: the extra `keras`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trocar.config import PreprocessSettings
from trocar.data.preprocess import prepare_image, prepare_mask
from trocar.data.records import IGNORE, Record, Source, join_classes
from trocar.interop.keras_files import import_extra


def to_tf_dataset(
    source: Source | Sequence[Record],
    preprocess: PreprocessSettings,
    *,
    batch_size: int = 8,
    shuffle_seed: int | None = None,
    training: bool = False,
    join: bool = True,
    normalise: bool = True,
) -> Any:
    """A `tf.data.Dataset` of batches (images, masks, weights), ready for Keras's `fit`.

    Samples equal those of `data.loading.PreparedSet`. Images are float32, (x / 255 - mean) / std, or with
    `normalise=False` uint8. Masks are float32: 0 and 1, with `join=False` class indices, and shares where `preprocess`
    resizes bilinearly. Weights are 0 where a mask is 255 (ignore), else 1; masks are 0 there. `training` applies the
    mask steps. With a `shuffle_seed` single samples are shuffled, anew each epoch; records are read in parallel and
    batches prefetched. A record that cannot be read raises TensorFlow's error around our `UserError`.

    Shapes: images (N, h, w, 3), masks (N, h, w, 1), weights (N, h, w), (h, w) = preprocess.size_hw.
    """
    tf = import_extra("tensorflow", "tf.data")
    records = list(source.records if isinstance(source, Source) else source)
    height, width = preprocess.size_hw
    image_type = tf.float32 if normalise else tf.uint8

    def read(index: Any) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        return read_sample(records[int(index)], preprocess, training=training, join=join, normalise=normalise)

    def load(index: Any) -> tuple[Any, Any, Any]:
        image, mask, weight = tf.numpy_function(read, [index], (image_type, tf.float32, tf.float32))
        image.set_shape((height, width, 3))
        mask.set_shape((height, width, 1))
        weight.set_shape((height, width))
        return image, mask, weight

    dataset = tf.data.Dataset.range(len(records))
    if shuffle_seed is not None:
        dataset = dataset.shuffle(len(records), seed=shuffle_seed, reshuffle_each_iteration=True)
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def read_sample(
    record: Record, preprocess: PreprocessSettings, *, training: bool, join: bool, normalise: bool
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
    """Image, mask and weight of one record. Shapes: (h, w, 3), (h, w, 1), (h, w)."""
    image, mask = record.read()
    prepared = prepare_image(image, preprocess)[0]
    target = prepare_mask(join_classes(mask) if join else mask, preprocess, training=training)
    counted = target != IGNORE
    pixels: NDArray[Any] = prepared
    if normalise:
        mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
        pixels = (prepared.astype(np.float32) - mean) / std
    return pixels, np.where(counted, target, 0)[..., None].astype(np.float32), counted.astype(np.float32)
