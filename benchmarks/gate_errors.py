"""How often the gate errs exactly at its budget, and intervals miss: what docs/gate.md says of them.

python benchmarks/gate_errors.py
"""

import numpy as np
from scipy.stats import binom

from bc_core import (
    SCORES,
    clopper_pearson_interval,
    equivalence_test,
    noise_floor,
    paired_bootstrap,
    paired_difference_interval,
    weighted_share,
    wilson_interval,
)
from bc_core.gate._checks import Question, verdicts_of
from bc_core.gate._evidence import Evidence
from bc_core.promise._grammar import constraint_of

UPDATES, LIMIT, SIZE = 10_000, 0.02, 1000
METHODS = ("wilson", "clopper_pearson")


def gate_at_the_budget(slices):
    """Share of updates that fail and that pass where every slice is exactly at its budget."""
    bound, known = constraint_of(f"nfr <= {LIMIT}"), {}
    flips = np.random.default_rng(0).binomial(SIZE, LIMIT, (UPDATES, slices))
    for k in np.unique(flips).tolist():
        known[k] = Question("slice", Evidence(np.array([[0, 0], [k, SIZE - k]])), bound).found(0.95)(1.0)
    verdicts = [verdicts_of([known[k] for k in row], 0.95) for row in flips.tolist()]
    return np.mean(["fail" in each for each in verdicts]), np.mean([set(each) == {"pass"} for each in verdicts])


def coverage_of_shares(interval, share, size):
    """How often an interval holds the share that it is of."""
    bounds = {k: interval(k, size) for k in range(size + 1)}
    flips = np.random.default_rng(1).binomial(size, share, UPDATES)
    return np.mean([bounds[k][0] <= share <= bounds[k][1] for k in flips.tolist()])


def mean_coverage(interval, size):
    """The same on average over shares from 0.3 % to 50 %, by the chances themselves: nothing is drawn."""
    shares = np.exp(np.linspace(np.log(0.003), np.log(0.5), 200))
    low, high = np.array([interval(k, size) for k in range(size + 1)]).T
    chances = binom.pmf(np.arange(size + 1), size, shares[:, None])
    held = (low <= shares[:, None]) & (shares[:, None] <= high)
    return float((chances * held).sum(axis=1).mean())


def coverage_of_gains(shares, size):
    """The same of Newcombe's interval for both right, only h1, only h2, both wrong."""
    draws = np.random.default_rng(2).multinomial(size, shares, UPDATES)
    gain = shares[1] - shares[2]
    found = [paired_difference_interval(*map(int, row)) for row in draws]
    return np.mean([low <= gain <= high for low, high in found])


def coverage_of_clusters(users, rows, together, share):
    """The same of `weighted_share`, and of taking every row for an instance."""
    rng, names, scale = np.random.default_rng(3), np.repeat(np.arange(users), rows), 1 / together - 1
    hits, naive = np.zeros(2), 0
    for _ in range(UPDATES // 4):
        above = rng.random(users * rows) < rng.beta(share * scale, (1 - share) * scale, users)[names]
        found = [weighted_share(above, clusters=names, method=method) for method in METHODS]
        plain = wilson_interval(int(above.sum()), len(above))
        hits += [each.low <= share <= each.high for each in found]
        naive += plain[0] <= share <= plain[1]
    return *hits / (UPDATES // 4), naive / (UPDATES // 4)


def coverage_of_weights(size, spread, share):
    """The same of `weighted_share` for log-normal weights of importance, which the mistakes do not depend on."""
    rng, hits, worth = np.random.default_rng(4), np.zeros(2), []
    for _ in range(UPDATES):
        above, weights = rng.random(size) < share, rng.lognormal(0, spread, size)
        found = [weighted_share(above, weights=weights, method=method) for method in METHODS]
        hits, worth = hits + [each.low <= share <= each.high for each in found], [*worth, found[0].effective]
    return *hits / UPDATES, np.mean(worth)


def errors_of_equivalence(shares, size):
    """Where shares differ by exactly the margin: how often TOST says that they do not, and how often its bounds err."""
    draws, margin = np.random.default_rng(5).multinomial(size, shares, UPDATES), abs(shares[1] - shares[2])
    found = [equivalence_test(*map(int, row), margin=margin) for row in draws]
    gain = shares[2] - shares[1]
    return np.mean([each.holds for each in found]), np.mean([each.low <= gain <= each.high for each in found])


def coverage_of_bootstrap(score, size, h1=0.8, first=0.9, second=0.86):
    """The same of the paired bootstrap: two candidates that err together where h1 errs."""
    right = np.array([[0.45, 0.35], [first, second]])  # where h1 is wrong, and where it is right
    cells = np.zeros((2, 2, 2))
    for h1_right, of_h1 in ((0, 1 - h1), (1, h1)):
        a, b = right[h1_right]
        both = a * b + 0.5 * (min(a, b) - a * b)
        cells[h1_right] = of_h1 * np.array([[1 - a - b + both, b - both], [a - both, both]])

    def of(table):
        above, below = (np.asarray(part, bool) for part in (SCORES[score].numerator, SCORES[score].denominator))
        return table[above].sum() / table[below].sum()

    true = of(cells.sum(axis=2)) - of(cells.sum(axis=1))
    hits, rng = 0, np.random.default_rng(6)
    for seed in range(UPDATES // 4):
        drawn = rng.multinomial(size, cells.ravel()).reshape(2, 2, 2)
        _, low, high = paired_bootstrap(drawn, score, resamples=2000, seed=seed)
        hits += low <= true <= high
    return hits / (UPDATES // 4)


def coverage_of_noise(size, seeds, others=0.03, broken=0.05):
    """The same of how far an update is above the noise floor, over the choice of instances."""
    rng, hits = np.random.default_rng(7), 0
    for _ in range(UPDATES // 2):
        hard = rng.random(size) < 0.3  # where all trainings err more
        right = [rng.random(size) > np.where(hard, 3, 1) * rate for rate in (0.05, *[others] * seeds, broken)]
        floor = noise_floor(np.ones(size, int), right[0], [each.astype(int) for each in right[1:-1]], right[-1])
        true = sum(part * (1 - 0.05 * k) * k * (broken - others) for part, k in ((0.3, 3), (0.7, 1)))
        hits += floor.low <= true <= floor.high
    return hits / (UPDATES // 2)


if __name__ == "__main__":
    for slices in (1, 50):
        failed, passed = gate_at_the_budget(slices)
        alone = 1 - (1 - gate_at_the_budget(1)[0]) ** slices
        print(
            f"gate at the budget, {slices} slices of {SIZE}: fails {failed:.2%} (each judged alone: {alone:.2%}), "
            f"passes {passed:.2%}"
        )
    for share, size in ((0.01, 1000), (0.05, 1000), (0.2, 300)):
        print(
            f"share {share} of {size}: Wilson covers {coverage_of_shares(wilson_interval, share, size):.2%}, "
            f"Clopper-Pearson {coverage_of_shares(clopper_pearson_interval, share, size):.2%}"
        )
    for size in (100, 300, 1000, 3000):
        print(f"shares of {size} on average: ", end="")
        print(f"Wilson covers {mean_coverage(wilson_interval, size):.2%}, ", end="")
        print(f"Clopper-Pearson {mean_coverage(clopper_pearson_interval, size):.2%}")
    for shares, size in (((0.9, 0.012, 0.015, 0.073), 2000), ((0.85, 0.05, 0.07, 0.03), 500)):
        covered = coverage_of_gains(shares, size)
        print(f"gain, discordant {shares[1]} and {shares[2]} of {size}: Newcombe covers {covered:.2%}")
    for case in ((200, 5, 0.3, 0.05), (60, 10, 0.2, 0.1)):
        print("{} users of {} rows, correlation {}, share {}: ".format(*case), end="")
        found = coverage_of_clusters(*case)
        print("clusters cover by Wilson {:.2%}, exactly {:.2%}, rows as instances {:.2%}".format(*found))
    for case in ((1000, 0.5, 0.05), (1000, 1.0, 0.05), (3000, 1.0, 0.02)):
        print("{} instances, log-normal weights of sigma {}, share {}: ".format(*case), end="")
        found = coverage_of_weights(*case)
        print("weights cover by Wilson {:.2%}, exactly {:.2%}, worth {:.0f} instances".format(*found))
    for shares, size in (((0.9, 0.03, 0.02, 0.05), 2000), ((0.85, 0.08, 0.05, 0.02), 1000)):
        print(f"TOST at a margin of {abs(shares[1] - shares[2]):.2f}, {size} instances: ", end="")
        print("says equivalent {:.2%}, 90 % bounds cover {:.2%}".format(*errors_of_equivalence(shares, size)))
    for score, size in (("btc", 1000), ("nfi", 1000), ("bec_given_h1_wrong", 2000)):
        print(f"{score} of two candidates on {size}: paired bootstrap covers {coverage_of_bootstrap(score, size):.2%}")
    for case in ((1000, 1), (1000, 4), (5000, 4)):
        print("{} instances, {} further seeds: excess over the noise floor covers ".format(*case), end="")
        print(f"{coverage_of_noise(*case):.2%}")
