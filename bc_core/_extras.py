"""What an optional part of the distribution needs, told by the name of the extra that brings it."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["need"]


def need(extra: str, what: str, *modules: str) -> None:
    """Refuse to go on without `modules`, which are looked for and not imported.

    Args:
        extra: Of ``setup.cfg``, which installs them.
        what: Needs them, as the message is to name it.
        modules: Top-level names of what is imported.

    Raises:
        ModuleNotFoundError: One or more are not installed; `name` is the first, as Python has it.

    Examples:
        >>> need("lightning", "bc_lightning", "json")
        >>> need("lightning", "bc_lightning", "json", "no_such_package")
        Traceback (most recent call last):
        ModuleNotFoundError: bc_lightning needs no_such_package, which is not installed: pip install ...
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f'pip install "backward-compat-ml[{extra}]".',
            name=missing[0],
        )
