"""The frozen h1: what did the old model say about this batch?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bc_core.losses._blends import SPACES, Space, check_share, members_and_weights
from bc_core.losses._options import known
from bc_core.reference._class_map import ClassMap
from bc_core.reference._stored_outputs import StoredRows
from bc_lightning._user_module import class_of, lacks_forward, only_network
from bc_lightning.batches._model_outputs import failed_on, scores_from_output
from bc_lightning.reference._blend import Blend
from bc_lightning.reference._fingerprint import fingerprint
from bc_lightning.reference._mapped_classes import MappedClasses
from bc_lightning.reference._modules import answers_of, copied, device_of, module_behind, modules_behind, move, set_eval


class Reference:
    """The model in use, frozen, as something to ask.

    A reference is not an ``nn.Module``: a module that holds one does not register it, so h1 stays out of
    h2's parameters, optimiser, state dict, ``train()`` calls and gradient synchronisation. Its answers carry
    no gradients, and h1 is put into eval mode before each of them, whatever happened to it since the last.
    Copying a reference, deeply too, gives the same reference.

    Args:
        h1: The old model. A module (a ``LightningModule`` answers with its ``forward``), any callable that
            returns what `bc_lightning.batches._model_outputs.scores_from_output` reads or a numpy array, or a
            `StoredOutputs`, whose rows come with the batch instead of from a call. A callable that returns
            predicted labels says so with an attribute ``labels_only = True``. Several of these, as a list of pairs
            ``(model, weight)`` whose weights sum to 1, or of models that count alike, are asked as one: a blend. A
            member of other classes is a `Reference` with a class map of its own. Members are all stored outputs, of
            one data set, or none is.
        class_map: When h2 has other classes than h1: ``class_map[i]`` is h2's index of h1's class ``i``, or
            -1 when h2 has it no more. Where classes are new, merged or split, a `bc_core.ClassMap` says so.
        num_classes: Number of h2's classes; by default what `answer` is told, else the highest index in
            ``class_map`` plus one.
        scores: What h1's class scores are, if not what it returns: the name of a submodule whose output they are, or
            a function of h1's output. A ``LightningModule`` without a forward of its own answers with its only
            network.
        blend: Of several models: ``"probability"``, the default, for the weighted mean of their probabilities;
            ``"logit"`` for that of their logits.
        multilabel: Of several models: whether each column of scores is a label of its own.
        from_logits: Of several models: whether they give logits. Binary ones may give probabilities, and the blend
            then does.
        class_axis: Of several models: which axis of scores with more than two holds the classes, 1 or -1.

    Attributes:
        h1: What the reference was made of.
        module: The module that answers, if h1 is one or runs one.
        stored: The stored outputs, if h1 is that.
        labels_only: Whether the answers are predicted labels instead of scores.
        scores: What h1's class scores are, if not what it returns.
        class_map: h2's class index for each class of h1, -1 for a class that h2 has no more.
        fingerprint: The name of h1's content when the reference was made; see `reference._fingerprint.fingerprint`.

    Raises:
        TypeError: ``h1`` is a class or nothing that can be called.
        ValueError: ``class_map`` holds indices below -1 or outside ``num_classes``, or no class at all, or it
            has fewer entries than the stored labels need. Weights of a blend that are negative or don't sum to 1,
            members that give labels, or that were stored for different data sets.

    Example:
        >>> import torch
        >>> from bc_core import ClassMap
        >>> from torch import nn
        >>> old, new = nn.Linear(4, 2), nn.Linear(4, 2)
        >>> teacher = Reference([(new, 0.25), (old, 0.75)])
        >>> x = torch.ones(5, 4)
        >>> torch.allclose(teacher(x).softmax(1), 0.25 * new(x).softmax(1) + 0.75 * old(x).softmax(1))
        True
        >>> h1 = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
        >>> reference = Reference(h1, class_map=ClassMap([0, 2], new=[1]))
        >>> scores = reference(torch.zeros(5, 4))
        >>> scores.shape, scores.requires_grad, h1.training
        (torch.Size([5, 3]), False, False)
        >>> scores.softmax(1)[:, 1]
        tensor([0., 0., 0., 0., 0.])
    """

    def __init__(
        self,
        h1: nn.Module | Callable[..., Any] | StoredRows[Tensor] | Sequence[Any],
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        scores: str | Callable[[Any], Any] | None = None,
        *,
        blend: Space | None = None,
        multilabel: bool = False,
        from_logits: bool = True,
        class_axis: int = 1,
    ) -> None:
        self.mixed: Blend | None = None
        if isinstance(h1, (list, tuple)):
            self.mixed = self._blend_of(h1, scores, blend or "probability", multilabel, from_logits, class_axis)
            h1 = self._asked_of(self.mixed)
        elif blend is not None or multilabel or not from_logits or class_axis != 1:
            raise TypeError(
                "blend, multilabel, from_logits and class_axis are for several models, [(model, weight), ...]. "
                "Received: one model."
            )
        self.h1: Any = h1
        self.stored = h1 if isinstance(h1, StoredRows) else None
        if isinstance(h1, type) or not (callable(h1) or self.is_stored):
            raise TypeError(
                f"h1 must be a module, a callable or stored outputs, got {_said(h1)}; "
                "make an instance of a class, and load weights into one with bc_lightning.load_h1(module, checkpoint)"
            )
        self.module = module_behind(h1)
        # Of a callable those that can be seen; they answer in eval mode too.
        self._modules = modules_behind(h1)
        self.scores = self._checked_scores(scores)
        self.labels_only = bool(getattr(h1, "labels_only", False))
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.class_map = None if class_map is None else ClassMap.of(class_map, num_classes)
        self._classes = MappedClasses(self.class_map)
        self._num_classes = num_classes
        self._check_stored_labels()
        self._copies: dict[torch.dtype, nn.Module] = {}
        self.fingerprint = fingerprint(h1)

    @classmethod
    def of(
        cls,
        h1: Reference | nn.Module | Callable[..., Any] | StoredRows[Tensor],
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        scores: str | Callable[[Any], Any] | None = None,
    ) -> Reference:
        """Make a reference of an h1, or return the one that was given.

        Args:
            h1: What the constructor takes, or a reference.
            class_map: As in the constructor; not together with a reference, which has its own.
            num_classes: As in the constructor. With a reference it must agree with what that knows.
            scores: As in the constructor; not together with a reference.

        Raises:
            ValueError: A reference was given, and a class map, scores or another number of classes with it.

        Example:
            >>> from torch import nn
            >>> reference = Reference(nn.Linear(4, 2))
            >>> Reference.of(reference) is reference
            True
        """
        if not isinstance(h1, Reference):
            return cls(h1, class_map, num_classes, scores)
        for name, given in (("class_map", class_map), ("scores", scores)):
            if given is not None:
                raise ValueError(f"h1 is a Reference already: give the {name} to its constructor, not here")
        if None not in (num_classes, h1.num_classes) and num_classes != h1.num_classes:
            raise ValueError(f"h1 is a Reference of {h1.num_classes} classes, but num_classes={num_classes}")
        return h1

    @classmethod
    def blend(cls, new: Any, old: Any, a: float, space: Space = "probability", **options: Any) -> Reference:
        """The blend ``a * new + (1 - a) * old``, such as that of a plain new model and h1: a teacher.

        Args:
            new: A model trained without h1, or what else the constructor takes.
            old: h1.
            a: The new model's share, 0 to 1.
            space: What the mean is taken of, ``"probability"`` or ``"logit"``.
            options: Those of the constructor for several models.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> old, new, x = nn.Linear(4, 2), nn.Linear(4, 2), torch.ones(5, 4)
            >>> Reference.blend(new, old, 0.3)(x).shape
            torch.Size([5, 2])
        """
        check_share(a)
        return cls([(new, a), (old, 1 - a)], blend=space, **options)

    @staticmethod
    def _blend_of(
        given: Sequence[Any], scores: Any, space: Space, multilabel: bool, from_logits: bool, class_axis: int
    ) -> Blend:
        known(space, SPACES, "blend")
        if class_axis not in (1, -1):
            raise ValueError(f"class_axis must be 1 or -1. Received: class_axis={class_axis!r}.")
        if scores is not None:
            raise ValueError("Give the scores of a blend's models to each: Reference(model, scores=...).")
        models, weights = members_and_weights(given)
        members = [Reference.of(model) for model in models]
        if len({member.is_stored for member in members}) > 1:
            raise TypeError(
                "Of a blend either all models are stored outputs or none is: store the outputs of the others too, "
                "store_outputs(model, dataset, folder), or give the models themselves."
            )
        return Blend(members, weights, space, multilabel, from_logits, class_axis)

    @staticmethod
    def _asked_of(mixed: Blend) -> Any:
        stored = [member.stored for member in mixed.members if member.stored is not None]
        return type(stored[0]).combined(stored, mixed.of_rows, mixed.fingerprint) if stored else mixed

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that answer, as far as they can be seen."""
        return self.mixed.modules if self.mixed is not None else self._modules

    @property
    def is_stored(self) -> bool:
        """Whether h1's outputs come with the batch instead of from a call."""
        return self.stored is not None

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the answers, where it is known."""
        if self._num_classes is None and self.class_map is not None:
            return self.class_map.num_classes
        if self._num_classes is None and self.stored is not None:
            return self.stored.num_classes
        return self._num_classes

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Ask h1 about a batch.

        Args:
            args: The arguments of h1's ``forward``, the very ones that h2 got. h1 is moved to the device of
                the first tensor among them.
            kwargs: Keyword arguments of h1's ``forward``.

        Returns:
            h1's scores, shape ``(N, C)`` with C after the class map, or its labels, shape ``(N,)``; in the
            type that h1 gave them, without gradients.

        Raises:
            TypeError: h1 is stored outputs, or returned something with no scores in it.
            ValueError: h1's number of classes fits neither the class map nor ``num_classes``.
        """
        return self.answer(args, kwargs)

    def answer(self, args: tuple[Any, ...], kwargs: dict[str, Any], num_classes: int | None = None) -> Tensor:
        """Ask h1 about a batch, as calling the reference does, for an h2 whose number of classes is known.

        Args:
            args: Positional arguments of h1's ``forward``.
            kwargs: Keyword arguments of h1's ``forward``.
            num_classes: h2's number of classes where the constructor did not say it.

        Returns:
            As calling the reference.
        """
        return self.map_classes(self.ask(args, kwargs), num_classes)

    def ask(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], part: bool = False, networks: Sequence[str] = ()
    ) -> Tensor:
        """h1's own scores for a batch, before the class map.

        Args:
            args: Positional arguments of h1's ``forward``.
            kwargs: Keyword arguments of h1's ``forward``.
            part: Whether they are those of h1's submodule that gives the scores, where it has a name.
            networks: The names of h1's submodules that answer one after the other, where they were found later than
                the reference was made.

        Returns:
            As calling the reference, in h1's classes.
        """
        if self.is_stored:
            raise TypeError(
                "h1 is stored outputs, which answer for items of a data set and not for inputs: wrap the data "
                "set with stored.attach(dataset), so that each batch brings its rows"
            )
        device = device_of(chain(args, kwargs.values()))
        h1, module = self.h1, self.module
        if module is not None and module is h1:
            h1 = module = self._in_type_of(module, chain(args, kwargs.values()))
        for each in self._modules:
            set_eval(each)
        if module is not None:
            set_eval(module)
            if device is not None:
                move(module, device)
        # Not inference_mode: it is no faster here, and what it makes may not be saved for a backward pass.
        with torch.no_grad():
            try:
                output = self._output_of(h1, args, kwargs, part, networks)
            except (TypeError, RuntimeError) as error:
                raise failed_on("h1", "what h2 was called with", args, kwargs, error) from error
            if callable(self.scores):
                output = self.scores(output)
            if isinstance(output, (np.ndarray, np.generic)):
                output = torch.as_tensor(output, device=device)
            return scores_from_output(output, model="h1").detach()

    def _output_of(
        self, h1: Any, args: tuple[Any, ...], kwargs: dict[str, Any], part: bool, networks: Sequence[str]
    ) -> Any:
        if networks:
            output = h1.get_submodule(networks[0])(*args, **kwargs)
            for name in networks[1:]:
                output = h1.get_submodule(name)(output)
            return output
        if not isinstance(self.scores, str):
            self.check_answers()
            return h1(*args, **kwargs)
        network = h1.get_submodule(self.scores)
        if part or lacks_forward(h1):
            return network(*args, **kwargs)
        outputs = answers_of(network, lambda: h1(*args, **kwargs))
        if len(outputs) != 1:
            raise RuntimeError(
                f"its submodule {self.scores!r} was called {len(outputs)} times, where its one output was to be the "
                f"scores; say what h1's scores are with h1_scores='name' or h1_scores=function of its output"
            )
        return outputs[0]

    def map_classes(self, rows: Tensor, num_classes: int | None = None) -> Tensor:
        """Say h1's answers in h2's classes.

        Classes that h1 does not know get half of the lowest finite number of the type: probability 0, and
        finite wherever it goes. When a class of h1 was dropped, the scores are what h1 says when it has to
        choose among the classes that are left; its label becomes -1, which equals no target.

        Args:
            rows: h1's logits or log-probabilities, shape ``(N, C1)`` or ``(N, C1, ...)``, or integer labels
                of any shape, on any device.
            num_classes: h2's number of classes where the constructor did not say it.

        Returns:
            Scores of shape ``(N, C2, ...)`` in the type of ``rows``, or labels of the shape of ``rows``.
            Without a class map ``rows`` itself.

        Raises:
            ValueError: The number of columns fits neither the class map nor ``num_classes``.

        Example:
            >>> import torch
            >>> reference = Reference(torch.nn.Identity(), class_map=[1, -1, 0])
            >>> reference.map_classes(torch.tensor([[1.0, 2.0, 3.0]]))
            tensor([[3., 1.]])
            >>> reference.map_classes(torch.tensor([0, 1, 2]))
            tensor([ 1, -1,  0])
        """
        return self._classes.of(rows, num_classes if self._num_classes is None else self._num_classes)

    def for_support(self, mapped: Tensor, target: Tensor) -> Tensor:
        """What `map_classes` gave, as whether h1 is right is told: a class that was split is said by any of its parts.

        Args:
            mapped: That.
            target: Class indices (N, ...), or probabilities (N, C, ...).
        """
        return self._classes.for_support(mapped, target)

    def to_imitate(self, mapped: Tensor, h2_output: Tensor) -> Tensor:
        """What `map_classes` gave, with a class that was split divided as the class map says.

        Args:
            mapped: That.
            h2_output: h2's logits or log-probabilities in the same classes.
        """
        return self._classes.in_shares_of(mapped, h2_output)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move h1 to where `fn` moves a tensor; called when h2 is moved or cast.

        Never cast it, nor move it to "meta": h1 is the caller's, and copies of h2 share it. `answer` follows the type
        of its inputs with a copy of its own.

        Args:
            fn: A function of a tensor, such as ``lambda t: t.cuda()``.
        """
        device = fn(torch.empty(0)).device
        if self.mixed is not None:
            self.mixed.move(fn)
        if self.module is not None and device.type != "meta":
            move(self.module, device)

    def __repr__(self) -> str:
        mapped = "" if self.class_map is None else f", class_map={self.class_map}"
        return f"Reference({_said(self.h1)}, {self.fingerprint[:19]}{mapped})"

    def __copy__(self) -> Reference:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Reference:
        # Copies of h2, as averaging and sweeps make them, are all measured against the one old model.
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The copies may lie on a device that the next process does not have.
        return {**self.__dict__, "_copies": {}}

    def _in_type_of(self, module: nn.Module, values: Any) -> nn.Module:
        """h1, or under a Trainer in true half or double precision a copy of it in the type of its inputs."""
        # Inputs may come in lists and dictionaries; nearly all come by themselves, which costs less to see.
        leaves = chain.from_iterable([value] if isinstance(value, Tensor) else tree_leaves(value) for value in values)
        given = (value for value in leaves if isinstance(value, Tensor))
        wanted = next((value.dtype for value in given if value.is_floating_point()), None)
        first = next((tensor for tensor in module.parameters() if tensor.is_floating_point()), None)
        if wanted is None or first is None or torch.is_autocast_enabled(first.device.type):
            return module
        if first.dtype in (wanted, torch.float64):
            # A double h1 is one on purpose; its answers are not made less exact behind its owner's back.
            return module
        if wanted not in self._copies:
            # Validation runs in inference mode; weights made there could not be used in training afterwards.
            with torch.inference_mode(False):
                self._copies[wanted] = copied(module).to(wanted)
        return self._copies[wanted]

    @property
    def answers_whole(self) -> bool:
        """Whether h1 can be asked by itself; a LightningModule without forward and with several networks can't."""
        return not (self.scores is None and isinstance(self.h1, nn.Module) and lacks_forward(self.h1))

    def check_answers(self) -> None:
        """Refuse a LightningModule that cannot be called and does not say what answers instead.

        Raises:
            TypeError: h1 has no forward and several networks.
        """
        if not self.answers_whole:
            raise TypeError(
                f"h1, a {class_of(self.h1)}, has no forward and more than one network, so it is not clear what "
                f"answers. Give h1_scores='name' (scores='name' for a Reference) of the submodule, or the part "
                f"that answers, h1=old_model.net"
            )

    def _checked_scores(self, scores: str | Callable[[Any], Any] | None) -> str | Callable[[Any], Any] | None:
        module = self.h1 if isinstance(self.h1, nn.Module) else None
        if scores is None and module is not None:
            scores = only_network(module)
        if isinstance(scores, str):
            try:
                if module is None:
                    raise AttributeError
                module.get_submodule(scores)
            except AttributeError:
                names = [] if module is None else [name for name, _ in module.named_modules() if name]
                raise ValueError(
                    f"h1_scores={scores!r} names no submodule of h1. Known: {', '.join(map(repr, names))}"
                ) from None
        return scores

    def _check_stored_labels(self) -> None:
        # Here, once: a label outside the map would stop a GPU in the middle of a step, without a word why.
        if self.stored is None or not self.labels_only or self.class_map is None:
            return
        highest = int(self.stored[:].max())
        if highest >= len(self.class_map):
            raise ValueError(
                f"class_map has {len(self.class_map)} entries, one for each class of h1, but h1's stored labels "
                f"go up to {highest}"
            )


def _said(h1: Any) -> str:
    if isinstance(h1, type):
        return f"the class {h1.__name__}"
    return f"a {type(h1).__name__}"
