"""h1's answers said in h2's classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bc_core.reference._class_map import DROPPED, ClassMap


class MappedClasses:
    """A class map at work on torch's tensors.

    Args:
        class_map: which of h2's classes each of h1's became; None where they are the same.
    """

    def __init__(self, class_map: ClassMap | None) -> None:
        self.class_map = class_map
        self._indices: dict[tuple[Any, torch.device], Tensor] = {}

    def of(self, rows: Tensor, wanted: int | None) -> Tensor:
        """What h1 said, for an h2 with so many classes, or the least number that the map names."""
        class_map = self.class_map
        labels = not (rows.is_floating_point() or rows.is_complex())
        if class_map is None:
            if wanted is not None and not labels and rows.ndim > 1 and rows.shape[1] != wanted:
                raise ValueError(
                    f"h1 gives scores for {rows.shape[1]} classes, but h2 has {wanted}: give a class_map of "
                    f"{rows.shape[1]} entries that says which of h2's classes each of h1's is, -1 for none"
                )
            return rows
        if not labels and (rows.ndim < 2 or rows.shape[1] != len(class_map)):
            raise ValueError(
                f"class_map has {len(class_map)} entries, one for each class of h1, but h1's scores have shape "
                f"{tuple(rows.shape)}; expected (N, {len(class_map)})"
            )
        if wanted is not None:
            class_map.check(wanted)
        if labels:
            # The last entry answers for label -1: no class before the map, no class after it.
            return self._index((*class_map.firsts, DROPPED), rows.device)[rows.long()].to(rows.dtype)
        return self._columns(rows, class_map, wanted or class_map.num_classes)

    def for_support(self, mapped: Tensor, target: Tensor) -> Tensor:
        """The same with classes that were split as one: h1 says a part if it says the class that the part was of.

        Args:
            mapped: what `of` gave, scores (N, C, ...) or labels.
            target: class indices (N, ...), or probabilities (N, C, ...), of which the largest is meant.

        Returns:
            Scores or labels whose class is the target's wherever h1 is right.
        """
        parts = [] if self.class_map is None else self.class_map.parts
        if not parts:
            return mapped
        if target.is_floating_point():
            target = target.argmax(1)
        scores = mapped.is_floating_point()
        target = target.reshape(mapped[:, 0].shape if scores else mapped.shape).long()
        mapped = mapped.clone()
        for part in parts:
            index = self._index(part, mapped.device)
            if not scores:
                is_said = torch.isin(mapped, index) & torch.isin(target, index)
                mapped = torch.where(is_said, target.to(mapped.dtype), mapped)
                continue
            whole = mapped.index_select(1, index).logsumexp(1, keepdim=True)
            asked = target.unsqueeze(1) == index.view(1, -1, *[1] * (mapped.ndim - 2))
            first = torch.zeros_like(asked)
            first[:, 0] = ~asked.any(1)
            mapped[:, index] = torch.where(asked | first, whole, torch.finfo(mapped.dtype).min / 2)
        return mapped

    def in_shares_of(self, mapped: Tensor, h2_output: Tensor) -> Tensor:
        """Scores in which a class that was split is divided as the map says, where that is by what h2 says.

        Args:
            mapped: what `of` gave, scores (N, C, ...).
            h2_output: h2's logits or log-probabilities, of one shape with these.
        """
        if self.class_map is None or self.class_map.is_equal or not mapped.is_floating_point():
            return mapped
        mapped, h2_output = mapped.clone(), h2_output.detach().to(mapped.dtype)
        for part in self.class_map.parts:
            index = self._index(part, mapped.device)
            whole = mapped.index_select(1, index).logsumexp(1, keepdim=True)
            mapped[:, index] = whole + h2_output.index_select(1, index).log_softmax(1)
        return mapped

    def _columns(self, rows: Tensor, class_map: ClassMap, classes: int) -> Tensor:
        floor = torch.finfo(rows.dtype).min / 2
        padding = rows.new_full((rows.shape[0], 1, *rows.shape[2:]), floor)
        sources = [class_map.sources(c) for c in range(classes)]
        first = tuple(group[0] if group else len(class_map) for group, _ in sources)
        mapped = torch.cat([rows, padding], dim=1).index_select(1, self._index(first, rows.device))
        for column, (group, parts) in enumerate(sources):
            if len(group) > 1:
                merged = rows.index_select(1, self._index(tuple(group), rows.device))
                mapped[:, column] = torch.logsumexp(merged, dim=1)
            elif parts > 1:
                mapped[:, column] -= math.log(parts)
        return mapped

    def _index(self, entries: tuple[int, ...], device: torch.device) -> Tensor:
        # Kept on the device: copying it there on every step would make the GPU wait for the host.
        key = (entries, device)
        if key not in self._indices:
            with torch.inference_mode(False):
                self._indices[key] = torch.tensor(entries, device=device)
        return self._indices[key]

    def __getstate__(self) -> dict[str, Any]:
        # They may lie on a device that the next process does not have.
        return {**self.__dict__, "_indices": {}}
