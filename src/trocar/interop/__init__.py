"""Bridges to other tools: weights from Keras, frames to tf.data. Each needs its extra, and nobody else pays for it."""
