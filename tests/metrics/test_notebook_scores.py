from types import ModuleType

import numpy as np
import pytest

from trocar.metrics.notebook import mean_of_batches, soft_batch_dice, soft_batch_dice_loss, soft_batch_jaccard


def samples(count: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Blurred targets and probabilities; the last frames are empty."""
    rng = np.random.default_rng(0)
    target = np.clip(rng.normal(0.3, 0.6, (count, 32, 48)), 0, 1).astype(np.float32)
    target[-2:] = 0
    return target, rng.random((count, 32, 48), np.float32) ** 3


def test_a_case_by_hand() -> None:
    target = np.array([[[1.0, 0.5], [0.0, 0.0]]])
    probability = np.array([[[0.5, 1.0], [0.5, 0.0]]])
    assert soft_batch_dice(target, probability) == pytest.approx((2 * 1.0 + 1) / (1.5 + 2.0 + 1))
    assert soft_batch_dice_loss(target, probability) == pytest.approx(1 - 3 / 4.5)
    assert soft_batch_jaccard(target, probability) == pytest.approx(1 / (1.5 + 2.0 - 1 + 1e-6))


def test_empty_batches_flatter() -> None:
    nothing = np.zeros((3, 4, 4))
    assert soft_batch_dice(nothing, nothing) == 1
    assert soft_batch_jaccard(nothing, nothing) == 0


def test_equal_to_tensorflow_over_batches_of_8_and_3(tf: ModuleType) -> None:

    def dice(t, p):
        t, p = tf.reshape(t, [-1]), tf.reshape(p, [-1])
        return (2.0 * tf.reduce_sum(t * p) + 1.0) / (tf.reduce_sum(t) + tf.reduce_sum(p) + 1.0)

    def jaccard(t, p):
        both = tf.reduce_sum(t * p)
        return both / (tf.reduce_sum(t) + tf.reduce_sum(p) - both + 1e-6)

    target, probability = samples()
    for ours, theirs in (
        (soft_batch_dice, dice),
        (soft_batch_jaccard, jaccard),
        (soft_batch_dice_loss, lambda t, p: 1.0 - dice(t, p)),
    ):
        batches = [theirs(tf.constant(target[i : i + 8]), tf.constant(probability[i : i + 8])) for i in (0, 8)]
        assert batches[0].dtype == tf.float32
        expected = float(tf.reduce_mean(tf.stack(batches)))
        assert mean_of_batches(ours, list(target), list(probability)) == pytest.approx(expected, rel=1e-6)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="do not broadcast"):
        soft_batch_dice(np.zeros((2, 4, 4)), np.zeros((1, 4, 4)))
