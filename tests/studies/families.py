"""How many verdicts of a run Bonferroni, Šidák, Holm and Benjamini-Hochberg reach, and how often one of them is wrong.

    python -m tests.studies.families

Comparisons are simulated as their estimated log ratios, with the harness's degrees of freedom. In each family a third
of the comparisons are equal, a third lie on the margin, where any verdict is wrong, and a third differ by 3 %. Noise is
independent, or half of it is shared by the family, as the cases of a run share the machine.
"""

from __future__ import annotations

import click
import numpy as np
import numpy.typing as npt
from scipy import stats

MARGIN = np.log(1.02)
FREEDOM = 29  # of 30 blocks
ERROR = 0.002  # standard error of a log ratio: an interval of about +-0.4 %
ALPHA = 0.05
METHODS = ("none", "Bonferroni", "Šidák", "Holm", "Benjamini-Hochberg")

Array = npt.NDArray[np.float64]


def p_values(estimates: Array, errors: Array) -> Array:
    """Return the level at which the interval of each comparison would just decide it, (families, comparisons)."""
    inside = np.abs(MARGIN - np.abs(estimates))  # distance to the margin's nearest end, whichever verdict that gives
    return 2 * stats.t.sf(inside / errors, FREEDOM)


def decided(p: Array, method: str) -> npt.NDArray[np.bool_]:
    """Return which comparisons of each family get a verdict, (families, comparisons)."""
    count = p.shape[1]
    if method == "none":
        return p <= ALPHA
    if method == "Bonferroni":
        return p <= ALPHA / count
    if method == "Šidák":
        return p <= 1 - (1 - ALPHA) ** (1 / count)
    order = np.argsort(p, axis=1)
    ranked = np.take_along_axis(p, order, axis=1)
    if method == "Holm":
        passed = np.logical_and.accumulate(ranked <= ALPHA / np.arange(count, 0, -1), axis=1)
    else:
        below = ranked <= ALPHA * np.arange(1, count + 1) / count
        passed = np.logical_or.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    found = np.empty_like(passed)
    np.put_along_axis(found, order, passed, axis=1)
    return found


def simulate(count: int, shared: float, families: int, seed: int) -> dict[str, tuple[float, float]]:
    """Simulate families of `count` comparisons.

    Args:
        count: comparisons per family.
        shared: fraction of the noise's variance that is common to a family.
        families: how many to simulate.
        seed: of the noise.

    Returns:
        By method, the fraction of the comparisons off the margin that get the right verdict, and the fraction of the
        families with a wrong verdict.
    """
    rng = np.random.default_rng(seed)
    truth = np.tile(np.resize([0.0, MARGIN, np.log(1.03)], count), (families, 1))
    own, common = rng.standard_normal((families, count)), rng.standard_normal((families, 1))
    estimates = truth + ERROR * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)
    errors = ERROR * np.sqrt(rng.chisquare(FREEDOM, truth.shape) / FREEDOM)
    p = p_values(estimates, errors)
    verdict = np.where(np.abs(estimates) < MARGIN, "same", np.where(estimates > 0, "faster", "slower"))
    right = np.where(truth == 0, "same", np.where(truth == MARGIN, "", "faster"))
    found = {}
    for method in METHODS:
        has = decided(p, method)
        wrong = has & (verdict != right)
        found[method] = float((has & (verdict == right))[right != ""].mean()), float(wrong.any(axis=1).mean())
    return found


@click.command(help=__doc__)
@click.option("--families", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(families: int, seed: int) -> None:
    for count in (3, 12, 60):
        for shared in (0.0, 0.5):
            click.echo(f"\n{count} comparisons, {shared:.0%} of the noise shared")
            for method, (power, wrong) in simulate(count, shared, families, seed).items():
                click.echo(f"  {method:20} right verdicts {power:6.1%}   families with a wrong one {wrong:6.1%}")


if __name__ == "__main__":
    main()
