"""TransformSet: the transformations t_j that a network is asked to bear, with their inverses and their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bc_core.invariance._resampling import Affine
from bc_core.invariance._transform import Function, OwnFunction, Transform


class TransformSet(Sequence[Transform]):
    """An ordered set of transformations of a batch of images; normally the first is the identity.

    Sets are joined by ``a | b`` (without repeating) and combined by ``a * b`` (every one of b after every one of a).

    Args:
        transforms: The transformations. A repeated one is kept: a set may hold the identity m times.

    Attributes:
        names: Name of each.
        sizes: Size of each, for curves: degrees, pixels or a factor.

    Raises:
        ValueError: If there is none.
        TypeError: If one is no `Transform`.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import TransformSet
        >>> turns = TransformSet.rotations([0, 90, 180, 270])
        >>> turns.names
        ('identity', 'rotate 90', 'rotate 180', 'rotate 270')
        >>> image = np.array([[[[1, 2], [3, 4]]]])
        >>> turns[1](image)[0, 0]
        array([[2, 4],
               [1, 3]])
        >>> turns[1].inverse(turns[1](image)).tolist() == image.tolist()
        True
        >>> len(TransformSet.c4() * TransformSet.translations([(0, 0), (0, 2), (2, 0)])), len(TransformSet.d4())
        (12, 8)
    """

    __slots__ = ("_transforms",)

    def __init__(self, transforms: Iterable[Transform]) -> None:
        found = tuple(transforms)
        if not found:
            raise ValueError("transforms: expected at least one transformation, got none")
        for transform in found:
            if not isinstance(transform, Transform):
                raise TypeError(
                    f"transforms: expected Transform objects, got {type(transform).__name__}; of functions make a set "
                    "with TransformSet.from_functions({'name': function})"
                )
        self._transforms = found

    @classmethod
    def identity(cls, copies: int = 1) -> TransformSet:
        """The identity, once or several times.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.identity().names
            ('identity',)
        """
        return cls([_IDENTITY] * copies)

    @classmethod
    def c4(cls) -> TransformSet:
        """The four quarter turns, counter-clockwise as `numpy.rot90`; exact, for square images.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.c4().sizes
            (0.0, 90.0, 180.0, 270.0)
        """
        return cls([_IDENTITY, *(_exact(f"rotate {90 * k}", _turn(k), 90.0 * k) for k in (1, 2, 3))])

    @classmethod
    def d4(cls) -> TransformSet:
        """The eight symmetries of the square: `c4`, and each after a left-right flip; exact, for square images.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.d4().names[4:6]
            ('flip left-right', 'flip left-right, rotate 90')
        """
        return cls.c4() | cls([_FLIP]) * cls.c4()

    @classmethod
    def flips(cls, horizontal: bool = True, vertical: bool = False) -> TransformSet:
        """The identity and flips left-right (`horizontal`), upside-down (`vertical`), or both and their product; exact.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.flips().names
            ('identity', 'flip left-right')
        """
        sides = cls([_IDENTITY, _FLIP]) if horizontal else cls.identity()
        upside_down = _exact("flip upside-down", ((-1.0, 0.0), (0.0, 1.0)), math.nan)
        return sides * cls([_IDENTITY, upside_down]) if vertical else sides

    @classmethod
    def rolls(cls, shifts: Iterable[tuple[int, int]]) -> TransformSet:
        """Cyclic shifts by (down, right) whole pixels, as `numpy.roll`; exact.

        On a pooled map, shifts that are no longer whole are interpolated, cyclically too.

        Args:
            shifts: Pairs of whole numbers; (0, 0) is the identity. Sizes are as for `translations`.

        Raises:
            ValueError: If a shift is not whole.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.rolls([(0, 0), (3, 4)]).sizes
            (0.0, 5.0)
        """
        pairs = [_pair(shift, "shifts") for shift in shifts]
        for pair in pairs:
            if any(part != round(part) for part in pair):
                raise ValueError(f"shifts: a cyclic shift is exact for whole pixels only, got {pair!r}")
        return cls(
            _affine(f"roll ({y:g}, {x:g})", Affine(_UNIT, (y, x), True, True), size)
            for (y, x), size in zip(pairs, _lengths(pairs), strict=True)
        )

    @classmethod
    def rotations(cls, degrees: Iterable[float]) -> TransformSet:
        """Rotations about the centre, counter-clockwise, bilinear, with zeros where nothing comes from.

        Multiples of 90 are exact on square images, as in `c4`.

        Args:
            degrees: Angles in degrees; 0 is the identity.

        Raises:
            ValueError: If an angle is not finite.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.rotations(range(0, 360, 45)).sizes[:3]
            (0.0, 45.0, 90.0)
        """
        transforms = []
        for angle in _numbers(degrees, "degrees"):
            quarters = angle / 90
            if quarters == round(quarters):
                matrix = _turn(round(quarters) % 4)  # math.cos(math.pi / 2) is 6e-17, not 0
            else:
                cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                matrix = ((cos, -sin), (sin, cos))
            transforms.append(_affine(f"rotate {angle:g}", Affine(matrix), angle))
        return cls(transforms)

    @classmethod
    def translations(cls, shifts: Iterable[tuple[float, float]]) -> TransformSet:
        """Shifts by (down, right) pixels of the input, with zeros where nothing comes from; parts of a pixel bilinear.

        Args:
            shifts: Pairs of numbers; (0, 0) is the identity. The size is the length of the shift; where all go down or
                up, or all right or left, it is below 0 for up and left.

        Raises:
            ValueError: If a shift is no pair of finite numbers.

        Example:
            >>> import numpy as np
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.translations([(0, 1)])[0](np.arange(4.0).reshape(1, 1, 2, 2))[0, 0]
            array([[0., 0.],
                   [0., 2.]])
        """
        pairs = [_pair(shift, "shifts") for shift in shifts]
        return cls(
            _affine(f"translate ({y:g}, {x:g})", Affine(_UNIT, (y, x)), size)
            for (y, x), size in zip(pairs, _lengths(pairs), strict=True)
        )

    @classmethod
    def scales(cls, factors: Iterable[float]) -> TransformSet:
        """Magnifications about the centre, bilinear (without smoothing), with zeros where nothing comes from.

        Args:
            factors: Above 1 the content grows, below it shrinks; 1 is the identity.

        Raises:
            ValueError: If a factor is not above 0.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> TransformSet.scales([1, 0.5, 2]).names
            ('identity', 'scale 0.5', 'scale 2')
        """
        transforms = []
        for factor in _numbers(factors, "factors"):
            if factor <= 0:
                raise ValueError(f"factors: expected numbers above 0, got {factor!r}")
            transforms.append(_affine(f"scale {factor:g}", Affine(((factor, 0.0), (0.0, factor))), factor))
        # The size is a factor, so that of the identity is 1.
        return cls(Transform(t.name, t.steps, 1.0) if t.is_identity else t for t in transforms)

    @classmethod
    def from_functions(
        cls, functions: Mapping[str, Function] | Iterable[tuple[Any, ...]], *, identity: bool = True
    ) -> TransformSet:
        """A set of one's own functions of a batch, whatever the batch is (images, sound, rows of a table).

        Args:
            functions: ``{name: function}``, or tuples ``(name, function)``, ``(name, function, inverse)`` or
                ``(name, function, inverse, size)``; the inverse may be None. A function takes the batch (N, ...) of the
                framework in use and returns one of the same shape. It is given a batch that others see too: it must not
                change it. The inverse is given feature maps, for same-equivariance.
            identity: Put the identity first.

        Raises:
            TypeError: If something is no such tuple or no function.

        Example:
            >>> from bc_core.invariance import TransformSet
            >>> louder = TransformSet.from_functions([("louder", lambda x: 2 * x, lambda x: x / 2, 2.0)])
            >>> louder.names, louder[1].inverse(4.0)
            (('identity', 'louder'), 2.0)
        """
        entries = functions.items() if isinstance(functions, Mapping) else functions
        transforms = [_IDENTITY] if identity else []
        for entry in entries:
            name, function, back, size = _own_parts(entry)
            transforms.append(Transform(name, (OwnFunction(function, back),), size))
        return cls(transforms)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each transformation."""
        return tuple(transform.name for transform in self._transforms)

    @property
    def sizes(self) -> tuple[float, ...]:
        """Size of each transformation; nan where there is no such number."""
        return tuple(transform.size for transform in self._transforms)

    @property
    def identity_index(self) -> int | None:
        """Where the identity is, or None."""
        return next((index for index, transform in enumerate(self._transforms) if transform.is_identity), None)

    @property
    def has_inverses(self) -> bool:
        """Whether there is a way back from each."""
        return all(transform.has_inverse for transform in self._transforms)

    @property
    def is_affine(self) -> bool:
        """Whether all are defined for maps of any size."""
        return all(transform.is_affine for transform in self._transforms)

    def __or__(self, other: TransformSet) -> TransformSet:
        if not isinstance(other, TransformSet):
            return NotImplemented
        # A quarter turn of `c4` and one of `rotations` do the same.
        seen = {transform._does for transform in self._transforms}
        return TransformSet([*self._transforms, *(new for new in other if new._does not in seen)])

    def __mul__(self, other: TransformSet) -> TransformSet:
        if not isinstance(other, TransformSet):
            return NotImplemented
        return TransformSet(second.after(first) for first in self._transforms for second in other)

    def __len__(self) -> int:
        return len(self._transforms)

    def __getitem__(self, index: Any) -> Any:
        found = self._transforms[index]
        return TransformSet(found) if isinstance(index, slice) else found

    def __iter__(self) -> Iterator[Transform]:
        return iter(self._transforms)

    def __eq__(self, other: object) -> bool:
        return self._transforms == other._transforms if isinstance(other, TransformSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._transforms)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:6]) + (", ..." if len(self) > 6 else "")
        return f"TransformSet({len(self)}: {shown})"


_UNIT = ((1.0, 0.0), (0.0, 1.0))
_IDENTITY = Transform("identity")


def _turn(quarters: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Matrix, for (y, x) with y down, of so many counter-clockwise quarter turns."""
    cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[quarters]
    return ((cos, 0.0 - sin), (sin, cos))


def _affine(name: str, affine: Affine, size: float) -> Transform:
    return _IDENTITY if affine.is_identity else Transform(name, (affine,), float(size))


def _exact(name: str, matrix: tuple[tuple[float, float], tuple[float, float]], size: float) -> Transform:
    return _affine(name, Affine(matrix, exact=True), size)


_FLIP = _exact("flip left-right", ((1.0, 0.0), (0.0, -1.0)), math.nan)


def _numbers(values: Iterable[float], name: str) -> list[float]:
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected numbers, such as [0, 15, 30], got {values!r}") from None
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name}: expected finite numbers, got {number!r}")
    return numbers


def _pair(shift: Any, name: str) -> tuple[float, float]:
    if isinstance(shift, (str, bytes)) or not hasattr(shift, "__len__") or len(shift) != 2:
        raise ValueError(f"{name}: expected pairs (down, right) of pixels, such as (0, 3), got {shift!r}")
    y, x = _numbers(shift, name)
    return y, x


def _lengths(shifts: Sequence[tuple[float, float]]) -> list[float]:
    """How far shifts go; along one axis with the direction as the sign."""
    for axis in (0, 1):
        if all(shift[1 - axis] == 0 for shift in shifts):
            return [shift[axis] for shift in shifts]
    return [math.hypot(*shift) for shift in shifts]


def _own_parts(entry: Any) -> tuple[str, Function, Function | None, float]:
    advice = "expected (name, function), (name, function, inverse) or (name, function, inverse, size)"
    if not isinstance(entry, (tuple, list)) or not 2 <= len(entry) <= 4:
        raise TypeError(f"functions: {advice}, got {entry!r}")
    defaults: tuple[Any, ...] = (None, math.nan)
    given = tuple(entry)
    name, function, back, size = given + defaults[len(given) - 2 :]
    if not isinstance(name, str) or not callable(function) or not (back is None or callable(back)):
        raise TypeError(f"functions: {advice}, got {entry!r}")
    return name, function, back, float(size)


def check_identity(transforms: Any) -> None:
    """Refuse transformations that predictions cannot be compared under.

    Raises:
        TypeError: If they are no `TransformSet`.
        ValueError: If the identity is not among them.
    """
    if not isinstance(transforms, TransformSet):
        raise TypeError(
            f"transforms must be a TransformSet, such as TransformSet.c4(). Received: {type(transforms).__name__}."
        )
    if transforms.identity_index is None:
        raise ValueError(
            "The identity must be among the transformations, as predictions for t x are compared with those for x: use "
            f"TransformSet.identity() | .... Received: {transforms!r}."
        )
