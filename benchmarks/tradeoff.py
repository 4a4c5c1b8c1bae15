"""What each method makes of an update: negative flips against accuracy, on several data sets and kinds of update.

    python benchmarks/update_data.py FOLDER                   # fetch the data packages, once
    UPDATE_DATA=FOLDER python benchmarks/tradeoff.py          # run what is missing, then draw the page
    python benchmarks/tradeoff.py --library --only mnist/more # the recommended method by BCLightningModule
    python benchmarks/tradeoff.py --page                      # draw the page from what there is
    python benchmarks/tradeoff.py --only mnist --seeds 5      # some updates alone
    python benchmarks/tradeoff.py --confirm                   # what stood the search, on seeds that took no part in it

For each update and seed h1 is trained on h1's rows; h2 on h2's, from fresh weights ("cold") or from h1's ("warm"), by
each setting of each method. Within a seed all methods share h1, the rows, h2's first weights and the order of the
batches. A finished setting is one line of results/tradeoff.jsonl: per seed, how many validation and test instances both
models got right, h1 alone, h2 alone, neither. What has its line is not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tradeoff_library
from crowd import Loss, Member, Networks, Weights, answers, fresh, mixture, said, stacked, train
from torch import Tensor
from tradeoff_methods import ALPHAS, PLAINS, RATIOS, Trained, plain, trained
from tradeoff_page import write_page
from update_data import UPDATES

LINES = Path(__file__).parent / "results" / "tradeoff.jsonl"
CONFIRMED = LINES.with_name("tradeoff_confirmed.jsonl")
# Run with every setting.
WHOLE = (
    "mnist/more data",
    "letter/more data",
    "adult/more data",
    "compas/more data",
    "adult/features",
    "compas/features",
    "tweets/time",
)
FIRST_UNSEEN = 20  # methods and settings were searched for on seeds before
TO_CONFIRM = ("original", "recommended", "new error", "focal distillation")
# These were never searched on.
UNSEARCHED = (
    "satimage/more data",
    "magic/more data",
    "optdigits/more data",
    "optdigits-150/more data",
    "optdigits-400/more data",
    "penbased/more data",
    "texture/more data",
    "marketing/more data",
)
AT_ONCE = 120  # members of a crowd; more do not make it faster

Key = tuple[str, str, str, str]  # update, start, method, setting


class Bench:
    """One update with its h1 of each seed, from the first seed on."""

    def __init__(self, name: str, seeds: int, first: int = 0) -> None:
        self.name, self.update, self.seeds, self.first = name, UPDATES[name](), seeds, first
        update = self.update
        self.rows = [update.rows(first + seed) for seed in range(seeds)]
        members = [Member(rows.h1, fresh(update.h1, seed), seed) for seed, rows in enumerate(self.rows, first)]
        self.old_net, self.net = update.h1(), update.h2()
        self.h1 = [one.last for one in self._train(self.old_net, members, [(slice(0, seeds), plain)])]
        self.h1_logits = [said(self.old_net, one, update.x) for one in self.h1]

    def _train(self, net: Any, members: list[Member], losses: list[tuple[slice, Loss]]) -> list[Networks]:
        u = self.update
        known = u.known if u.known < u.classes else None
        return train(net, u.x, u.y, members, losses, lr=u.lr, epochs=u.epochs, batch_size=u.batch_size, known=known)

    def member(self, seed: int, start: str, draw: int = 0, **more: Any) -> Member:
        """A training of h2; another draw is another order, and other first weights in a cold start."""
        number = 1000 * (1 + draw) + self.first + seed
        first = self.h1[seed] if start == "warm" else fresh(self.update.h2, number)
        return Member(self.rows[seed].h2, first, number, **more)

    def plains(self, start: str) -> list[list[Networks]]:
        """Plain h2s: for each draw those of all seeds."""
        members = [self.member(seed, start, draw) for draw in range(PLAINS) for seed in range(self.seeds)]
        found = self._train(self.net, members, [(slice(0, len(members)), plain)])
        return [found[i : i + self.seeds] for i in range(0, len(found), self.seeds)]

    def teacher(self, seed: int, share: float | None, others: list[list[Weights]]) -> Callable[[Tensor], Tensor]:
        """Logits of h1, or of its blend with plain networks, by probabilities."""
        if share is None:
            return lambda x: said(self.old_net, self.h1[seed], x)
        crowd = stacked([one[seed] for one in others])

        def asked(x: Tensor) -> Tensor:
            with torch.no_grad():
                new = answers(self.net, crowd, x, shared=True).softmax(-1).mean(0)
                return (share * said(self.old_net, self.h1[seed], x).softmax(-1) + (1 - share) * new).log()

        return asked

    def train(self, settings: list[Trained], start: str, others: list[list[Weights]]) -> Iterator[list[Networks]]:
        """Networks of each setting for all seeds."""
        members, losses = [], []
        for setting in settings:
            losses.append((slice(len(members), len(members) + self.seeds), setting.loss))
            for seed in range(self.seeds):
                asked = self.teacher(seed, setting.teacher, others)
                table = self.h1_logits[seed] if setting.teacher is None else asked(self.update.x)
                members.append(self.member(seed, start, teacher=table, asked=asked if setting.mixes else None))
        found = self._train(self.net, members, losses)
        return (found[where] for where, _ in losses)

    def counts(self, seed: int, part: str, scores: Tensor) -> list[int]:
        """Instances that both get right, h1 alone, h2 alone, neither."""
        rows = getattr(self.rows[seed], part)
        target = self.update.y[rows]
        old, new = self.h1_logits[seed][rows].argmax(1) == target, scores.argmax(1) == target
        return [int(n) for n in ((old & new).sum(), (old & ~new).sum(), (~old & new).sum(), (~old & ~new).sum())]


class Results:
    """The file of finished settings."""

    def __init__(self, path: Path = LINES) -> None:
        self.path = path
        self.rows: dict[Key, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # cut off when a run was stopped
                self.rows[row["update"], row["start"], row["method"], row["setting"]] = row

    def has(self, key: Key, seeds: int) -> bool:
        return key in self.rows and len(self.rows[key]["test"]) >= seeds

    def write(self, bench: Bench, key: Key, scores: Callable[[int, Tensor], Tensor]) -> None:
        """Ask a method about validation and test rows, unless its line is there."""
        if self.has(key, bench.seeds):
            return
        row: dict[str, Any] = dict(zip(("update", "start", "method", "setting"), key, strict=True))
        for part in ("validation", "test"):
            inputs = [bench.update.x[getattr(rows, part)] for rows in bench.rows]
            row[part] = [bench.counts(seed, part, scores(seed, x)) for seed, x in enumerate(inputs)]
        self.rows[key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def of_networks(bench: Bench, weights: list[Weights]) -> Callable[[int, Tensor], Tensor]:
    return lambda seed, x: said(bench.net, weights[seed], x)


def of_mixture(bench: Bench, weights: list[Weights], alpha: float) -> Callable[[int, Tensor], Tensor]:
    """Networks with a share of h1's weights."""
    mixed = [mixture([old, new], [alpha, 1 - alpha]) for old, new in zip(bench.h1, weights, strict=True)]
    return of_networks(bench, mixed)


def of_answers(bench: Bench, crowds: list[list[Weights]], share: float) -> Callable[[int, Tensor], Tensor]:
    """Mean of h1's probabilities and those of one or several h2."""
    return lambda seed, x: bench.teacher(seed, share, crowds)(x)


def of_gate(bench: Bench, weights: list[Weights], ratio: float) -> Callable[[int, Tensor], Tensor]:
    """h2's answer where its largest probability is more than `ratio` times h1's, else h1's."""

    def scores(seed: int, x: Tensor) -> Tensor:
        old, new = (
            said(net, one[seed], x).softmax(-1) for net, one in ((bench.old_net, bench.h1), (bench.net, weights))
        )
        surer = new.amax(1) > ratio * old.amax(1)
        return torch.where(surer[:, None], new, old)

    return scores


class After(NamedTuple):
    """A setting that is made from trained networks, without training."""

    method: str
    setting: str
    scores: Callable[[int, Tensor], Tensor]


def after_plain(bench: Bench, start: str, draws: list[list[Networks]]) -> Iterator[After]:
    """What can be made of h1 and of plain networks."""
    last = [[one.last for one in draw] for draw in draws]
    for draw, weights in enumerate(last):
        yield After("plain", f"draw={draw}", of_networks(bench, weights))
    averaged = [one.averaged for one in draws[0]]
    yield After("plain, averaged", "alpha=0", of_networks(bench, averaged))
    for alpha in ALPHAS:
        yield After("two networks: mean of answers", f"alpha={alpha:g}", of_answers(bench, last[:1], alpha))
        yield After("five networks: mean of answers", f"alpha={alpha:g}", of_answers(bench, last[1:], alpha))
    for ratio in RATIOS:
        yield After("two networks: gate", f"ratio={ratio:g}", of_gate(bench, last[0], ratio))
    if start == "warm":
        soup = [mixture(one, [1 / len(one)] * len(one)) for one in zip(*last[1:], strict=True)]
        for method, weights in (
            ("plain, interpolated", last[0]),
            ("plain, averaged, interpolated", averaged),
            ("weights of four, interpolated", soup),
        ):
            yield from interpolations(bench, method, weights)


def after(bench: Bench, start: str, setting: Trained, networks: list[Networks]) -> Iterator[After]:
    """What a trained setting gives."""
    method, weights = setting.method, [one.last for one in networks]
    yield After(method, setting.setting, of_networks(bench, weights))
    if setting.averaged:
        method, weights = f"{method}, averaged", [one.averaged for one in networks]
        yield After(method, setting.setting, of_networks(bench, weights))
    if setting.interpolates and start == "warm":
        yield from interpolations(bench, f"{method}, interpolated", weights, f"{setting.setting}, ")


def interpolations(bench: Bench, method: str, weights: list[Weights], setting: str = "") -> Iterator[After]:
    """Networks on the line from h2's weights to h1's."""
    for alpha in (0.0, *ALPHAS):
        yield After(method, f"{setting}alpha={alpha:g}", of_mixture(bench, weights, alpha))


def run(
    name: str, start: str, results: Results, seeds: int, is_wanted: Callable[[Trained], bool], first: int = 0
) -> None:
    """Run what is missing of one update and start."""

    def there(method: str, setting: str) -> bool:
        return results.has((name, start, method, setting), seeds)

    def done(one: Trained) -> bool:
        return there(one.method, one.setting) and (not one.averaged or there(f"{one.method}, averaged", one.setting))

    missing = [one for one in trained() if is_wanted(one) and not done(one)]
    if name.endswith("/classes"):  # a blend with an h1 that does not know the class would teach against it
        missing = [one for one in missing if not one.mixes and one.teacher is None]
    plain_there = there("plain", "draw=0")
    if not missing and plain_there:
        return
    begun = time.process_time()
    bench = Bench(name, seeds, first)
    others: list[list[Weights]] = []
    if not plain_there or any(one.teacher is not None for one in missing):
        draws = bench.plains(start)
        others = [[one.last for one in draw] for draw in draws[1:]]
        for one in reversed(list(after_plain(bench, start, draws))):
            results.write(bench, (name, start, one.method, one.setting), one.scores)
    for chunk in chunks(missing, seeds):
        for setting, networks in zip(chunk, bench.train(chunk, start, others), strict=True):
            # The line that says that a setting is done is the first of its, so it is written last.
            for one in reversed(list(after(bench, start, setting, networks))):
                results.write(bench, (name, start, one.method, one.setting), one.scores)
    print(f"{name}, {start}: {time.process_time() - begun:.0f} s", flush=True)


def run_library(name: str, results: Results, seeds: int, first: int = 0) -> None:
    """The recommended method from a warm start, trained by the library one network at a time."""
    key = (name, "warm", tradeoff_library.METHOD, f"lambda_c={tradeoff_library.WAY.lambda_c:g}")
    if results.has(key, seeds):
        return
    bench = Bench(name, seeds, first)
    weights = [
        tradeoff_library.train(bench.update, rows.h2, old, seed)
        for seed, (rows, old) in enumerate(zip(bench.rows, bench.h1, strict=True), first)
    ]
    for one in interpolations(bench, f"{key[2]}, interpolated", weights, f"{key[3]}, "):
        results.write(bench, (name, "warm", one.method, one.setting), one.scores)
    results.write(bench, key, of_networks(bench, weights))


def chunks(settings: list[Trained], seeds: int) -> Iterator[list[Trained]]:
    """Settings to train at once; those that mix inputs apart."""
    size = max(1, AT_ONCE // seeds)
    for mixes in (False, True):
        alike = [setting for setting in settings if setting.mixes == mixes]
        yield from (alike[i : i + size] for i in range(0, len(alike), size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only draw the page")
    parser.add_argument("--only", nargs="*", default=[""], help="names of updates, or how they begin")
    parser.add_argument("--start", nargs="*", default=["warm", "cold"], choices=["warm", "cold"])
    parser.add_argument("--methods", nargs="*", default=[""], help="how names of methods begin")
    parser.add_argument("--library", action="store_true", help="the recommended method, by BCLightningModule")
    parser.add_argument("--confirm", action="store_true", help="warm, on seeds that were not searched on")
    parser.add_argument("--seeds", type=int, help="5, or 10 of those that were not searched on")
    options = parser.parse_args()
    seeds = options.seeds or (10 if options.confirm else 5)
    results, first = (Results(CONFIRMED), FIRST_UNSEEN) if options.confirm else (Results(), 0)
    names = (*WHOLE, *UNSEARCHED) if options.confirm else [name for name in UPDATES if name not in UNSEARCHED]
    if options.confirm:
        options.start = ["warm"]
        options.methods = list(TO_CONFIRM) if options.methods == [""] else options.methods
    if not options.page:
        torch.set_num_threads(1)
        for name in (name for name in names if name.startswith(tuple(options.only))):
            if options.library:
                run_library(name, results, seeds, first)
                continue
            is_wanted = wanted(options.methods, options.confirm or name in WHOLE)
            for start in options.start:
                if start == "cold" or UPDATES[name]().same_network:
                    run(name, start, results, seeds, is_wanted, first)
    write_page(list(results.rows.values()), options.confirm)


def wanted(prefixes: list[str], everything: bool) -> Callable[[Trained], bool]:
    """Whether a setting is to be run."""
    return lambda one: one.method.startswith(tuple(prefixes)) and (everything or one.everywhere)


if __name__ == "__main__":
    main()
