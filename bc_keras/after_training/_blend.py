"""`blend`: which mixture of both models' answers keeps a promise; `distil`: it in one network."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from bc_core.after_training._blending import How, blend_by, blended, check_setting, settings_of
from bc_core.after_training._results import Blend, Price
from bc_core.after_training._walk import check_order
from bc_core.losses._operations import NumpyOperations
from bc_core.losses._score_scale import ENOUGH_SCORES
from bc_keras._keras_operations import over_classes
from bc_keras.after_training._mixture import asked_about, check_classes, copied
from bc_keras.batches._labels import is_binary
from bc_keras.reference._blend import as_logits
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.training._model import BCModel
from bc_keras.training._preparation import has_own
from bc_keras.training._warm_start import weights_behind
from bc_keras.training.compiled._score_scale import Seen, says_of
from bc_keras.training.data._answers import predict

_TIMES = 5
_ROWS = 1024


class Form(NamedTuple):
    """How the scores of both models are read.

    Attributes:
        binary: whether each score is of an answer of its own, 0 or 1.
        h1_from_logits: whether h1 gives logits; else probabilities.
        from_logits: the same of h2, whose form the blend's scores have.
    """

    binary: bool
    h1_from_logits: bool
    from_logits: bool


def blended_model(
    h1: keras.Model,
    h2: keras.Model,
    how: How = "probability",
    *,
    weight: float | None = None,
    ratio: float | None = None,
    from_logits: bool | None = None,
    h1_from_logits: bool | None = None,
    multilabel: bool = False,
) -> keras.Model:
    """Both models' answers to a batch as one model: their mean, or a gate that takes h2's where it is surer.

    A functional Keras model of copies of h1 and h2, which are frozen, and of operations of Keras alone:
    ``save`` and ``keras.models.load_model`` need nothing of this package. It takes what they take and returns scores of
    h2's form. `blend` chooses one under a promise.

    Args:
        h1: the model in use.
        h2: its update, of the same classes and inputs.
        how: ``"probability"``: the mean of probabilities; ``"logit"``: that of logits; ``"gate"``: h2's answer where
            its largest probability is more than `ratio` times h1's largest, else h1's.
        weight: the share of h1 in a mean, from 0 to 1.
        ratio: how many times surer h2 has to be, above 0.
        from_logits: whether h2 returns logits. Defaults to `None`: what its compiled loss or its last activation says.
        h1_from_logits: the same for h1.
        multilabel: whether each column is a label of its own.

    Returns:
        The model, not compiled.

    Raises:
        TypeError: a model is no Keras model.
        ValueError: a weight or ratio that can't be, models of different classes or inputs, or of unknown ones; scores
            of which nothing says whether they are logits.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import blended_model
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> blend, x = blended_model(h1, h2, weight=0.25), np.ones((2, 4), "float32")
        >>> mean = 0.25 * h1.predict(x, verbose=0) + 0.75 * h2.predict(x, verbose=0)
        >>> bool(np.allclose(blend.predict(x, verbose=0), mean, atol=1e-6))
        True
    """
    other, name = (weight, "weight") if how == "gate" else (ratio, "ratio")
    if other is not None:
        raise ValueError(f"{name} does nothing with how={how!r}. Received: {name}={other!r}.")
    setting = check_setting(how, ratio if how == "gate" else weight)
    _check_models(h1, h2)
    told = []
    for model, given, called in ((h1, h1_from_logits, "h1_from_logits"), (h2, from_logits, "from_logits")):
        said = says_of(model).from_logits if given is None else given
        if said is None:
            raise ValueError(
                f"Whether {'h1' if model is h1 else 'h2'} returns logits or probabilities cannot be told: pass "
                f"{called}=True or False. Received: {called}=None."
            )
        told.append(said)
    form = Form(multilabel or is_binary(_ends_of(h2)[1]), told[0], told[1])
    return _made(h1, h2, how, setting, form)


def blend(
    h1: Any,
    h2: keras.Model,
    data: Any,
    promise: str | Iterable[str],
    *,
    how: How = "probability",
    weight: float | Iterable[float] | None = None,
    ratio: float | Iterable[float] | None = None,
    confidence: float = 0.95,
    batch_size: int | None = None,
    from_logits: bool | None = None,
    h1_from_logits: bool | None = None,
    threshold: float | None = None,
    multilabel: bool | None = None,
) -> Blend:
    """Ask both models and mix their answers, as far towards h1 as a promise asks.

    The architectures may differ; both are run where it is served, at the `price` that is stated. `distil` puts the
    blend into one network.

    ``how="probability"`` is ``weight * p1 + (1 - weight) * p2``, ``"logit"`` the same mean of logits. ``"gate"`` takes
    h2's answer only where h2 is surer: where its largest probability is more than `ratio` times h1's largest, else
    h1's; a larger ratio breaks less. Of the weights or ratios the one is taken that keeps the promise and is the most
    accurate on validation data, in one sequence from h1's side, as in `interpolate`.

    Args:
        h1: the model in use, a Keras model.
        h2: its update, of the same classes and inputs, or a `BCModel`.
        data: validation data, as in `evaluate`, that took no part in the training. Of arrays each model is asked once,
            of other data once for each trial.
        promise: what is to be kept, such as ``"nfr <= 0.5%"``.
        how: how answers are mixed.
        weight: the share of h1, one or several to choose from. Defaults to `None`: 0, 0.05, ..., 1.
        ratio: for a gate; one or several, above 0. Defaults to `None`: 0.1 to 5.
        confidence: of the bounds.
        batch_size: rows at a time, for arrays.
        from_logits: whether h2 returns logits; the blend returns what h2 does. Defaults to `None`: what its compiled
            loss, its last activation or its first answers say.
        h1_from_logits: the same for h1.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`, 0.5.
        multilabel: whether each column of the output is a label of its own.

    Returns:
        The blend (`model`, see `blended_model`), its `weight` or `ratio`, the `trials`, whether the `promise` is met,
        missed or cannot be told, and its `price`. Where nothing keeps it, the nearest.

    Raises:
        TypeError: a model is no Keras model, the data are missing or can be read only once.
        ValueError: a weight outside of 0 to 1, a ratio of 0 or less, models of different classes or inputs.

    Reference:
        Träuble et al., "Backward-Compatible Prediction Updates: A Probabilistic Approach", NeurIPS 2021 (cost ratio).

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import blend
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> x = np.random.default_rng(0).normal(size=(400, 4)).astype("float32")
        >>> y = h1.predict(x, verbose=0).argmax(1)
        >>> found = blend(h1, h2, (x, y), "nfr <= 5%", how="gate")
        >>> found.promise.verdict, found.model.predict(x, verbose=0).shape
        ('met', (400, 3))
    """
    check_order(data)
    settings = settings_of(how, weight, ratio)
    check_classes(h1, h2, "its answers")
    h1 = _plain_h1(h1)
    _check_models(h1, h2)
    if isinstance(h2, BCModel):
        options = h2._compatibility.options
        threshold = options.threshold if threshold is None else threshold
        from_logits = options.from_logits if from_logits is None else from_logits
        h1_from_logits = options.h1_from_logits if h1_from_logits is None else h1_from_logits
        multilabel = options.multilabel if multilabel is None else multilabel
    asked = asked_about(h1, h2, data, batch_size, {"multilabel": multilabel, "threshold": threshold})
    first, second, x = _first_answers(h1, h2, asked)
    binary = bool(multilabel) or is_binary(second)
    form = Form(binary, *(_is_logits(*each) for each in ((h1, first, h1_from_logits), (h2, second, from_logits))))
    answers = _Answers(h1, h2, how, form, keeps=asked._given.data.length is not None)
    reading = {"multilabel": multilabel, "threshold": threshold}
    # A stand-in, which is asked as a model is: a Keras model for each trial would be compiled anew each time.
    trials = asked_about(
        h1,
        answers,
        data,
        batch_size,
        {**reading, "from_logits": form.from_logits, "h1_from_logits": form.h1_from_logits},
    )
    price = _price(h1, h2, _made(h1, h2, how, settings[0], form), x)
    made: dict[float, Any] = {}

    def overlap_of(setting: float) -> Any:
        answers.begin(setting)
        return trials.compare().overlap

    found = blend_by(lambda setting: setting, overlap_of, price, how, settings, promise, confidence)
    made[found.chosen.setting] = _made(h1, h2, how, found.chosen.setting, form)
    return Blend(made[found.chosen.setting], found.chosen, found.trials, confidence, how, price)


def distil(blend: Blend | keras.Model, h2: keras.Model, *, dissonance: str | None = None, **options: Any) -> BCModel:
    """Put a blend into one network: h2 is trained to answer as the blend does.

    ``BCModel(h2, h1=the blend, dissonance="imitation")``, whose scores are against the blend then; those against h1 are
    `CompatibilityCallback`'s, ``CompatibilityCallback(data, h1=h1)``.

    Args:
        blend: what `blend` returned, or its model.
        h2: the network to train: a copy of the plain h2, one anew, or one of a smaller kind.
        dissonance: one that imitates, such as ``"focal_distillation"``; defaults to ``"imitation"``, unless `loss` is
            among the options.
        options: of `BCModel`: `lambda_c` (how much the imitation counts beside the labels), `loss` and so on.

    Returns:
        The model, to compile and fit.

    Raises:
        TypeError: `blend` is something else.
        ValueError: what `BCModel` refuses.

    Example:
        >>> import keras
        >>> from bc_keras import blended_model, distil
        >>> h1, h2, student = (
        ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(3)
        ... )
        >>> model = distil(blended_model(h1, h2, weight=0.5), student, lambda_c=4.0)
        >>> model is student, model.dissonance
        (True, 'imitation')
    """
    teacher = blend.model if isinstance(blend, Blend) else blend
    if not isinstance(teacher, keras.Model):
        raise TypeError(f"blend must be what blend() returned, or its model. Received: {type(blend).__name__}.")
    if dissonance is None and options.get("loss") is None:
        dissonance = "imitation"
    return BCModel(h2, h1=teacher, dissonance=dissonance, **options)


class _Answers:
    """What is asked in place of a blend: both models, whose answers are mixed in numpy; those of arrays are kept."""

    def __init__(self, h1: Any, h2: Any, how: How, form: Form, keeps: bool) -> None:
        self._models, self._how, self._form, self._keeps = (h1, h2), how, form, keeps
        self._kept: list[tuple[Any, Any]] = []
        self._setting, self._at = 0.0, 0

    def begin(self, setting: float) -> None:
        """Begin a pass over the data."""
        self._setting, self._at = setting, 0

    def predict_on_batch(self, x: Any) -> Any:
        """Scores of the blend."""
        if self._keeps and self._at < len(self._kept):
            answers = self._kept[self._at]
        else:
            answers = _answers(self._models[0], x), _answers(self._models[1], x)
            if self._keeps:
                self._kept.append(answers)
        self._at += 1
        first, second = answers
        return _mixed_in_numpy(self._how, self._setting, self._form, first, second)


def _mixed_in_numpy(how: How, setting: float, form: Form, first: Any, second: Any) -> Any:
    given = ((first, form.h1_from_logits), (second, form.from_logits))
    of_h1, of_h2 = (as_logits(scores, is_logits, form.binary, np) for scores, is_logits in given)
    numpy = NumpyOperations()
    scores = blended(numpy, how, setting, of_h1, of_h2, each_alone=form.binary)
    if form.from_logits:
        return scores
    return numpy.sigmoid(scores) if form.binary else numpy.softmax(scores)


def _made(h1: Any, h2: Any, how: How, setting: float, form: Form) -> keras.Model:
    """The functional model of copies of both."""
    copies = [copied(model, called) for model, called in ((h1, "h1"), (h2, "h2"))]
    for model, name in zip(copies, ("h1", "h2"), strict=True):
        model.name, model.trainable = name, False
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name), _ends_of(h2)[0]
    )
    scores = []
    for model, from_logits in zip(copies, (form.h1_from_logits, form.from_logits), strict=True):
        output = ops.cast(only_tensor(model(inputs, training=False), model.name), "float32")
        scores.append(as_logits(output, from_logits, form.binary))
    mixed = blended(over_classes, how, setting, scores[0], scores[1], each_alone=form.binary)
    if form.binary:
        mixed = mixed if form.from_logits else ops.sigmoid(mixed)
    else:
        # A layer by whose name the form is known again; logarithms of probabilities are logits.
        mixed = keras.layers.Activation("log_softmax" if form.from_logits else "softmax", name="scores")(mixed)
    return keras.Model(inputs, mixed, name="blend")


def _plain_h1(h1: Any) -> Any:
    if isinstance(h1, Reference) and h1.class_map is not None:
        raise ValueError(
            "h1 is a Reference with a class map, and a blend runs both models over the same classes: pass the old "
            "model itself, with h2's classes."
        )
    return weights_behind(h1, "h1")


def _check_models(h1: Any, h2: Any) -> None:
    for model, called in ((h1, "h1"), (h2, "h2")):
        weights_behind(model, called)
        if has_own(type(model), "predict") and not isinstance(model, BCModel):
            raise ValueError(
                f"{called} has a predict of its own, which may prepare its inputs, and a blend takes what the layers "
                f"take: give the part behind it, such as {called}.backbone. Received: {type(model).__name__}."
            )
    first, second = ([tuple(each.shape) for each in keras.tree.flatten(_ends_of(model)[0])] for model in (h1, h2))
    if first != second:
        raise ValueError(f"h1 and h2 must take the same inputs to be blended. Received: inputs of {first}, {second}.")
    outputs = [tuple(_ends_of(model)[1].shape) for model in (h1, h2)]
    if outputs[0][1:] != outputs[1][1:]:
        raise ValueError(
            "h1 and h2 must score the same classes to be blended, and their scores have shapes "
            f"{outputs[0]} and {outputs[1]}."
        )


def _ends_of(model: Any) -> tuple[Any, Any]:
    """What a model takes, as it takes it, and what it returns, as symbols."""
    try:
        if isinstance(model, keras.Sequential):
            return model.inputs[0], model.outputs[0]
        return model.input, only_tensor(model.output, "a model")
    except (AttributeError, ValueError, TypeError):
        raise ValueError(
            f"{model.name!r} does not say what its inputs are, as a subclassed model: put it behind inputs, "
            "x = keras.Input(shape), keras.Model(x, model(x))."
        ) from None


def _first_answers(h1: Any, h2: Any, asked: Any) -> tuple[Any, Any, Any]:
    """What both models say of the first instances, enough to tell of what form it is; and the first batch."""
    first: list[Any] = []
    second: list[Any] = []
    inputs = None
    for batch in asked._given.data:
        inputs = batch.x if inputs is None else inputs
        first.append(_answers(h1, batch.x))
        second.append(_answers(h2, batch.x))
        if sum(map(len, first)) >= max(ENOUGH_SCORES, _ROWS):
            break
    if inputs is None:
        raise ValueError("data must hold at least one batch of validation data. Received: none.")
    return np.concatenate(first), np.concatenate(second), inputs


def _answers(model: Any, x: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(only_tensor(predict(model, x), model.name)), "float32")


def _is_logits(model: Any, scores: Any, said: bool | None) -> bool:
    if said is None:
        said = says_of(model).from_logits
    if said is not None:
        return said
    seen = Seen.of(scores)
    if seen.is_outside or not seen.are_distributions:
        if not seen.is_outside:
            raise ValueError(
                f"Whether {model.name!r} returns logits or probabilities cannot be told from {seen.text}: pass "
                "from_logits and h1_from_logits."
            )
        return True
    return False


def _price(h1: Any, h2: Any, made: Any, x: Any) -> Price:
    seconds = []
    for model in (h2, made):
        model.predict_on_batch(x)  # compiles it
        times = []
        for _ in range(_TIMES):
            begun = time.perf_counter()
            model.predict_on_batch(x)
            times.append(time.perf_counter() - begun)
        seconds.append(min(times))
    return Price(h1.count_params(), h2.count_params(), seconds[0], seconds[1], len(keras.tree.flatten(x)[0]))
