"""`sweep`: the same update trained with many values of lambda_c, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from bc_core import Sweep, Tracker
from bc_core.comparison._comparison import Metadata
from bc_core.losses._mixtures import LABELS
from bc_core.sweep._running import sweep_by
from bc_keras.sweep._recipe import KerasRecipe, Loss
from bc_tensorboard.writing._sweep_log import trackers_of


def sweep(
    h2: keras.Model | Callable[[], keras.Model],
    h1: keras.Model | Callable[..., Any],
    train: Any,
    *,
    val: Any = None,
    test: Any = None,
    folder: str | os.PathLike[str],
    lambdas: Iterable[float] | None = None,
    losses: str | Sequence[str] | Mapping[str, Loss] = ("new_error", "strict_imitation"),
    seeds: int | Iterable[int] = 0,
    promises: Sequence[Any] | str | None = None,
    promise_data: Any = None,
    promise_options: Mapping[str, Any] | None = None,
    compile: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    fit: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    class_map: Sequence[Any] | Mapping[str, Any] | None = None,
    ids: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Metadata | None = None,
    performance_metric: Callable[[Any, Any, Any], Any] | None = None,
    start_from: str | None = None,
    teacher: Any = None,
    plain: Any = None,
    unlabelled: Any = None,
    unlabelled_weight: float | None = None,
    mixed_labels: float = LABELS,
    evaluate_on_train: bool = True,
    store_h1: bool | str = "auto",
    save_models: bool = True,
    tensorboard: bool | None = None,
    mlflow: Any = None,
    trackers: Iterable[Tracker] = (),
    engine: str | None = None,
    workers: int | None = None,
    background: bool = False,
    progress_bar: bool = True,
    ray_options: Mapping[str, Any] | None = None,
) -> Sweep:
    """Train an update with many values of lambda_c, and compare each with h1: to choose lambda_c, and to defend it.

    Every point starts from the same weights and draws the same random numbers as all others of its seed, so that what
    differs comes from lambda_c and the loss. h1's outputs are computed once for all; plain training, lambda_c = 0, is
    done once for all losses. A point appears in the folder whole or not at all; after an interruption, of whatever
    kind, the same call goes on with the points that are missing. An error in one point is kept in `failures`, and the
    others go on. More lambdas, losses and seeds may be added to a folder later.

    Data are ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, x (N, ...) and y (N,), (N, 1) or one-hot (N, C); a
    ``tf.data.Dataset``, ``PyDataset`` or ``DataLoader`` of batches of these; or a function without arguments that makes
    one of them, called anew for each point after its seed was set: for data with an order or augmentation of their own,
    which otherwise go on from point to point.

    Args:
        h2: a function that makes the update anew, called after ``keras.utils.set_random_seed(seed)``; or a built model,
            copied with its weights for every point, which then start alike for all seeds.
        h1: the model in use: a built Keras model, a callable of a batch of inputs that returns scores or labels, or a
            `Reference`.
        train: training data, such as ``(x, y)`` of arrays or a ``tf.data.Dataset``; batches in a list, ``(ids, x, y)``
            or ``(x, y)`` as the original's, are joined to arrays.
        val: validation data, to choose on. Where `fit` has callbacks, it is what they see as ``val_loss`` and the like.
        test: test data, which take part in nothing.
        folder: where everything goes, and is taken up again.
        lambdas: values of lambda_c. Default: `bc_core.log_lambdas()`, 0 and 0.25 to 16; the grid of
            BackwardCompatibilityML is `bc_core.linear_lambdas(step)`.
        losses: dissonances, such as "new_error", "strict_imitation" and "imitation" (`CompatibilityLoss` lists all), or
            names of the eight losses; or a dictionary of names of your own and anything that `BCModel` takes as `loss`
            or `dissonance`.
        seeds: one seed or several; of each all points are trained.
        promises: what trainings are held to instead of a lambda_c, each with every loss and seed:
            ``["nfr <= 1%", "nfr <= 0.5%"]``; several that are kept together are one text. `lambdas` is then 0, plain
            training to compare with, unless you say it. They are looked at on `val`.
        promise_data: held-out data for them in place of `val`, as in `BCModel`.
        promise_options: as in `BCModel`.
        compile: arguments of ``compile``, such as ``{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}``;
            optimizer and metrics are made anew for every point, of their configs. Or a function that returns them,
            for objects that a config does not hold.
        fit: arguments of ``fit``, such as ``{"epochs": 10, "batch_size": 64}``. Callbacks are a list, copied for every
            point, or a function that returns one.
        model_options: further arguments of `BCModel`: ``normalization``, ``from_logits``, ``unlabelled_batch_size`` and
            the like; ``loss_options`` are for losses given by name.
        class_map: for an h1 with other classes, as in `BCModel`.
        ids: by data set ("train", "val", "test") the ids of its instances, unique, all integers or all text, for data
            in an order that stays. Default: those of batches ``(ids, x, y)`` in a list, else positions, of the first
            pass where data come in another order each time.
        class_names: name of each class.
        metadata: text of an instance, by id.
        performance_metric: a function ``(model, dataset, device)`` that returns a number, for the columns
            `performance_h1` and `performance_h2`; `dataset` is what was given as data.
        start_from: ``"h1"`` lets every point start from h1's weights where names and shapes match (see `warm_start`).
        teacher: what is imitated in place of h1, by the losses that imitate: a model, or a blend
            ``[(model, weight), ...]``. Its outputs are kept like h1's, once for all points.
        plain: what is imitated where h2 is right, the same; see `BCModel`.
        unlabelled: inputs without labels, or ``"mixed"``, as in `BCModel`; h2 imitates on these too, so whoever is
            imitated is asked in every step of all points but plain training.
        unlabelled_weight: what these count.
        mixed_labels: the share of the labels in what h2 is taught of mixtures.
        evaluate_on_train: whether the models are compared on the training data too.
        store_h1: whether h1's outputs are read back while training. "auto" does for arrays and for data sets of
            `tf.data` that stay the same, and asks h1 in every step for others. In evaluation h1's kept answers are
            used in any case, for every instance that it was asked about.
        save_models: whether each h2 is kept, as ``model.keras``.
        tensorboard: whether each point writes a run with its scores, hyperparameters and comparisons under
            ``folder/tensorboard``. Default: where TensorBoard is installed.
        mlflow: track with MLflow: True, the name of an experiment, or a mapping with `experiment`, `run_name`,
            `tracking_uri`.
        trackers: further `bc_core.Tracker` that hear of the sweep.
        engine: `"in_process"` (default), `"processes"` (of this machine, with one thread each) or `"ray"` (Ray Tune:
            several machines or GPUs; the folder must be one that all see). The latter two need data that can be
            pickled, or functions that make them.
        workers: points at a time, for the latter two.
        background: return at once; see `Sweep.status` and `Sweep.wait`.
        progress_bar: whether to show progress and the time left.
        ray_options: `resources_per_point` (such as ``{"cpu": 2, "gpu": 1}``), `init` (arguments of `ray.init`),
            `tune_config`, `storage_path`.

    Returns:
        The sweep: `table()`, `comparison(...)`, `pareto()`, `best("nfr <= 0.5%")`, `plot()`, `to_html(path)`.

    Raises:
        TypeError: an argument of a wrong kind.
        ValueError: an argument out of range, no loss to train with, no data; the folder of another sweep (says what
            differs).
        RuntimeError: another sweep is at work in the folder.
        SweepFailedError: every point failed.
        FullDiskError: the disk is full; what is finished stays.

    Example:
        >>> import tempfile, keras, numpy as np
        >>> from bc_keras import sweep
        >>> def net():
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
        >>> data = (x, x.argmax(1) % 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sweep(
        ...         net, net(), data, test=data, folder=folder, lambdas=[0, 1], tensorboard=False, progress_bar=False,
        ...         compile={"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}, fit={"epochs": 1},
        ...     )
        ...     [(row["loss"], row["lambda_c"]) for row in found.rows("test")]
        [('new_error', 0.0), ('new_error', 1.0), ('strict_imitation', 0.0), ('strict_imitation', 1.0)]
    """
    given = dict(locals())
    trackers = [*trackers_of(folder, given.pop("tensorboard"), given.pop("mlflow")), *given.pop("trackers")]
    return sweep_by(KerasRecipe, given, trackers)
