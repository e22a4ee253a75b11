"""The notebook's graph, written again in TensorFlow from its description: the other side of the parity tests."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

HE = "he_normal"


class ConvBlock(layers.Layer):
    """Convolution, batch norm, ReLU."""

    def __init__(self, filters=256, kernel_size=3, dilation_rate=1, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            dilation_rate=dilation_rate,
            use_bias=use_bias,
            kernel_initializer=HE,
        )
        self.bn = layers.BatchNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build((*shape[:-1], self.conv.filters))

    def call(self, x, training=None):
        return keras.ops.relu(self.bn(self.conv(x), training=training))


class DilatedSpatialPyramidPooling(layers.Layer):
    """The pyramid; `side` is the notebook's fixed 32."""

    def __init__(self, side=32, **kwargs):
        super().__init__(**kwargs)
        self.pool = layers.AveragePooling2D((side, side))
        self.conv1 = ConvBlock(kernel_size=1, use_bias=True)
        self.up = layers.UpSampling2D((side, side), interpolation="bilinear")
        self.out1 = ConvBlock(kernel_size=1)
        self.out6 = ConvBlock(dilation_rate=6)
        self.out12 = ConvBlock(dilation_rate=12)
        self.out18 = ConvBlock(dilation_rate=18)
        self.conv2 = ConvBlock(kernel_size=1)

    def build(self, shape):
        for block in (self.conv1, self.out1, self.out6, self.out12, self.out18):
            block.build(shape)
        self.conv2.build((*shape[:-1], 1280))

    def call(self, x, training=None):
        pooled = self.up(self.conv1(self.pool(x), training=training))
        views = [block(x, training=training) for block in (self.out1, self.out6, self.out12, self.out18)]
        return self.conv2(keras.ops.concatenate([pooled, *views], axis=-1), training=training)


def build_notebook(side: int) -> keras.Model:
    """Image to [both taps, the pyramid's output, the logits], for images of side x side."""
    image = keras.Input((side, side, 3))
    resnet = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=image)
    deep = resnet.get_layer("conv4_block6_2_relu").output
    low = resnet.get_layer("conv2_block3_2_relu").output
    pyramid = DilatedSpatialPyramidPooling(side // 16)(deep)
    a = layers.UpSampling2D(4, interpolation="bilinear")(pyramid)
    b = layers.Conv2D(48, 1, padding="same", use_bias=False, activation="relu", kernel_initializer=HE)(low)
    x = layers.Concatenate()([a, b])
    for _ in range(2):
        x = layers.Conv2D(256, 3, padding="same", use_bias=False, activation="relu", kernel_initializer=HE)(x)
    x = layers.UpSampling2D(4, interpolation="bilinear")(x)
    logits = layers.Conv2D(1, 1, padding="same")(x)
    return keras.Model(image, logits)


def with_taps(model: keras.Model) -> keras.Model:
    """The same graph, giving both taps, the pyramid's output and the logits."""
    pyramid = next(layer for layer in model.layers if isinstance(layer, DilatedSpatialPyramidPooling))
    taps = [model.get_layer(name).output for name in ("conv2_block3_2_relu", "conv4_block6_2_relu")]
    return keras.Model(model.input, [*taps, pyramid.output, model.output])


def randomise(model: keras.Model, seed: int = 0) -> None:
    """Random weights, biases and batch-norm statistics that keep activations near one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rpartition("/")[2]
        if name == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:  # bias, beta, moving_mean
            value = rng.normal(0, 0.2, shape)
        weight.assign(value.astype(np.float32))


def spread_logits(model: keras.Model, images: np.ndarray, reach: float = 4.0) -> None:
    """Scale and shift the last convolution so that the logits of these images go from -reach to reach."""
    logits = np.asarray(model(images, training=False))
    kernel, bias = model.layers[-1].weights
    factor = 2 * reach / (logits.max() - logits.min())
    shift = -(logits.max() + logits.min()) / 2
    bias.assign((bias.numpy() + shift) * factor)
    kernel.assign(kernel.numpy() * factor)
