"""Texts and images of a collection, each instance of a data set once, however many runs show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bc_core.comparison._comparison import Id
from bc_tensorboard.plugin._collection import Collection, ShownSeries, has_media, texts_of
from bc_tensorboard.writing._images import images_by_id, pictures
from bc_tensorboard.writing._media import encode_known, excerpts_of

# How many texts a page unpacks at once; `frontend/src/data/memorySource.ts` counts by it.
TEXTS_TOGETHER = 64


@dataclass
class Pack:
    """What runs on one data set know of its instances together.

    Attributes:
        series: The runs.
        texts: Text by id.
        images: Encoded image by id.
        left_out: Ids whose images a limit left out.
        full: Encoded larger image by id.
        reduced: Ids whose larger images a limit left out.
    """

    series: list[ShownSeries]
    texts: dict[Id, str]
    images: dict[Id, bytes] = field(default_factory=dict)
    left_out: list[Id] = field(default_factory=list)
    full: dict[Id, bytes] = field(default_factory=dict)
    reduced: set[Id] = field(default_factory=set)

    def encode(self) -> tuple[bytes, list[bytes]]:
        """Texts, and which instances have images; then the whole texts of which the first holds the beginnings.

        Those come some at a time, in the order of the first, so that a page unpacks only what is looked at.
        """
        shown, longer = excerpts_of(self.texts)
        ids = [*self.texts, *self.images, *self.left_out]
        known = encode_known(
            ids, shown, self.images, set(self.left_out), longer=longer, full=self.full, reduced=self.reduced
        )
        order = list(longer)
        parts = (order[at : at + TEXTS_TOGETHER] for at in range(0, len(order), TEXTS_TOGETHER))
        return known, [encode_known(part, {each: longer[each] for each in part}, ()) for part in parts]


def packs_of(
    collection: Collection, max_images: int, image_size: int, full_size: int = 0, max_full_bytes: int = 0
) -> tuple[list[Pack], list[str]]:
    """Put together what runs know of the instances of a data set, and make a limited number of thumbnails.

    Runs share a pack if their images are from one place and no instance has two texts.

    Args:
        collection: The comparisons.
        max_images: How many images at most, negative flips first, shared out among the packs.
        image_size: Longer side of the thumbnails, in pixels.
        full_size: Longest side of the larger pictures.
        max_full_bytes: How many bytes these take at most.

    Returns:
        The packs, and what images could not be made, and why.
    """
    packs: list[Pack] = []
    for series in collection.series():
        if not has_media(series):
            continue
        texts = texts_of(series)
        for pack in packs:
            first = pack.series[0]
            shared = pack.texts.keys() & texts.keys()
            if (
                first.dataset == series.dataset
                and first.images is series.images
                and all(pack.texts[instance] == texts[instance] for instance in shared)
            ):
                pack.series.append(series)
                pack.texts.update(texts)
                break
        else:
            packs.append(Pack([series], dict(texts)))
    failures: list[str] = []
    wanted = sorted(((_by_interest(pack.series), pack) for pack in packs), key=lambda item: len(item[0]))
    room = max_images
    for done, (ids, pack) in enumerate(wanted):
        chosen = ids[: max(0, room // (len(wanted) - done))]
        room -= len(chosen)
        pack.left_out = ids[len(chosen) :]
        ask = images_by_id(pack.series[0].images) if ids else None
        for instance in chosen:
            assert ask is not None
            try:
                content, larger = pictures(ask(instance), image_size, full_size)
            except Exception as error:  # a data set's own code: it must not cost the rest
                failures.append(f"{instance!r}: {type(error).__name__}: {error}")
                continue
            if content is not None:
                pack.images[instance] = content
            if larger is not None and len(larger) <= max_full_bytes:
                pack.full[instance] = larger
                max_full_bytes -= len(larger)
            elif larger is not None:
                pack.reduced.add(instance)
    return packs, failures


def _by_interest(several: list[ShownSeries]) -> list[Id]:
    """Ids of the error instances: negative flips first, and those of the last step before those of others."""
    source = several[0].images
    if source is None:
        return []
    first: list[Id] = []
    rest: list[Id] = []
    for series in several:
        for number in sorted(series.steps, reverse=True):
            table = series.steps[number].comparison.instances
            broken = np.asarray(table.h1_pred == table.target)
            first += table.ids[broken].tolist()
            rest += table.ids[~broken].tolist()
    ids = list(dict.fromkeys(first + rest))
    return [instance for instance in ids if instance in source] if isinstance(source, Mapping) else ids
