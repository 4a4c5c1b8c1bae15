"""`sweep`: the same update trained with many values of lambda_c, and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bc_core import Sweep, Tracker
from bc_core.comparison._comparison import Metadata
from bc_core.losses._mixtures import LABELS, WEIGHT
from bc_core.sweep._running import sweep_by
from bc_lightning.sweep._recipe import LightningRecipe, Loss
from bc_tensorboard.writing._sweep_log import trackers_of

Where = str | int | Callable[[Any], Any]


def sweep(
    h2: nn.Module | Callable[[], nn.Module],
    h1: Any,
    train: Any,
    *,
    val: Any = None,
    test: Any = None,
    folder: str | os.PathLike[str],
    lambdas: Iterable[float] | None = None,
    losses: Sequence[str] | Mapping[str, Loss] = ("new_error", "strict_imitation"),
    seeds: int | Iterable[int] = 0,
    promises: Sequence[Any] | str | None = None,
    promise_data: Any = None,
    promise_options: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | Callable[[], Any] | None = None,
    optimizer: Callable[..., Any] | None = None,
    lr_scheduler: Callable[..., Any] | None = None,
    base: str = "cross_entropy",
    normalization: str = "batch",
    loss_options: Mapping[str, Any] | None = None,
    inputs: Where | None = None,
    target: Where | None = None,
    scores: str | Callable[[Any], Tensor] | None = None,
    h1_scores: str | Callable[[Any], Tensor] | None = None,
    class_axis: int | None = None,
    call: str | int | Callable[[list[Any]], int] | None = None,
    class_map: Sequence[Any] | Mapping[str, Any] | None = None,
    ids: Where | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Metadata | None = None,
    performance_metric: Callable[[Any, Any, Any], Any] | None = None,
    start_from: str | None = None,
    teacher: Any = None,
    plain: Any = None,
    unlabelled: Any = None,
    unlabelled_weight: float = WEIGHT,
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
    kind, the same call goes on with the points that are missing, and ends with the same table. An error in one point is
    kept in `failures`, and the others go on. More lambdas, losses and seeds may be added to a folder later.

    Args:
        h2: a function that makes the update anew, such as a class, called after its seed was set; or a module, copied
            for every point. A LightningModule with its own steps and optimisers, or a plain module (see `optimizer`).
        h1: the model in use: a module, a callable, a `Reference`, or `StoredOutputs` to whose data sets the loaders'
            are attached.
        train: a `DataLoader`; a list of batches, those ``(ids, x, y)`` of BackwardCompatibilityML known as such; a
            function that makes one, called anew for each point after its seed was set; or a LightningDataModule with
            all data, then without `val` and `test`.
        val: the same, validation data, to choose on; the Trainer gets it too.
        test: the same, test data, which take part in nothing.
        folder: where everything goes, and is taken up again.
        lambdas: values of lambda_c. Default: `bc_core.log_lambdas()`, 0 and 0.25 to 16; the grid of
            BackwardCompatibilityML is `bc_core.linear_lambdas(step)`.
        losses: dissonances, such as "new_error", "strict_imitation" and "imitation" (`CompatibilityLoss` lists all), or
            names of the eight losses; or a dictionary of names of your own and dissonances or anything that
            `BCLightningModule` takes as `loss`.
        seeds: one seed or several; of each all points are trained.
        promises: what trainings are held to instead of a lambda_c, each with every loss and seed:
            ``["nfr <= 1%", "nfr <= 0.5%"]``; several that are kept together are one text. `lambdas` is then 0, plain
            training to compare with, unless you say it. They are looked at on `val`.
        promise_data: held-out data for them in place of `val`, as in `BCLightningModule`.
        promise_options: as in `BCLightningModule`.
        trainer: arguments of the `Trainer`, such as ``{"max_epochs": 10}``, or a function that makes one. One device
            for a point: several points may run side by side.
        optimizer: for a plain module, as in `BCLightningModule`.
        lr_scheduler: for a plain module, as in `BCLightningModule`.
        base: base of a loss that is given as a dissonance: what a plain module is trained with, and its form.
        normalization: of a loss that is given as a dissonance.
        loss_options: options of losses given by name.
        inputs: where the models' input is in a batch, as in `BCLightningModule`.
        target: where the target is in a batch.
        scores: what the class scores are, as in `BCLightningModule`, and so are the next three.
        h1_scores: the same for h1, where it differs.
        class_axis: which axis of scores with more than two holds the classes.
        call: which call counts where a step calls h2 several times.
        class_map: for an h1 with other classes.
        ids: where ids of the instances, each a different one, are in a batch: an index, a key or a function. Default:
            positions in the data.
        class_names: name of each class.
        metadata: text of an instance, by id.
        performance_metric: a function ``(model, dataset, device)`` that returns a number, for the columns
            `performance_h1` and `performance_h2`; `dataset` is the data loader.
        start_from: `"h1"` lets every point start from h1's weights where names and shapes match (see `warm_start`).
        teacher: what is imitated in place of h1, by the losses that imitate: a model, or a blend
            ``[(model, weight), ...]``. Its outputs are kept like h1's, once for all points.
        plain: what is imitated where h2 is right, the same; see `BCLightningModule`.
        unlabelled: a loader of inputs without labels, or a function that makes one, or ``"mixed"`` for mixtures of the
            training inputs; h2 imitates on these too, so whoever is imitated is asked in every step of all points but
            plain training.
        unlabelled_weight: what these count.
        mixed_labels: the share of the labels in what h2 is taught of mixtures.
        evaluate_on_train: whether the models are compared on the training data too.
        store_h1: whether h1's outputs are kept and read back while training. "auto" keeps them where each item of
            a data set is always the same and reaches the model as it is, and asks h1 in every step where not.
        save_models: whether each model's state dict is kept, as `model.pt`.
        tensorboard: whether each point writes a run with its curves, hyperparameters and comparisons under
            ``folder/tensorboard``. Default: where TensorBoard is installed.
        mlflow: track with MLflow: True, the name of an experiment, or a mapping with `experiment`, `run_name`,
            `tracking_uri`.
        trackers: further `bc_core.Tracker` that hear of the sweep.
        engine: `"in_process"` (default), `"processes"` (of this machine, with one thread each) or `"ray"` (Ray Tune:
            several machines or GPUs; the folder must be one that all see).
        workers: points at a time, for the latter two.
        background: return at once; see `Sweep.status` and `Sweep.wait`.
        progress_bar: whether to show progress and the time left.
        ray_options: `resources_per_point` (such as ``{"cpu": 2, "gpu": 1}``), `init` (arguments of `ray.init`),
            `tune_config`, `storage_path`.

    Returns:
        The sweep: `table()`, `comparison(...)`, `pareto()`, `best("nfr <= 0.5%")`, `plot()`, `to_html(path)`.

    Raises:
        TypeError: an argument of a wrong kind.
        ValueError: an argument out of range; the folder of another sweep (says what differs); several devices.
        RuntimeError: another sweep is at work in the folder.
        SweepFailedError: every point failed.
        FullDiskError: the disk is full; what is finished stays.

    Example:
        >>> import tempfile, torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from bc_lightning import sweep
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> data = DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=10, shuffle=True)
        >>> h1 = torch.nn.Linear(4, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sweep(
        ...         lambda: torch.nn.Linear(4, 3), h1, data, test=data, folder=folder, lambdas=[0, 1],
        ...         trainer={"max_epochs": 1}, optimizer=torch.optim.Adam, tensorboard=False, progress_bar=False,
        ...     )
        ...     [(row["loss"], row["lambda_c"]) for row in found.rows("test")]
        [('new_error', 0.0), ('new_error', 1.0), ('strict_imitation', 0.0), ('strict_imitation', 1.0)]
    """
    given = dict(locals())
    trackers = [*trackers_of(folder, given.pop("tensorboard"), given.pop("mlflow")), *given.pop("trackers")]
    return sweep_by(LightningRecipe, given, trackers)
