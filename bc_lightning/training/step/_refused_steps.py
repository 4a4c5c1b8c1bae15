"""What to say of a step whose calls of h2 don't tell which output counts, or what h1 is asked."""

from __future__ import annotations

from torch import nn

from bc_core.losses._blends import H1, PLAIN, TEACHER
from bc_lightning._user_module import class_of, lacks_forward

GIVE_ITSELF = {H1: "h1=old_model", TEACHER: "teacher=model", PLAIN: "plain=model"}


def captures_message(module: nn.Module, stage: str, scores: object, calls: int) -> str:
    """Why the calls of h2 in a step, so many, don't say which of its outputs is compared with h1's."""
    source = f"submodule {scores!r}" if isinstance(scores, str) else "forward"
    children = [name for name, _ in module.named_children()]
    known = f"Its submodules: {', '.join(map(repr, children))}." if children else "It has no submodules."
    if calls:
        return (
            f"{class_of(module)}'s {stage} step called {source} {calls} times; it has to be called "
            f"exactly once, for its output is what is compared with h1. Say which call counts with call='first', an "
            f"index or a function of the calls; or which submodule gives the class scores with scores='name'; or leave "
            f"this stage out with stages=. {known}"
        )
    return (
        f"{class_of(module)}'s {stage} step did not call {source}; it has to be called exactly once, for its "
        f"output is what is compared with h1. Say which submodule gives the class scores with scores='name' (dots "
        f"reach deeper), or leave this stage out with stages=. A step that calls net.forward(x) must call net(x): only "
        f"a call can be seen. {known}"
    )


def features_message(name: str, shape: tuple[int, ...] | None = None) -> str:
    """Why it is not known what h1 is asked where h2's step computes with several of its parts."""
    what = "something" if shape is None else f"a tensor of shape {shape}"
    return (
        f"Submodule {name!r} was called with {what} that is no part of the batch but computed by another part of h2, "
        f"so it is not clear what h1 gets. Give the module a forward that does all of it; or say what h1 is asked, "
        f"inputs=0 (the batch's first element), inputs='key' or inputs=lambda batch: preprocess(batch[0]), with "
        f"scores={name!r} and an h1 that answers for it, such as h1=lambda x: old.head(old.body(x)). A step that calls "
        f"net.forward(x) must call net(x): only a call can be seen."
    )


def no_penalty_message(module: nn.Module) -> str:
    """Why a step that optimises by hand has not trained what it called h2 for."""
    return (
        f"{class_of(module)}.training_step optimises manually and never called self.manual_backward(loss) after it "
        f"called h2, so the penalty was added to nothing. Use self.manual_backward(loss) instead of loss.backward(), "
        f"and call='first' where a later call of h2 is for something else."
    )


def found_first_message(module: nn.Module, found: str, forward: bool) -> str:
    """Why the first loss of a step that optimises by hand does not tell which scores are compared with h1's."""
    other, remedy = (
        ("its forward is called after it", ", or scores=lambda output: output for what forward returns")
        if forward
        else ("a later loss of labels is of other scores of the same shape", "")
    )
    return (
        f"{class_of(module)}.training_step calls self.manual_backward for a loss of submodule {found!r} first, and "
        f"{other}, so it can't be told which of them gives the scores that are compared with h1's. Say it: "
        f"scores={found!r} or another submodule's name{remedy}."
    )


def found_at_times_message(module: nn.Module, found: str) -> str:
    """Why a step that calls what was found to give the scores on some batches alone has to say what gives them."""
    remedy = "" if lacks_forward(module) else ", or scores=lambda output: output for what forward returns"
    return (
        f"{class_of(module)}.training_step calls submodule {found!r}, which was found to give the scores, on some "
        f"batches and not on others, so it can't be told whether it is that which is compared with h1. Say it: "
        f"scores={found!r} or another submodule's name{remedy}."
    )


def whole_message(name: str) -> str:
    """Why h2 can't be asked about inputs without labels where its step computes with several of its parts."""
    return (
        f"Submodule {name!r} is called with what another part of h2 computes, so it is not known how h2 answers for "
        f"other inputs than the batch's: unlabelled= needs a module whose forward does all of it, and whose step calls "
        f"that, self(x)."
    )


def whole_graph_message(module: nn.Module, stage: str) -> str:
    """Why a part of a step that calls h2 can't be compiled with ``fullgraph=True``."""
    return (
        f"{class_of(module)}'s {stage} step calls h2 in a function that is compiled with fullgraph=True, and "
        f"h1 is asked when h2 is called, which is no part of that graph. Leave out fullgraph=True, so that the graph "
        f"may break there."
    )
