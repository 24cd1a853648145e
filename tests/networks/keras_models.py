"""Models of Keras as `problem/` may build them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras import layers


class Doubled(layers.Layer):  # type: ignore[misc]
    """A layer of one's own."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


def inputs_of(width: int, sizes: Sequence[int]) -> list[Any]:
    """Return the inputs of a model."""
    return [keras.Input((width,)), *[keras.Input((1,), dtype="int32") for _ in sizes]]


def doubled(width: int, sizes: Sequence[int], outputs: int, units: int = 8) -> Any:
    """Return a model with a layer of one's own, and a connection past a block."""
    numbers, *codes = inputs_of(width, sizes)
    parts = [layers.Flatten()(layers.Embedding(size, 2)(code)) for size, code in zip(sizes, codes)]  # noqa: B905
    first = layers.Dense(units)(layers.Concatenate()([numbers, *parts]) if parts else numbers)
    block = layers.Dense(units, activation="silu")(Doubled()(layers.LayerNormalization()(first)))
    return keras.Model([numbers, *codes], layers.Dense(outputs)(first + block))


def with_lambda(width: int, sizes: Sequence[int], outputs: int) -> Any:
    """Return a model with code in it."""
    numbers, *codes = inputs_of(width, sizes)
    layer = layers.Lambda(lambda values: values * 2)(numbers)
    return keras.Model([numbers, *codes], layers.Dense(outputs)(layer))


def no_model(width: int, sizes: Sequence[int], outputs: int) -> str:
    """Return something else."""
    return "no model"
