"""The model that is trained unless `problem/` builds one of its own."""

# mypy: disable-error-code="no-any-return"
# (Where Keras is not installed, its types are not known.)

from collections.abc import Sequence

import keras
from keras import layers

MAX_EMBEDDING = 16


def perceptron(
    width: int, sizes: Sequence[int], outputs: int, hidden: Sequence[int], dropout: float
) -> keras.Model:
    """Return a multilayer perceptron on numbers and on embeddings of categories."""
    numbers = keras.Input((width,))
    codes = [keras.Input((1,), dtype="int32") for _ in sizes]
    embedded = [
        layers.Flatten()(layers.Embedding(size, min(MAX_EMBEDDING, (size + 1) // 2))(code))
        for size, code in zip(sizes, codes, strict=True)
    ]
    layer = layers.Concatenate()([numbers, *embedded]) if embedded else numbers
    for units in hidden:
        layer = layers.Dense(units, activation="relu")(layer)
        layer = layers.Dropout(dropout)(layer)
    return keras.Model([numbers, *codes], layers.Dense(outputs)(layer))
