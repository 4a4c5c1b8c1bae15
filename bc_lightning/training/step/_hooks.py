"""Hooks on the submodules of h2 for the time of one step: which of them it calls, with what, and what they answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from bc_lightning.training._state import Found
from bc_lightning.training.step._refused_steps import features_message, found_first_message
from bc_lightning.training.step._step import Step
from bc_lightning.training.watching._calls import Asked, Call
from bc_lightning.training.watching._compiling import eager, in_backward
from bc_lightning.training.watching._loss_watch import LossWatch
from bc_lightning.training.watching._tensors import has_label_loss, leads_to, tensors_in


class ModuleCalls:
    """On a stage's first batch: the submodules that the step itself calls, in order, with what they were given."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._depth = 0
        self.names: list[str] = []
        self.calls: list[Call] = []
        self.asked: list[Asked] = []
        self.answers: list[list[Tensor]] = []
        self._open: list[Asked] = []
        self._handles: list[Any] = []
        self._own: dict[str, nn.Module] = {}
        self.listen()

    def listen(self) -> None:
        """Begin, or go on after h2's forward, in which nothing is to be found: a compiled one stays one graph."""
        self._own = dict(_own_modules(self._step.module))
        for name, module in self._own.items():
            before, after = functools.partial(self._before, name), functools.partial(self._after, name)
            self._handles += _listen(module, before, after, always=True)

    def remove(self) -> None:
        """Leave the submodules as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._own = [], {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleCalls:
        return self

    @eager
    def _before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not self._own.get(name):
            _let_go(module, self)
            return
        if self._step.aside:
            return
        if self._depth == 0:
            self._open.append(self._step.to_ask(args, kwargs, part=True))
        self._depth += 1

    @eager
    def _after(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if module is not self._own.get(name):
            _let_go(module, self)
            return
        if self._step.aside:
            return
        self._depth -= 1
        if self._depth or not self._open:
            return
        asked = self._open.pop()
        if next(module.parameters(), None) is None:
            return
        self.names.append(name)
        # As it was when the submodule answered: what comes after may change it in place.
        self.answers.append([tensor.detach().clone() for tensor in tensors_in(output)])
        self.calls.append(Call(args, kwargs, output))
        self.asked.append(asked)
        if not callable(self._step.scores) and not self._step.captured:
            self._step.follow(self.calls[-1], output, _root(len(self.calls) - 1))

    def check_not_features(self, call: Call) -> None:
        """Refuse to give h1 what h2 has computed: an inner submodule may get features, which mean nothing to h1.

        Raises:
            ValueError: the submodule was called with something that another part of h2 has computed.
        """
        step = self._step
        given = list(tensors_in((call.args, call.kwargs)))
        if not given or step.got_the_batch(call):
            return
        others = [name for name, other in zip(self.names, self.calls, strict=True) if other.output is not call.output]
        if not any(tensor.requires_grad for tensor in given) and not others:
            return
        raise ValueError(features_message(str(step.scores), tuple(given[0].shape)))

    def find(self, loss: Tensor | None = None) -> str | None:
        """The submodule that gives the scores, if what the step did with the outputs leaves no doubt.

        Args:
            loss: the one that is optimised by hand where the step has not ended: the scores' may be yet to come.
        """
        watch, size = self._step.watch, self._step.size
        if loss is not None and watch is not None and not self._is_of_labels(watch):
            return None
        candidates = [
            number
            for number, call in enumerate(self.calls)
            if self.names.count(self.names[number]) == 1 and self._gives_scores(call, size)
        ]
        if watch is not None and watch.losses:
            candidates = [number for number in candidates if watch.losses_of(_root(number))]
            if loss is not None and len(candidates) > 1:
                candidates = [each for each in candidates if leads_to(self._step.scores_of(self.calls[each]), loss)]
        else:
            # No loss tells, so there must be nothing else: one of several may be an encoder.
            points = {} if watch is None else watch.points
            candidates = [number for number in candidates if len(self.calls) == 1 and _root(number) not in points]
        if len(candidates) != 1:
            return None
        number = candidates[0]
        before, exact = self._before_it(self.calls[number], self.asked[number])
        found = Found((*(self.names[each] for each in before), self.names[number]), exact)
        self._step.found = self._step.state.found[self._step.stage] = found
        self._step.scores = found.scores
        self._step.note(self.asked[number], self.calls[number], _root(number))
        if before:
            self._step.enclosing[0] = self.asked[before[0]]._replace(part=False)
        return found.scores

    def _is_of_labels(self, watch: LossWatch) -> bool:
        """Whether the batch's target, or what the step has handed over, has met something of h2 so far."""
        target = self._step.batch_target
        if target is None or self._step.handed_over is not None or watch.met_labels:
            return True
        return any(torch.equal(seen.target, target) for seen in watch.losses)

    def check_found_first(self, loss: Tensor | None = None) -> None:
        """Refuse what was found by the first of several losses, each optimised by hand, where a later one may be it.

        Args:
            loss: a later loss; without one the step has ended.

        Raises:
            RuntimeError: the step has called forward since, or has a loss of labels of other scores of one shape.
        """
        step = self._step
        if step.found is None or step.state.options.scores is not None:
            return
        own = self.calls[self.names.index(step.found.names[-1])]
        rivals = [call for call in self.calls if call is not own and self._gives_scores(call, step.size)]
        later = loss is not None and any(
            leads_to(scores, loss) and has_label_loss(loss, scores)
            for scores in map(step.scores_of, rivals)
            if scores.requires_grad and scores.shape == step.scores_of(own).shape
        )
        if later or step.forward_trained:
            raise RuntimeError(found_first_message(step.module, step.found.scores, step.forward_trained))

    def lead(self, number: int) -> None:
        """Find the parts that lead to the submodule which was said to give the scores, where no forward is around."""
        step = self._step
        before, exact = self._before_it(step.calls[number], step.asked[number])
        if before:
            step.found = Found((*(self.names[each] for each in before), str(step.scores)), exact)
            step.state.found[step.stage] = step.found
            step.enclosing[number] = self.asked[before[0]]._replace(part=False)

    def _before_it(self, call: Call, asked: Asked) -> tuple[list[int], bool]:
        """The calls that lead from the batch's input to one, each given what the one before has answered."""
        step, path, exact = self._step, list[int](), True
        while not step.got_the_batch(call):
            given = list(tensors_in((call.args, call.kwargs)))
            roots = {None if step.watch is None else step.watch.root_of(tensor) for tensor in given}
            root = roots.pop() if len(roots) == 1 else None
            number = None if root is None else _root(root)
            if number is None or number < 0 or number >= (path[0] if path else len(self.calls)):
                return [], True
            output = self.calls[number].output
            exact &= len(call.args) == 1 and not call.kwargs and call.args[0] is output
            exact = exact and torch.equal(self.answers[number][0], asked.args[0])
            path.insert(0, number)
            call, asked = self.calls[number], self.asked[number]
        return path, exact

    def _gives_scores(self, call: Call, size: int) -> bool:
        try:
            scores = self._step.scores_of(call)
        except (TypeError, ValueError):
            return False
        return scores.is_floating_point() and scores.ndim > 0 and scores.shape[0] == size


def _root(number: int) -> int:
    """By which number the watch knows the output of a submodule, apart from those of the scores; and the reverse."""
    return -1 - number


def _let_go(module: nn.Module, hook: object) -> None:
    """Take our hooks off a copy that the step has made of a submodule while it carried them."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, each in list(hooks.items()):
            if getattr(getattr(each, "func", each), "__self__", None) is hook:
                del hooks[key]


def _own_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Submodules that can carry a hook; not the inside of compiled or scripted ones, which calls don't reach."""
    for name, child in module.named_children():
        waiting = [(name, child)]
        while waiting:
            path, inner = waiting.pop()
            yield path, inner
            compiled = isinstance(inner, torch._dynamo.OptimizedModule) or _own_compiled(inner) is not None
            if not compiled and not isinstance(inner, torch.jit.ScriptModule):
                waiting.extend((f"{path}.{name}", part) for name, part in inner.named_children())


class CallHook:
    """On one submodule of h2 for the time of a step: tells what it was given, as h1 is to be asked, and its answer.

    Args:
        step: the step.
        network: the submodule.
        tell: called with what h1 is to be asked, and the call.
        part: whether the submodule is the one that gives the scores.
    """

    def __init__(self, step: Step, network: nn.Module, tell: Callable[[Asked, Call], None], part: bool) -> None:
        self._step = step
        self._network = network
        self._tell = tell
        self._part = part
        self._asked: list[Asked] = []
        if step.compiled:
            # Traced with the step into its graph.
            self._handles = _listen(network, self._before, self._after, traced=True)
        else:
            self._handles = _listen(network, self._before_eagerly, self._after_eagerly)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not self._network:
            _let_go(module, self)
        elif not in_backward() and not self._step.aside:
            self._asked.append(self._step.to_ask(args, kwargs, self._part))

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if module is not self._network:
            _let_go(module, self)
        elif not in_backward() and not self._step.aside:
            self._tell(self._asked.pop(), Call(args, kwargs, output))

    _before_eagerly, _after_eagerly = eager(_before), eager(_after)

    def remove(self) -> None:
        """Leave the submodule as it was."""
        for handle in self._handles:
            handle.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> CallHook:
        # A copy that the step makes of its network is another network, which is not listened to.
        return self


def _listen(
    module: nn.Module,
    before: Callable[..., Any],
    after: Callable[..., Any],
    *,
    always: bool = False,
    traced: bool = False,
) -> list[Any]:
    """Have calls of a module told; around one that is compiled, as hooks inside would be compiled with it."""
    compiled = _own_compiled(module)
    if compiled is None or traced:
        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True, always_call=always),
        ]
    told = compiled if isinstance(compiled, _ToldCalls) else _ToldCalls(module, compiled)
    return [_Listener(told, before, after)]


def _own_compiled(module: nn.Module) -> Callable[..., Any] | None:
    """What ``module.compile()`` has put in the place of its calls; copies and pickles of a module drop it."""
    return getattr(module, "_compiled_call_impl", None)


class _ToldCalls:
    """In that place, while somebody listens."""

    def __init__(self, module: nn.Module, compiled: Callable[..., Any]) -> None:
        self.module = module
        self.compiled = compiled
        self.listeners: list[_Listener] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for listener in self.listeners:
            listener.before(self.module, args, kwargs)
        output = None
        try:
            output = self.compiled(*args, **kwargs)
            return output
        finally:
            for listener in self.listeners:
                listener.after(self.module, args, kwargs, output)


class _Listener:
    def __init__(self, told: _ToldCalls, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        self.before = before
        self.after = after
        self._told = told
        told.listeners.append(self)
        cast("Any", told.module)._compiled_call_impl = told

    def remove(self) -> None:
        self._told.listeners.remove(self)
        if not self._told.listeners:
            cast("Any", self._told.module)._compiled_call_impl = self._told.compiled
