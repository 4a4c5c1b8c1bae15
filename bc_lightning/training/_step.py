"""One step of the user's module while it runs: the calls of h2, what h1 is asked, what the step was trained on.

The submodule that gives the scores carries a hook for the time of the step and no longer, so nothing of ours is on it
when anything is saved, copied or exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from bc_core._random_numbers import python_and_numpy_kept, python_and_numpy_state
from bc_lightning._user_module import class_of, lacks_forward, of_one_kind, only_network
from bc_lightning.batches._model_outputs import inputs_from_batch, scores_from_output, target_from_batch
from bc_lightning.training._loss_watch import LossWatch
from bc_lightning.training._state import Compatibility, Position, Scores, Stage
from bc_lightning.training._tensors import Members, mapped, storage_of, tensors_in

if TYPE_CHECKING:
    from bc_lightning.training._hooks import ModuleCalls

HANDED_OVER = "compatibility_target"
"""Attribute in which a step hands over what it was trained on."""


class Call(NamedTuple):
    """One call of h2 inside a step, as ``call=function`` gets them: what it was given and what it answered.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        output: what h2, or its submodule that gives the scores, returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class Asked(NamedTuple):
    """What h1 is asked about one call of h2, with the values that h2 was given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # Whether these are arguments of the submodule that gives the scores.
    part: bool
    # h2's own arguments, of which the others may be copies.
    given: tuple[Any, ...] = ()


def is_compiling() -> bool:
    """Whether this is being traced into a graph, where neither hooks nor memory can be looked at."""
    return bool(torch.compiler.is_compiling())


def in_backward() -> bool:
    """Whether a backward pass runs, which calls h2 again where activations are recomputed."""
    return not is_compiling() and torch._C._current_graph_task_id() != -1


class Step:
    """What one batch captures, from the beginning of the user's step to its end."""

    def __init__(self, state: Compatibility, module: nn.Module, stage: Stage, batch: Any, position: Position) -> None:
        self.state = state
        self.module = module
        self.stage: Stage = stage
        self.batch = batch
        # As it was given: a step may pop its labels or ids out of a mapping.
        self.batch_before = dict(batch) if isinstance(batch, dict) else batch
        self.position = position
        self.run = state.run
        self.rows, self.indices, self.source, self.brought = state.run.incoming
        self.first = stage not in state.run.looked_at
        self.found = state.found_in(stage)
        self.scores: Scores = state.options.scores if self.found is None else self.found.scores
        self.calls: list[Call] = []
        self.asked: list[Asked] = []
        # The numbers by which the watch knows their outputs.
        self.roots: list[int] = []
        self.answers: dict[int, Tensor] = {}
        # Calls of forward around the submodule that gives the scores.
        self.around: list[Asked] = []
        self.captured = 0
        # On a first batch: the submodules that the step calls.
        self.modules: ModuleCalls | None = None
        self.inside_forward = 0
        self.watch: LossWatch | None = None
        self._got_the_batch: dict[int, bool] = {}
        # A compiled step is a graph: what it computes can't be followed, only looked at when it has ended.
        self.compiler = (getattr(module, "_compiler_ctx", None) or {}).get("dynamo_ctx")
        self.compiled = self.compiler is not None or is_compiling()
        self.members = Members(batch)
        self._depth = torch._C._len_torch_function_stack()
        # Read before the step, which may pop its labels out of the batch.
        self._target, self._no_target = _tried(lambda: target_from_batch(batch, state.options.target))
        self.target_storage = storage_of(self._target) if isinstance(self._target, Tensor) else None
        self._inputs: Any = None
        if state.options.inputs is not None and not state.options.supplies_base:
            self._inputs = inputs_from_batch(batch, state.options.inputs)

    # -- calls of h2 --------------------------------------------------------------------------------------------

    def to_ask(self, args: tuple[Any, ...], kwargs: dict[str, Any], part: bool) -> Asked:
        """What h1 will be asked: what h2 is given, or a copy where one of them changes it in place."""
        if (self.first or self.run.copies_inputs) and not self.compiled:
            return Asked(mapped(args, _copied), mapped(kwargs, _copied), part, (args, kwargs))
        return Asked(args, kwargs, part)

    def forward(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call h2's forward; its output has the scores, unless a submodule's has."""
        if self.compiled:
            return self._compiled_forward(forward, args, kwargs)
        asked = self.to_ask(args, kwargs, part=False)
        if isinstance(self.scores, str):
            self.around.append(asked)
        self.inside_forward += 1
        try:
            output = forward(*args, **kwargs)
        finally:
            self.inside_forward -= 1
        if not isinstance(self.scores, str):
            self.add(Call(args, kwargs, output), asked)
        return output

    def _compiled_forward(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Traced into the graph of the user's step, so no more than what a graph can do.
        asked = Asked(args, kwargs, False)
        if isinstance(self.scores, str):
            self.around.append(asked)
            return forward(*args, **kwargs)
        output = forward(*args, **kwargs)
        self._note(Call(args, kwargs, output), asked)
        return output

    def _note(self, call: Call, asked: Asked) -> None:
        self.calls.append(call)
        self.asked.append(asked)
        self.roots.append(self.captured)
        self.captured += 1

    def add(self, call: Call, asked: Asked) -> None:
        """Note a call, and ask h1 at once if it is the one that counts: the step may change its input afterwards."""
        self._note(call, asked)
        if self.compiled:
            return
        if self.stage != "train" and isinstance(self._target, Tensor):
            # What is done to it in place afterwards, for a metric, is not what h2 answered for.
            self._target = self._target.clone()
        if self.state.notice is not None:
            self.state.notice(self, asked.args, asked.kwargs)
        # Looked at now: what the step changes in place afterwards, h2 was not given.
        given_the_batch = self.stage != "train" or self.got_the_batch(call)
        if self.first or not given_the_batch:
            readable, _ = _tried(lambda: self.scores_of(call))
            self.follow(call, call.output if readable is None else readable, self.captured - 1)
        if self._counts_now():
            with self._watch_paused():
                self.answer(len(self.calls) - 1)

    def _counts_now(self) -> bool:
        which = self.state.options.call
        number = len(self.calls) - 1
        if self.state.reference.is_stored:
            return False
        return number == which if isinstance(which, int) else number == 0 and not callable(which)

    def counted(self) -> int:
        """Which of the calls counts: the only one, or the one that ``call=`` names.

        Raises:
            RuntimeError: none did, or several and nobody said which.
        """
        which, calls = self.state.options.call, len(self.calls)
        if calls == 1:
            return 0
        if calls == 0 or which is None:
            raise RuntimeError(captures_message(self))
        number = which(self.calls) if callable(which) else 0 if which == "first" else int(cast("int", which))
        if not isinstance(number, int) or not -calls <= number < calls:
            raise RuntimeError(
                f"call={which!r} gave {number!r}, but {class_of(self.module)}'s {self.stage} step called h2 {calls} "
                f"times: expected an index from 0 to {calls - 1}."
            )
        return number % calls

    def used(self) -> None:
        """Forget the calls: a step that optimises by hand may call h2 anew for another loss."""
        self.calls, self.asked, self.roots, self.around, self.answers, self.watch = [], [], [], [], {}, None

    # -- h1 -----------------------------------------------------------------------------------------------------

    def answer(self, number: int) -> Tensor:
        """h1's own scores for a call of h2; asked once."""
        if number in self.answers:
            return self.answers[number]
        asked, look = self._what_to_ask(number), self.first and not self.compiled
        tensors = list(tensors_in(asked[:2]))
        kept = [tensor.clone() for tensor in tensors] if look else []
        device = tensors[0].device if tensors else torch.device("cpu")
        with self._random_numbers_kept(device):
            self.answers[number] = self.state.reference.ask(
                asked.args, asked.kwargs, asked.part, self._networks_of_h1(asked)
            )
        if look:
            # Whether h1 has changed what it was given, or h2 what it was: one of them gets a copy from now on.
            pairs = [*zip(tensors, kept, strict=True), *zip(tensors_in(asked.given), kept, strict=False)]
            self.run.copies_inputs |= not all(torch.equal(one, other) for one, other in pairs)
        return self.answers[number]

    @contextmanager
    def _watch_paused(self) -> Iterator[None]:
        if self.watch is not None:
            self.watch.paused = True
        try:
            yield
        finally:
            if self.watch is not None:
                self.watch.paused = False

    def _networks_of_h1(self, asked: Asked) -> tuple[str, ...]:
        """The parts of h1 that answer, where h2's were found in the steps and h1 was made as h2 is.

        Raises:
            ValueError: h1 has no forward, and what h2's step does between its parts is not known to it.
        """
        reference, found, h1 = self.state.reference, self.found, self.state.reference.h1
        if found is None or self._inputs is not None:
            return ()
        if reference.scores is not None:
            # A part of an h1 that can't be called whole would be given what is meant for the whole.
            is_part = isinstance(reference.scores, str) and lacks_forward(h1) and only_network(h1) is None
            if is_part and len(found.names) > 1:
                raise ValueError(features_message(self, found.scores))
            return ()
        alike = of_one_kind(h1, self.module) and set(found.names) <= {name for name, _ in h1.named_modules()}
        if alike and found.exact:
            return found.names
        if alike and lacks_forward(h1):
            raise ValueError(features_message(self, found.scores))
        return ()

    def _what_to_ask(self, number: int) -> Asked:
        """What h2 was asked is what h1 is asked, unless the caller says otherwise with `inputs`."""
        if self._inputs is not None:
            return self.to_ask((self._inputs,), {}, part=False)
        if not isinstance(self.scores, str):
            return self.asked[number]
        if len(self.around) == 1:
            return self.around[0]
        if self.first and self.modules is not None:
            self.modules.check_not_features(self.calls[number])
        return self.asked[number]

    @contextmanager
    def _random_numbers_kept(self, device: torch.device) -> Iterator[None]:
        """An h1 that draws random numbers must not shift those that h2 draws next."""
        before = python_and_numpy_state() if self.first and not self.run.h1_draws else None
        cpu = torch.get_rng_state()
        accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        try:
            if self.run.h1_draws or before is not None:
                with python_and_numpy_kept():
                    yield
                    self.run.h1_draws |= before is not None and before != python_and_numpy_state()
            else:
                yield
        finally:
            torch.set_rng_state(cpu)
            if accelerator is not None:
                torch.cuda.set_rng_state(accelerator, device)

    # -- what the step was trained on ---------------------------------------------------------------------------

    def got_the_batch(self, call: Call) -> bool:
        """Whether h2 was given the batch's own input; in a compiled step this is looked at when it has ended."""
        if id(call.output) not in self._got_the_batch:
            self._got_the_batch[id(call.output)] = self.members.given_to(call.args, call.kwargs)
        return self._got_the_batch[id(call.output)]

    @property
    def size(self) -> int:
        """Number of instances by the batch's target, or -1."""
        return next((len(tensor) for tensor in tensors_in(self._target) if tensor.ndim), -1)

    def follow(self, call: Call, output: Any, root: int) -> None:
        """Watch what becomes of a call's output, from here to the end of the step."""
        if self.watch is None:
            if torch._C._len_torch_function_stack() != self._depth:
                # Inside of a mode of the user's, which leaves the stack before ours would.
                return
            self.watch = LossWatch(self.members.unchanged, self.size, self.target_storage)
            self.watch.__enter__()  # type: ignore[no-untyped-call]
        self.watch.follow(output, root, given=(call.args, call.kwargs))

    def take(self, call: Call, asked: Asked, root: int) -> None:
        """Take a call that was found when the step had ended for the one that gives the scores."""
        self.calls.append(call)
        self.asked.append(asked)
        self.roots.append(root)
        self.captured += 1

    def stop_watching(self) -> None:
        """End the watching; what was seen is kept."""
        if self.watch is not None and torch._C._len_torch_function_stack() > self._depth:
            self.watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def scores_of(self, call: Call) -> Tensor:
        """h2's class scores in the output of a call, as they are."""
        pick = self.state.options.scores
        if callable(pick):
            return scores_from_output(pick(call.output), model="scores(h2's output)")
        return scores_from_output(call.output, model="h2")

    @property
    def handed_over(self) -> Any:
        """What the step said that it was trained on, or None."""
        return self.module.__dict__.get(HANDED_OVER)

    @property
    def batch_target(self) -> Tensor | None:
        """The target in the batch as the step got it, or None where there is none to be found."""
        return cast("Tensor | None", self._target)

    def require_target(self) -> Tensor:
        """The same, or the error that says why there is none."""
        if self._no_target is not None:
            raise self._no_target
        return cast("Tensor", self._target)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _tried(find: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return find(), None
    except (TypeError, ValueError) as error:
        return None, error


def captures_message(step: Step) -> str:
    """Why the calls of h2 in a step don't say which of its outputs is compared with h1's."""
    module, scores = step.module, step.scores
    source = f"submodule {scores!r}" if isinstance(scores, str) else "forward"
    children = [name for name, _ in module.named_children()]
    known = f"Its submodules: {', '.join(map(repr, children))}." if children else "It has no submodules."
    if step.calls:
        return (
            f"{class_of(module)}'s {step.stage} step called {source} {len(step.calls)} times; it has to be called "
            f"exactly once, for its output is what is compared with h1. Say which call counts with call='first', an "
            f"index or a function of the calls; or which submodule gives the class scores with scores='name'; or leave "
            f"this stage out with stages=. {known}"
        )
    return (
        f"{class_of(module)}'s {step.stage} step did not call {source}; it has to be called exactly once, for its "
        f"output is what is compared with h1. Say which submodule gives the class scores with scores='name' (dots "
        f"reach deeper), or leave this stage out with stages=. A step that calls net.forward(x) must call net(x): only "
        f"a call can be seen. {known}"
    )


def features_message(step: Step, name: str, shape: tuple[int, ...] | None = None) -> str:
    """Why it is not known what h1 is asked where h2's step computes with several of its parts."""
    what = "something" if shape is None else f"a tensor of shape {shape}"
    return (
        f"Submodule {name!r} was called with {what} that is no part of the batch but computed by another part of h2, "
        f"so it is not clear what h1 gets. Give the module a forward that does all of it; or say what h1 is asked, "
        f"inputs=0 (the batch's first element), inputs='key' or inputs=lambda batch: preprocess(batch[0]), with "
        f"scores={name!r} and an h1 that answers for it, such as h1=lambda x: old.head(old.body(x)). A step that calls "
        f"net.forward(x) must call net(x): only a call can be seen."
    )
