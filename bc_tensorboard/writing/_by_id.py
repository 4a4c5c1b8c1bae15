"""What a caller knows of instances, asked for by id: images and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bc_core.comparison._comparison import Id


def by_id(values: Any, name: str) -> Callable[[Id], Any]:
    """How what is known of an instance is asked for: by a function, or in a mapping or anything with an index.

    Args:
        values: A function of the id; a mapping, in which an id may be missing; or anything indexed by integer id, such
            as a list or an array over the data set.
        name: What the caller calls this argument.

    Raises:
        TypeError: If it is none of these.

    Example:
        >>> from bc_tensorboard.writing._by_id import by_id
        >>> by_id(["zero", "one"], "metadata")(1), by_id({"a": "first"}, "metadata")("b")
        ('one', None)
    """
    if isinstance(values, Mapping):
        return values.get
    # A class such as str is called, though its instances have an index.
    if hasattr(values, "__getitem__") and not isinstance(values, (str, bytes, type)):

        def indexed(instance: Id) -> Any:
            try:
                return values[instance]
            except (IndexError, KeyError, TypeError) as error:
                if isinstance(instance, str):
                    raise TypeError(
                        f"{name}: the ids are text, and {type(values).__name__} is indexed by number; give a mapping "
                        "or a function of the id"
                    ) from error
                raise

        return indexed
    if callable(values):
        return values  # type: ignore[no-any-return]
    raise TypeError(
        f"{name}: expected a function of the id, a mapping, or something indexed by id such as an array, got "
        f"{type(values).__name__}"
    )


class TextsById:
    """Texts of instances as a function of the id; what fails is counted and left empty, not raised.

    Args:
        metadata: As `by_id` takes.

    Attributes:
        failed: How many texts could not be had.
        reason: Of the first of them.
    """

    def __init__(self, metadata: Any) -> None:
        self._ask = by_id(metadata, "metadata")
        self.failed = 0
        self.reason = ""

    def __call__(self, instance: Id) -> Any:
        """Text of an instance."""
        try:
            return self._ask(instance)
        except Exception as error:  # the caller's own code: whatever it raises must not cost the comparison
            self.failed += 1
            self.reason = self.reason or f"{instance!r}: {type(error).__name__}: {error}"
            return ""

    def complaint(self) -> str | None:
        """What to warn of, if anything failed."""
        return f"metadata: {self.failed} texts are left out; first {self.reason}" if self.failed else None
