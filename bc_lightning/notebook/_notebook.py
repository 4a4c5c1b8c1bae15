"""`ModelComparison`: two models compared on a data loader and shown in the notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from bc_core.comparison._comparison import Metadata
from bc_lightning.evaluation._evaluate import compared
from bc_lightning.training.data._reader import Where
from bc_tensorboard.original._widgets import ComparedModels, warn_of_unused


class ModelComparison(ComparedModels):
    """Compare two models on a data set and show the dashboard below the cell; a model is asked once about each batch.

    The models are run in eval mode and without gradients, where they are (batches move to them), and are then in the
    modes they were in. There is no server: `port` means nothing any more.

    Args:
        h1: The model in use: a module, a callable of the inputs that returns scores or labels, a `Reference`, or
            `StoredOutputs` for a data set that they are attached to.
        h2: Its update.
        dataset: A data loader, or a list of batches, ``(ids, inputs, target)`` as the original's, or
            ``(inputs, target)``. For other batches say where things are, with `ids`, `inputs` and `target`.
        performance_metric: A function ``(model, dataset, device)`` whose values go into `h1_performance` and
            `h2_performance`; the dashboard shows accuracy. Default: accuracy, from the one pass.
        port: Accepted with a DeprecationWarning.
        get_instance_image_by_id: Image of an instance: a function of its id that returns an array, a PIL image, the
            bytes of an image file, or what Flask's `send_file` returned; or a mapping or an array of images. One is
            asked for when it is looked at.
        get_instance_metadata: Text of an instance: a mapping or a function from id to text, called only for instances
            that h1 or h2 gets wrong.
        device: Where inputs go for a callable without weights of its own. Default: where they are.
        class_names: Name of each class.
        name: What is compared, for titles.
        dataset_name: What the dashboard calls the data set.
        ids: Where ids are in a batch: an index, a key or a function of the batch. Default: the first of three, else the
            positions in the data set.
        inputs: Where the inputs are. A mapping is passed to the models as keywords, a tuple as positional arguments.
        target: Where the target is.
        threshold: A binary model, of one score per instance, says class 1 from this probability on.
        from_logits: Whether binary scores are logits.
        ignore_index: Instances of this class number are left out, as in `evaluate`.

    Attributes:
        comparison: The `bc_core.Comparison` that is shown.
        view: The `bc_tensorboard.ComparisonView` that shows it.
        h1_performance: What `performance_metric` says of h1.
        h2_performance: What `performance_metric` says of h2.

    Raises:
        ImportError: anywidget is not installed.
        TypeError: outputs, batches or ids of an unknown kind.
        ValueError: the data set is empty, an id comes twice, a model returned NaN, or shapes do not fit.

    Example:
        >>> import torch
        >>> from bc_lightning import ModelComparison
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> batches = [(torch.arange(4), torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))]
        >>> shown = ModelComparison(h1, h2, batches, get_instance_metadata=lambda instance: f"row {instance}")
        >>> shown.comparison.dataset_size
        4
    """

    def __init__(
        self,
        h1: Any,
        h2: Any,
        dataset: Iterable[Any],
        performance_metric: Callable[[Any, Any, Any], Any] | None = None,
        port: int | None = None,
        get_instance_image_by_id: Any = None,
        get_instance_metadata: Metadata | None = None,
        device: str | torch.device | None = None,
        *,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        dataset_name: str = "test",
        ids: Where | None = None,
        inputs: Where | None = None,
        target: Where | None = None,
        threshold: float = 0.5,
        from_logits: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        warn_of_unused(port=port)
        asked = not (get_instance_image_by_id is None and get_instance_metadata is None)
        comparison, nameable, performances = compared(
            h1,
            h2,
            dataset,
            performance_metric,
            device,
            class_names,
            name,
            get_instance_metadata,
            (ids, inputs, target),
            threshold,
            from_logits,
            named="images" if asked else None,
            ignore_index=ignore_index,
        )
        images = get_instance_image_by_id if nameable else None
        self._take(comparison, dataset_name, images, performances)
