"""Networks between h1 and h2: ``share * h1 + (1 - share) * h2``, weight by weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bc_core import ErrorOverlap
from bc_core.after_training._interpolating import shares_of_layers
from bc_core.reference._class_map import check_same_classes
from bc_core.reference._weights import check_alike, renaming, shapes_of
from bc_lightning.after_training._made_weights import layer_of, make_anew, of_one_network, singular_vectors
from bc_lightning.after_training._statistics import estimate, layers_with_statistics
from bc_lightning.evaluation._evaluate import _in_batches, evaluate
from bc_lightning.reference._modules import copied
from bc_lightning.reference._reference import Reference
from bc_lightning.training._module import unwrap
from bc_lightning.training._warm_start import network_of, tensors_of, weights_behind
from bc_lightning.training.data._reader import BATCH_SIZE, Reader, reading_of, trained_with

_COUNTS = "num_batches_tracked"


class Mixture:
    """A network whose weights are set between those of h1 and those of h2; see `bc_core`'s port of this name.

    Args:
        h1: The model in use, a module.
        h2: Its update; its present weights are remembered.
        target: The network that is set: a copy of h2, or h2 itself.
        data: Validation data.
        statistics: Training data, where the networks keep running statistics.
        reading: How data are read, as in `evaluate`.

    Raises:
        TypeError: h1 or h2 is no module, or the data can be read only once.
        ValueError: The architectures differ, or statistics are missing.
    """

    def __init__(
        self, h1: Any, h2: nn.Module, target: nn.Module, data: Any, statistics: Any, reading: Mapping[str, Any]
    ) -> None:
        check_classes(h1, h2, "the rows of its last layer")
        self._h1, self._target, self._reading = h1, target, dict(reading)
        old, new, network = weights_behind(h1, "h1"), weights_behind(h2, "h2"), network_of(target)
        first, second = tensors_of(old, "h1"), tensors_of(new, "h2")
        to_h2 = renaming(shapes_of(first), shapes_of(second))
        self._first = {to_h2(name): tensor for name, tensor in first.items()}
        check_alike(shapes_of(self._first), shapes_of(second))
        check_alike(*_in_both({to_h2(name): kind for name, kind in _kinds(old).items()}, _kinds(new)))
        check_alike(_ties(self._first), _ties({name: second[name] for name in self._first}))
        # h2 may be what is set.
        self._second = {name: tensor.detach().clone() for name, tensor in second.items()}
        # A tied one under the first of its names, or it would be set twice.
        self._tensors = tensors_of(network, "h2")
        self._set = {id(tensor): (name, tensor) for name, tensor in reversed(self._tensors.items())}
        self._normalised = self._layers_to_estimate(network)
        self._singular = singular_vectors(network)
        self._of_one = of_one_network(network, self._singular)
        _check_same(self._first, self._second, self._of_one)
        self._data = _readable(data, "data")
        self._statistics = None if statistics is None else _readable(statistics, "statistics")
        self._check_given(self._normalised)
        self.layers: Sequence[str] = list(dict.fromkeys(layer_of(name) for name, _ in network.named_parameters()))

    def mix(self, shares: float | Mapping[str, float]) -> None:
        """Set the weights; at a share of 0 or 1 everything is h2's or h1's own."""
        alone, share_of = shares_of_layers(shares)
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in self._set.values():
                share = share_of(layer_of(name))
                is_mixed = name not in self._of_one
                tensor.copy_(_between(self._first[name], self._second[name], share if is_mixed else 0))
            self._fit_vectors(share_of)
            make_anew(network_of(self._target))
        if self._normalised and alone not in (0, 1):
            self._estimate()

    def _fit_vectors(self, share_of: Callable[[str], float]) -> None:
        """Those of a spectral norm belong to the mixed weight, and lie nowhere between h1's and h2's."""
        for each in self._singular:
            if share_of(layer_of(each.names[0])) not in (0, 1):
                each.estimate(self._tensors[name] for name in each.names)

    def overlap(self) -> ErrorOverlap:
        """Counts of h1 and the network on the validation data."""
        return evaluate(self._h1, self._target, self._data, **self._reading).comparison.overlap

    def result(self) -> Any:
        """The user's own network, in eval mode."""
        return unwrap(self._target).eval()

    def _layers_to_estimate(self, network: nn.Module) -> dict[str, Any]:
        """Layers whose statistics differ; those that were frozen in both models stay."""
        return {
            name: layer
            for name, layer in layers_with_statistics(network).items()
            if not all(
                torch.equal(self._first[f"{name}.{of}"].to(self._second[f"{name}.{of}"]), self._second[f"{name}.{of}"])
                for of in ("running_mean", "running_var")
            )
        }

    def check_statistics(self) -> None:
        """Refuse missing statistics where training will move those that are the same yet."""
        layers = layers_with_statistics(self._target)
        self._check_given({name: layer for name, layer in layers.items() if layer.training})

    def _check_given(self, layers: Mapping[str, nn.Module]) -> None:
        if layers and self._statistics is None:
            name, layer = next(iter(layers.items()))
            raise ValueError(
                f"{name!r} ({type(layer).__name__}) keeps running statistics, and those of h1 or h2 are not of the "
                "activations between them: give training data, statistics=train_loader; a few thousand instances will "
                "do. Received: statistics=None."
            )

    def _estimate(self) -> None:
        read = {key: value for key, value in self._reading.items() if value is not None}
        places = (read.get("ids"), read.get("inputs"), read.get("target"))
        reader = Reader(
            self._h1, self._target, read.get("device"), places, reading_of(self._target, None, None, None),
            read.get("scores"), read.get("h1_scores"), read.get("class_axis"),
        )  # fmt: skip
        batches = _in_batches(self._statistics, read.get("batch_size", BATCH_SIZE))
        estimate(self._target, self._normalised.values(), batches, reader)


def check_classes(h1: Any, h2: Any, what: str) -> None:
    """Refuse an h1 whose classes are not h2's, as a class map says, be it h1's own or the one h2 was trained with."""
    state = trained_with(h2)
    told = h1.class_map if isinstance(h1, Reference) else None if state is None else state.reference.class_map
    check_same_classes(told, what)


def copy_of(h2: Any) -> Any:
    """h2 anew, wrapped as it is, without the Trainer that it was in.

    Raises:
        TypeError: h2 is no module.
    """
    if not isinstance(h2, nn.Module):
        raise TypeError(f"h2 must be a module, as its weights are taken. Received: {type(h2).__name__}.")
    if isinstance(h2, torch._dynamo.OptimizedModule):
        h2 = h2._orig_mod
    held = {name: h2.__dict__.pop(name) for name in ("_trainer", "_fabric") if name in h2.__dict__}
    try:
        h2.__dict__.update(dict.fromkeys(held))
        return copied(h2)
    finally:
        h2.__dict__.update(held)


def _between(first: Tensor, second: Tensor, share: float) -> Tensor:
    first = first.detach().to(second.device)
    if share in (0, 1) or not (second.is_floating_point() or second.is_complex()):
        return first if share == 1 else second
    # Half precision would round the two products before they are added.
    precise = torch.promote_types(second.dtype, torch.float32)
    return share * first.to(precise) + (1 - share) * second.to(precise)


def _kinds(module: nn.Module) -> dict[str, str]:
    """What each layer is, as it prints, without what matters in training alone."""
    return {
        name: f"{type(layer).__name__}({_options_of(layer)})"
        for name, layer in module.named_modules()
        if name and not isinstance(layer, nn.modules.dropout._DropoutNd)
    }


def _options_of(layer: nn.Module) -> str:
    return f"{layer.num_features}, eps={layer.eps}" if isinstance(layer, _NormBase) else layer.extra_repr()


def _in_both(first: dict[str, str], second: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    # A loss or a metric that one of them holds is no part of its network.
    return {name: first[name] for name in first if name in second}, {
        name: second[name] for name in first if name in second
    }


def _ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For each tensor the name under which it comes first, so that tied ones have one name."""
    names: dict[int, str] = {}
    return {name: f"the tensor of {names.setdefault(id(tensor), name)}" for name, tensor in tensors.items()}


def _check_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], of_one: Set[str]) -> None:
    """Refuse buffers that differ, between whose values nothing lies: whole numbers, and some that are named."""
    for name, tensor in second.items():
        lies_between = tensor.is_floating_point() or tensor.is_complex() or name.rpartition(".")[2] == _COUNTS
        if lies_between and name not in of_one:
            continue
        if not torch.equal(first[name].to(tensor.device), tensor):
            raise ValueError(
                f"h1 and h2 differ in {name!r}, a buffer of {tensor.dtype}, between whose values nothing lies: give "
                "both the same, or mix what the models say, blend(h1, h2, data, promise=...)."
            )


def _readable(data: Any, called: str) -> Any:
    if data is None:
        raise TypeError(
            f"{called} is missing: pass validation data that took no part in the training, a data loader. "
            f"Received: {called}=None."
        )
    if isinstance(data, Iterable) and hasattr(data, "__next__"):
        raise TypeError(
            f"{called} is read once for each mixture, and an iterator can be read only once: pass list({called}), or a "
            f"data loader. Received: {type(data).__name__}."
        )
    return data
