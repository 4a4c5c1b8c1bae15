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
from bc_lightning._random_numbers import generators_state
from bc_lightning._user_module import class_of, lacks_forward, of_one_kind, only_network
from bc_lightning.batches._model_outputs import inputs_from_batch, scores_from_output, target_from_batch
from bc_lightning.training._state import Compatibility, Position, Scores, Stage
from bc_lightning.training.step._mixtures import Mixture, mixed
from bc_lightning.training.step._refused_steps import GIVE_ITSELF, captures_message, features_message, whole_message
from bc_lightning.training.watching._calls import Asked, Call
from bc_lightning.training.watching._compiling import eager, is_compiling
from bc_lightning.training.watching._loss_watch import LossWatch, is_inside_of_a_mode
from bc_lightning.training.watching._tensors import Members, mapped, place_of, storage_of, tensors_in, version_of

if TYPE_CHECKING:
    from bc_lightning.reference._reference import Reference
    from bc_lightning.training.step._hooks import ModuleCalls

HANDED_OVER = "compatibility_target"
"""Attribute in which a step hands over what it was trained on."""


class Compared(NamedTuple):
    """What a penalty was computed of: the target, and what has changed the scores' size to its, if anything."""

    target: Tensor
    resize: Callable[[Tensor], Tensor] | None


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
        self.rows, self.indices, self.source, self.brought, self.rows_beside = state.run.incoming
        self.first = stage not in state.run.looked_at
        # While h2 is called for another end than the step's own.
        self.aside = False
        self.given_to_h2: Call | None = None
        # Mixtures of this batch's inputs, where they are asked for; what was compared of it, to be mixed alike.
        self.mixture: Mixture | None = None
        self.compared: Compared | None = None
        self.found = state.found_in(stage)
        self.scores: Scores = state.options.scores if self.found is None else self.found.scores
        self.calls: list[Call] = []
        self.asked: list[Asked] = []
        # The numbers by which the watch knows their outputs.
        self.roots: list[int] = []
        # What h1 and who is imitated said of each, by their names.
        self.answers: dict[int, dict[str, Tensor]] = {}
        # How often the scores of each call had been changed in place when h2 answered.
        self.versions: dict[int, int] = {}
        # Calls of forward around the submodule that gives the scores, and which of them is around which call of it.
        self.around: list[Asked] = []
        self.enclosing: dict[int, Asked] = {}
        # Whether one of them was called with gradients.
        self.forward_trained = False
        # Calls of the first of several parts, with what they answered.
        self.begun: list[tuple[Asked, Any]] = []
        self.captured = 0
        # What was penalised already, in a step that optimises by hand: scores, and whether it was a loss of labels.
        self.penalised: list[tuple[Tensor, bool]] = []
        self.trained_unseen = False  # all that gives the scores, in such a step, while no call of it was seen
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
        self.target_place = place_of(self._target) if isinstance(self._target, Tensor) else None
        # Noise that a step adds is not in stored outputs.
        stored = state.stored is not None and stage == "train" and not self.compiled
        self._generators = generators_state(self.first) if stored else None
        self._inputs: Any = None
        if state.options.inputs is not None and not state.options.supplies_base:
            self._inputs = inputs_from_batch(batch, state.options.inputs)

    @property
    def network(self) -> nn.Module:
        """h2 as its owner gave it: a plain module is inside of the steps that it lacks."""
        return cast("nn.Module", self.module.model) if self.state.options.supplies_base else self.module

    # -- calls of h2 --------------------------------------------------------------------------------------------

    def to_ask(self, args: tuple[Any, ...], kwargs: dict[str, Any], part: bool) -> Asked:
        """What h1 will be asked: what h2 is given, or a copy where it may be another when h1 is asked."""
        if self.compiled:
            return Asked(args, kwargs, part)
        if self._generators is not None and not self.state.live:
            return Asked(args, kwargs, part, drawn=generators_state(self.first) != self._generators)
        tensors, which = list(tensors_in((args, kwargs))), self.state.options.call
        # Asked when the step has ended.
        late = callable(which) or (isinstance(which, int) and which < 0)
        # Tensors made in inference mode don't count their changes.
        if self.first or self.run.copies_inputs or late or any(tensor.is_inference() for tensor in tensors):
            asked = Asked(mapped(args, _copied), mapped(kwargs, _copied), part, (args, kwargs))
        else:
            asked = Asked(args, kwargs, part, (), tuple(version_of(tensor) for tensor in tensors))
        if self._generators is not None:
            return asked._replace(drawn=generators_state(self.first) != self._generators)
        return asked

    @eager
    def before_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked:
        """Note that a call of h2's forward begins."""
        asked = self.to_ask(args, kwargs, part=False)
        if isinstance(self.scores, str):
            self.around.append(asked)
            self.forward_trained |= torch.is_grad_enabled()
        if self.modules is not None and not self.inside_forward:
            self.modules.remove()
        self.inside_forward += 1
        return asked

    @eager
    def left_forward(self) -> None:
        """Note that it has ended, with an error or without."""
        self.inside_forward -= 1
        if self.modules is not None and not self.inside_forward:
            self.modules.listen()

    @eager
    def after_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, asked: Asked) -> None:
        """Note its output, which has the scores unless a submodule's has."""
        if not isinstance(self.scores, str):
            self.add(asked, Call(args, kwargs, output))

    def compiled_forward(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call h2's forward in a compiled step: traced into its graph, so no more than what a graph can do."""
        asked = Asked(args, kwargs, False)
        if isinstance(self.scores, str):
            self.around.append(asked)
            return forward(*args, **kwargs)
        output = forward(*args, **kwargs)
        self.note(asked, Call(args, kwargs, output))
        return output

    def note(self, asked: Asked, call: Call, root: int | None = None) -> None:
        """Note a call that gives the scores, and the number by which the watch knows its output."""
        self.calls.append(call)
        self.asked.append(asked)
        self.roots.append(self.captured if root is None else root)
        self.captured += 1

    def begin(self, asked: Asked, call: Call) -> None:
        """Note a call of the first of several parts."""
        self.begun.append((asked, call.output))

    def add(self, asked: Asked, call: Call) -> None:
        """Note a call, and ask h1 at once if it is the one that counts: the step may change its input afterwards."""
        self.note(asked, call)
        if self.compiled:
            return
        if self.inside_forward and self.around:
            self.enclosing[len(self.calls) - 1] = self.around[-1]
        if self.stage != "train" and isinstance(self._target, Tensor):
            # What is done to it in place afterwards, for a metric, is not what h2 answered for.
            self._target = self._target.clone()
        if self.state.notice is not None:
            self.state.notice(self, asked.args, asked.kwargs)
        # Looked at now: what the step changes in place afterwards, h2 was not given.
        closely = self.first or not (self.stage != "train" or self.got_the_batch(call))
        readable, _ = _tried(lambda: self.scores_of(call))
        if readable is not None:
            self.versions[len(self.calls) - 1] = version_of(readable)
        if self._counts_now():
            with self._watch_paused():
                self.answers_to(len(self.calls) - 1)
        if not self.state.options.supplies_base:
            # Last, as every look at a tensor passes through the watch from here on.
            self.follow(call, call.output if readable is None else readable, self.captured - 1, closely)

    def _counts_now(self) -> bool:
        which = self.state.options.call
        number = len(self.calls) - 1
        if not self.state.live:
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
            raise RuntimeError(captures_message(self.module, self.stage, self.scores, len(self.calls)))
        number = which(self.calls) if callable(which) else 0 if which == "first" else int(cast("int", which))
        if not isinstance(number, int) or not -calls <= number < calls:
            raise RuntimeError(
                f"call={which!r} gave {number!r}, but {class_of(self.module)}'s {self.stage} step called h2 {calls} "
                f"times: expected an index from 0 to {calls - 1}."
            )
        return number % calls

    def used(self) -> None:
        """Forget the calls: a step that optimises by hand may call h2 anew for another loss."""
        self.given_to_h2 = self.calls[0] if self.calls else None
        self.calls, self.asked, self.roots, self.around, self.begun = [], [], [], [], []
        self.enclosing = {}
        self.answers, self.versions, self.watch = {}, {}, None

    # -- h1 -----------------------------------------------------------------------------------------------------

    def answers_to(self, number: int) -> dict[str, Tensor]:
        """The own scores of h1 and of who is imitated for a call of h2, by their names, where asked; once."""
        if number in self.answers:
            return self.answers[number]
        asked, look = self._what_to_ask(number), self.first and not self.compiled
        tensors = list(tensors_in(asked[:2]))
        kept = [tensor.clone() for tensor in tensors] if look else []
        device = tensors[0].device if tensors else torch.device("cpu")
        changed = asked.is_changed
        if self.state.options.mixes and self.stage == "train" and not self.state.lambda_is_zero:
            # Before h1, which may change what it is given.
            self.mixture = mixed(asked, self._own_of(number, asked), *self._mixed_before())
        with self.random_numbers_kept(device):
            self.answers[number] = {
                name: reference.ask(asked.args, asked.kwargs, asked.part, self._networks_of(reference, asked))
                for name, reference in self.state.live.items()
            }
        if changed or asked.is_changed:
            raise RuntimeError(
                f"{'h2 or its step' if changed else 'h1'} has changed in place what h2 was called with, and did not on "
                f"the first batch of this stage, so that h1 and h2 see other values. Let it work on a copy, "
                f"x = x.clone()."
            )
        if look:
            # Whether h1 has changed what it was given, or h2 what it was: one of them gets a copy from now on.
            pairs = [*zip(tensors, kept, strict=True), *zip(tensors_in(asked.given), kept, strict=False)]
            self.run.copies_inputs |= not all(torch.equal(one, other) for one, other in pairs)
        return self.answers[number]

    @property
    def moment(self) -> Any:
        """Tells this batch from the others of the run; the same where it comes again (LBFGS, two losses). Or None."""
        trainer = cast("Any", self.module)._trainer
        return None if self.position.batch_idx is None or trainer is None else (trainer.current_epoch, self.position)

    def _mixed_before(self) -> tuple[int, int]:
        """How many batches this training has mixed before this one, and which process works on it."""
        state, trainer = self.state, cast("Any", self.module)._trainer
        if self.moment is None or self.moment != self.run.mixed_at:
            self.run.mixed_at = self.moment
            state.batches_mixed += 1
        return state.batches_mixed - 1, 0 if trainer is None else trainer.global_rank

    @contextmanager
    def _watch_paused(self) -> Iterator[None]:
        if self.watch is not None:
            self.watch.paused = True
        try:
            yield
        finally:
            if self.watch is not None:
                self.watch.paused = False

    def _networks_of(self, reference: Reference, asked: Asked) -> tuple[str, ...]:
        """The parts of h1 that answer, where h2's were found in the steps and h1 was made as h2 is.

        Raises:
            ValueError: h1 has no forward, and what h2's step does between its parts is not known to it.
        """
        found, h1 = self.found, reference.h1
        if found is None or self._inputs is not None:
            return ()
        alike = of_one_kind(h1, self.module) and set(found.names) <= {name for name, _ in h1.named_modules()}
        if reference.scores == found.scores and alike and found.exact:
            return found.names
        if reference.scores is not None:
            # A part of an h1 that can't be called whole would be given what is meant for the whole.
            is_part = isinstance(reference.scores, str) and lacks_forward(h1) and only_network(h1) is None
            if is_part and len(found.names) > 1:
                raise ValueError(features_message(found.scores))
            return ()
        if alike and found.exact:
            return found.names
        if alike and lacks_forward(h1):
            raise ValueError(features_message(found.scores))
        return ()

    def given_before(self, number: int) -> tuple[Asked, ...]:
        """What a call of h2 was given, and what the calls around it and of parts before it were."""
        return (self.asked[number], *self.around, *self.enclosing.values(), *(asked for asked, _ in self.begun))

    def _own_of(self, number: int, asked: Asked) -> Asked:
        """What h2 itself was called with, where h1 is asked something else."""
        if self._inputs is None:
            return asked
        try:
            return self._what_h2_got(number)
        except ValueError:
            raise ValueError(whole_message(str(self.scores))) from None

    def _what_to_ask(self, number: int) -> Asked:
        """What h2 was asked is what h1 is asked, unless the caller says otherwise with `inputs`."""
        return self._what_h2_got(number) if self._inputs is None else self.to_ask((self._inputs,), {}, part=False)

    def _what_h2_got(self, number: int) -> Asked:
        if not isinstance(self.scores, str):
            return self.asked[number]
        if number in self.enclosing:
            return self.enclosing[number]
        if self.compiled and len(self.around) == len(self.calls):
            return self.around[number]
        if self.found is not None and self.begun:
            return self._what_the_first_part_got(number)
        call = self.calls[number]
        if self.first and self.modules is not None:
            self.modules.lead(number)
            if number in self.enclosing:
                return self.enclosing[number]
            self.modules.check_not_features(call)
        elif not self.got_the_batch(call) and _any_trains(call):
            raise ValueError(features_message(self.scores, _first_shape(call)))
        return self.asked[number]

    def _what_the_first_part_got(self, number: int) -> Asked:
        """Of a module of parts: what the first of those got that lead to a call of the last."""
        if len(self.begun) == 1:
            return self.begun[0][0]._replace(part=False)
        given = {storage_of(tensor) for tensor in tensors_in(self.calls[number][:2])}
        fitting = [
            asked for asked, output in self.begun if given & {storage_of(tensor) for tensor in tensors_in(output)}
        ]
        if len(fitting) != 1:
            # Called several times, and something stands between the parts.
            raise ValueError(features_message(str(self.scores), _first_shape(self.calls[number])))
        return fitting[0]._replace(part=False)

    @contextmanager
    def random_numbers_kept(self, device: torch.device) -> Iterator[None]:
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
            self._got_the_batch[id(call.output)] = self.members.given_to(call.args, call.kwargs, self.size)
        return self._got_the_batch[id(call.output)]

    @property
    def size(self) -> int:
        """Number of instances by the batch's target, or -1."""
        return next((len(tensor) for tensor in tensors_in(self._target) if tensor.ndim), -1)

    def follow(self, call: Call, output: Any, root: int, closely: bool = True) -> None:
        """Watch what becomes of a call's output, from here to the end of the step."""
        watch = self.watch
        if watch is None:
            if is_inside_of_a_mode(self._depth):
                return  # it is the user's, and leaves the stack before ours would
            watch = LossWatch(self.members.unchanged, self.size, self.target_storage, closely)
        watch.closely |= closely
        watch.follow(output, root, given=(call.args, call.kwargs))
        if self.watch is None:
            self.watch = watch
            # Last, as our own looks at tensors would pass through it.
            watch.__enter__()  # type: ignore[no-untyped-call]

    def stop_watching(self) -> None:
        """End the watching; what was seen is kept."""
        if self.watch is not None:
            # Of several h1s each has a watch, and the last that began leaves the stack first.
            self.watch.paused = True
        if self.watch is not None and torch._C._len_torch_function_stack() > self._depth:
            self.watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def check_unchanged(self, number: int, scores: Tensor) -> None:
        """Refuse scores that the step has changed in place since h2 has answered: h1's are not changed with them.

        Raises:
            RuntimeError: it has.
        """
        written = self.watch is not None and self.roots[number] in self.watch.overwritten
        if written or version_of(scores) != self.versions.get(number, version_of(scores)):
            raise RuntimeError(
                f"{class_of(self.module)}'s {self.stage} step changes h2's scores in place after h2 has answered, so "
                f"what is compared with h1's is no more what h2 answered. Make a new tensor: logits = logits * scale "
                f"instead of logits *= scale."
            )

    def check_stored(self, number: int) -> None:
        """Refuse inputs that a step has made with random numbers, of which h1's stored outputs know nothing.

        Raises:
            ValueError: it has.
        """
        if self._generators is None or self.got_the_batch(self.calls[number]):
            return
        asked = self._what_to_ask(number)
        if asked.drawn and not self.members.given_to(asked.args, asked.kwargs, self.size):
            raise ValueError(
                f"{class_of(self.module)}'s train step draws random numbers and calls h2 with something else than the "
                f"batch's input (noise or augmentation in the step), for which {self.state.stored}'s stored outputs "
                f"hold no answer. Give {self.state.stored} itself: {GIVE_ITSELF[str(self.state.stored)]}."
            )

    def resized(self, number: int, scores: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """h2's scores in the size that the step has interpolated them to, and what does so with h1's; else as they are.

        The masks of a segmentation are larger than the scores that many networks give.
        """
        if self.watch is None or number >= len(self.roots) or callable(self.state.options.scores):
            return scores, None
        root = self.roots[number]
        used = [loss.input for loss in self.watch.losses_of(root)]
        found = [each for each in self.watch.resized if each.root == root]
        found = [each for each in found if any(each.result is given for given in used)] or found
        if not found or self._target is None or self._target.shape[1:] != found[-1].result.shape[2:]:
            return scores, None
        return found[-1].result, found[-1].again

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


def _any_trains(call: Call) -> bool:
    return any(tensor.requires_grad for tensor in tensors_in(call[:2]))


def _first_shape(call: Call) -> tuple[int, ...] | None:
    return next((tuple(tensor.shape) for tensor in tensors_in(call[:2])), None)


def _tried(find: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return find(), None
    except (TypeError, ValueError) as error:
        return None, error
