"""One network of torch, and how its passes go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bc_core.invariance import StreamingMoments, make_tile
from bc_core.invariance._layers import OUTPUT, Finder, Layer
from bc_core.invariance._network import Measurement, Network
from bc_core.invariance._rows import Piece
from bc_lightning.batches._model_outputs import scores_from_output
from bc_lightning.invariance._activations import find_layers, watching
from bc_lightning.invariance._torch_arrays import TorchBackend, TorchSpatial

# Given the name of an activation, as it is shown, the tensor and the number of samples.
Consume = Callable[[str, Tensor, int], None]


class _EnoughError(BaseException):
    """All layers of a pass were seen: what comes behind them need not be computed.

    No `Exception`, which a network might handle itself.
    """


class TorchNetwork(Network):
    """One network whose layers are measured.

    Args:
        module: The network.
        called: What the caller calls it, for errors.
        asked: What of it is to be measured.
        device: Where inputs go if the network has no weights.
        from_logits: Whether a single score is a logit, and not a probability.
    """

    def __init__(
        self, module: Any, called: str, asked: Measurement, device: str | torch.device | None, from_logits: bool = False
    ) -> None:
        module = getattr(module, "_orig_mod", module)  # of torch.compile, which runs no hooks of what is inside
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"{called}: expected a torch.nn.Module, whose layers are watched, got {type(module).__name__}"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{called}: a scripted module cannot be watched while it runs; pass the module that it was made of"
            )
        super().__init__(called, asked, TorchSpatial())
        weight = next(chain(module.parameters(), module.buffers()), None)
        self.module, self._from_logits = module, from_logits
        self._device = weight.device if weight is not None else None if device is None else torch.device(device)
        self._dtype = next((w.dtype for w in module.parameters() if w.is_floating_point()), None)
        self._backend = TorchBackend()

    def tile(self, piece: Piece) -> Tensor:
        """All transformations of some samples, on the network's device."""
        return make_tile(self.transforms, self._moved(piece.x), ops=self._spatial)  # type: ignore[no-any-return]

    def _moved(self, x: Tensor) -> Tensor:
        """Some inputs on the network's device, and in its type where they are doubles, as numpy makes them."""
        doubles = x.dtype == torch.float64 and self._dtype not in (None, torch.float64)
        x = x.to(self._dtype) if doubles else x
        return x if self._device is None else x.to(self._device)

    def _found(self, piece: Piece) -> Finder:
        tile = self.tile(Piece(piece.x[:1], 1))
        self._note_input(tile.shape, "channels_first")
        finder = self._finder(len(tile), tile.ndim, dict(self.module.named_modules()), nn.Module)
        find_layers(self.module, tile, finder)
        return finder

    def _maps(self, layer: Layer) -> Tensor:
        return torch.zeros(len(self.transforms), *layer.shape, device=self._device)

    @contextmanager
    def passing(self, group: Sequence[Layer], output: bool = False) -> Iterator[Callable[..., Any]]:
        """One pass, which adds the activations of a group of layers to their moments."""
        columns = len(self.transforms)

        def consume(name: str, tensor: Tensor, rows: int) -> None:
            if name not in self._moments:
                self._moments[name] = StreamingMoments(columns, self._backend)
            self._moments[name].update(tensor, rows)
            if self.probes is not None:
                tile = self._backend.tile(tensor, rows, columns)
                chosen = torch.as_tensor(self.probes.choose(name, tile.shape[2]), device=tile.device)
                self.probes.add(name, tile.index_select(2, chosen).cpu().numpy())

        with self._watching(group, columns, consume, output) as run:

            def measure(piece: Piece, tile: Tensor | None = None) -> Any:
                if tile is None:
                    return run(self.tile(piece), piece.rows)
                given = self._moved(tile)
                # A network may begin with an operation in place.
                return run(given.clone() if given is tile else given, piece.rows)

            yield measure

    @contextmanager
    def _watching(
        self, group: Sequence[Layer], columns: int, consume: Consume, output: bool = False
    ) -> Iterator[Callable[[Tensor, int], Any]]:
        layers = {layer.name: layer for layer in group}
        shown = {label: name for label, name in self._shown.items() if name in layers}
        # 0 rows: it is run by someone else, e.g. as h2, or inside of it.
        now = {"rows": 0, "left": 0}

        def look(label: str, _name: str, _child: nn.Module, tensor: Tensor) -> None:
            name = shown.get(label)
            if not now["rows"] or name is None:
                return
            self._check_rows(name, tensor.shape, now["rows"] * columns)
            is_turned = self._asked.same_equivariance and columns > 1
            consume(name, self._turned(layers[name], tensor) if is_turned else tensor, now["rows"])
            now["left"] -= 1
            if not now["left"] and not output:
                raise _EnoughError

        with watching(self.module, look, {self._watched[name] for name in layers if name in self._watched}) as run:

            def limited(x: Tensor, rows: int) -> Any:
                now["rows"], now["left"] = rows, len(layers)
                try:
                    return run(x)
                except _EnoughError:
                    return None
                finally:
                    now["rows"] = 0

            yield limited

    # Firing rates: first the largest activations of the samples as they are, then counts.

    def largest(
        self, group: Sequence[Layer], pieces: Iterable[Piece], count: int, identity: int
    ) -> dict[str, NDArray[Any]]:
        """The largest activations of a group of layers, each (count, K), largest first, for samples as they are."""
        kept: dict[str, Tensor] = {}

        def consume(name: str, tensor: Tensor, rows: int) -> None:
            kept[name] = self._backend.largest(kept.get(name), self._backend.tile(tensor, rows, 1)[:, 0], count)

        with self._watching(group, 1, consume) as run:
            for piece in pieces:
                run(self._moved(piece.x), piece.rows)
        return {name: values.cpu().numpy() for name, values in kept.items()}

    def firing(
        self, group: Sequence[Layer], pieces: Iterable[Piece], thresholds: Mapping[str, NDArray[Any]], identity: int
    ) -> dict[str, list[NDArray[np.float64]]]:
        """Counts of firing of a group of layers, as [local, own]."""
        counts: dict[str, list[NDArray[np.float64]]] = {}
        columns = len(self.transforms)

        def consume(name: str, tensor: Tensor, rows: int) -> None:
            tile = self._backend.tile(tensor, rows, columns)
            threshold = torch.from_numpy(thresholds[name]).to(tile.device)
            found = [self._backend.host(part) for part in self._backend.firing(tile, threshold, identity)]
            before = counts.get(name)
            counts[name] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]

        with self._watching(group, columns, consume) as run:
            for piece in pieces:
                run(self.tile(piece), piece.rows)
        return counts

    # Beside another one.

    def scores(self, output: Any) -> NDArray[Any]:
        """What the network's output says of each input, (N,) or (N, C); probabilities where a single one is a logit."""
        scores = (
            torch.as_tensor(output) if isinstance(output, np.ndarray) else scores_from_output(output, model=self.called)
        )
        scores = scores.detach()
        if not scores.is_floating_point():
            return scores.cpu().numpy()
        if self._from_logits and (scores.ndim < 2 or scores.shape[1] == 1):
            scores = scores.sigmoid()
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).cpu().numpy()

    def names_beside(self, other: Network) -> dict[str, str]:
        """The names that layers have in another network, where none is the same and one stands inside of the other."""
        h1, h2 = ([layer.name for layer in network.layers] for network in (self, other))
        if set(h1) & set(h2):
            return {}
        for inner, outer in ((h1, h2), (h2, h1)):
            for name in outer:
                around = name[: -len(inner[0])]
                if name.endswith(f".{inner[0]}") and all(
                    f"{around}{each}" in outer for each in inner if each != OUTPUT
                ):
                    pairs = {each: f"{around}{each}" for each in inner if each != OUTPUT}
                    return pairs if inner is h1 else {of_h1: of_h2 for of_h2, of_h1 in pairs.items()}
        return {}
