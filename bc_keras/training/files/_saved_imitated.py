"""A teacher or a plain h2 in the file of a whole model: Keras models, folders of stored outputs, and blends of such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras

from bc_core.reference._class_map import ClassMap
from bc_keras.reference._blend import Member
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs

Told = dict[str, Any]


def save_imitated(reference: Reference, folder: str, name: str) -> None:
    """Write who is imitated into a folder; nothing of one that is, or holds, a callable or rows without a folder."""
    models: list[keras.Model] = []
    told = _told(reference, models)
    if told is None:
        return
    for number, model in enumerate(models):
        keras.saving.save_model(model, _file(folder, name, number))
    Path(folder, f"{name}.json").write_text(json.dumps(told), encoding="ascii")


def load_imitated(folder: str, name: str, safe_mode: bool) -> Reference | None:
    """Read what `save_imitated` wrote; None where it wrote nothing, or stored outputs are gone."""
    file = Path(folder, f"{name}.json")
    if not file.exists():
        return None
    told = json.loads(file.read_text(encoding="ascii"))
    if any(not Path(path).exists() for path in _stored(told)):
        return None
    return _made(told, lambda number: keras.saving.load_model(_file(folder, name, number), safe_mode=safe_mode))


def _file(folder: str, name: str, number: int) -> str:
    return str(Path(folder, f"{name}-{number}.keras"))


def _told(reference: Member, models: list[keras.Model]) -> Told | None:
    classes = None if reference.class_map is None else reference.class_map.as_given()
    told: Told = {"class_map": classes, "from_logits": reference.from_logits}
    if reference.mixed is not None:
        members = [_told(member, models) for member in reference.mixed.members]
        how = {"blend": reference.mixed.space, "multilabel": reference.mixed.multilabel}
        given = {"members": members, "weights": reference.mixed.weights, **how, "class_map": classes}
        return None if None in members else given
    if reference.stored is not None:
        path = getattr(reference.stored, "path", None)
        return None if path is None else {**told, "stored": str(path)}
    if not isinstance(reference.h1, keras.Model):
        return None
    models.append(reference.h1)
    return {**told, "model": len(models) - 1}


def _stored(told: Told) -> list[str]:
    members = [path for member in told.get("members", ()) for path in _stored(member)]
    return [*members, *([told["stored"]] if "stored" in told else [])]


def _made(told: Told, load: Any) -> Reference:
    class_map = None if told["class_map"] is None else ClassMap.of(told["class_map"])
    if "members" in told:
        members = [_made(member, load) for member in told["members"]]
        pairs = list(zip(members, told["weights"], strict=True))
        return Reference(pairs, class_map, blend=told["blend"], multilabel=told["multilabel"])
    h1 = StoredOutputs.open(told["stored"]) if "stored" in told else load(told["model"])
    return Reference(h1, class_map, from_logits=told["from_logits"])
