"""How often the gate errs exactly at its budget, and intervals miss: what docs/gate.md says of them.

python benchmarks/gate_errors.py
"""

import numpy as np

from bc_core import clopper_pearson_interval, paired_difference_interval, weighted_share, wilson_interval
from bc_core.gate._checks import Question, verdicts_of
from bc_core.gate._evidence import Evidence
from bc_core.promise._grammar import constraint_of

UPDATES, LIMIT, SIZE = 10_000, 0.02, 1000


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


def coverage_of_gains(shares, size):
    """The same of Newcombe's interval for both right, only h1, only h2, both wrong."""
    draws = np.random.default_rng(2).multinomial(size, shares, UPDATES)
    gain = shares[1] - shares[2]
    found = [paired_difference_interval(*map(int, row)) for row in draws]
    return np.mean([low <= gain <= high for low, high in found])


def coverage_of_clusters(users, rows, together, share):
    """The same of `weighted_share`, and of taking every row for an instance."""
    rng, names, scale = np.random.default_rng(3), np.repeat(np.arange(users), rows), 1 / together - 1
    hits = naive = 0
    for _ in range(UPDATES // 4):
        above = rng.random(users * rows) < rng.beta(share * scale, (1 - share) * scale, users)[names]
        found = weighted_share(above, clusters=names)
        plain = wilson_interval(int(above.sum()), len(above))
        hits, naive = hits + (found.low <= share <= found.high), naive + (plain[0] <= share <= plain[1])
    return hits / (UPDATES // 4), naive / (UPDATES // 4)


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
    for shares, size in (((0.9, 0.012, 0.015, 0.073), 2000), ((0.85, 0.05, 0.07, 0.03), 500)):
        covered = coverage_of_gains(shares, size)
        print(f"gain, discordant {shares[1]} and {shares[2]} of {size}: Newcombe covers {covered:.2%}")
    for case in ((200, 5, 0.3, 0.05), (60, 10, 0.2, 0.1)):
        print("{} users of {} rows, correlation {}, share {}: ".format(*case), end="")
        print("clusters cover {:.2%}, rows as instances {:.2%}".format(*coverage_of_clusters(*case)))
