"""How the reference reads our docstrings, an extension of Griffe."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Extension, Object


class OurDocstrings(Extension):
    """Runs of `>>>` below "Example:" are code, and what `__new__` takes is what a class takes."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            # Griffe knows the plural alone, and takes the singular for a remark.
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
        if isinstance(obj, Class) and "__new__" in obj.members and "__init__" not in obj.members:
            obj.members["__init__"] = obj.members["__new__"]
