"""The sentences of a report, for Markdown and HTML alike.

Text from the user's flags or from a run's error is `Code`; all other text is plain.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from dropjax.compare import Summary, fewest, smallest_p
from dropjax.core.text import counted
from experiments.ablation.report.analysis import Analysis, SchemeRow

NOTHING = "-"
"""What a table shows where there is no number."""


class Code(str):
    """Text that is shown letter by letter, in a typewriter's letters."""


Words = Sequence[str]
"""A sentence, in pieces, some of them `Code`."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """How results are written: accuracies in per cent, errors of regression as they are.

    Args:
      analysis: its results all get the same number of decimals.
    """

    analysis: Analysis

    @property
    def percent(self) -> bool:
        """Whether results are fractions, written in per cent."""
        return self.analysis.metric.name == "accuracy"

    @property
    def name(self) -> str:
        """The metric's name in a sentence."""
        return "accuracy" if self.percent else self.analysis.metric.name.upper()

    @property
    def head(self) -> str:
        """The metric's name with its unit."""
        return "accuracy, %" if self.percent else self.name

    @property
    def of_differences(self) -> str:
        """The unit of differences."""
        return "points" if self.percent else self.name

    @property
    def _decimals(self) -> int:
        if self.percent:
            return 2
        means = [abs(row.test.mean) for row in self.analysis.settings if row.test is not None]
        largest = max(means, default=0.0)
        return max(3 - math.floor(math.log10(largest)), 0) if largest > 0 else 3

    def text(self, value: float, *, sign: bool = False, more: int = 0) -> str:
        """A result; with a sign for a difference, with `more` decimals than usual."""
        scaled = 100 * value if self.percent else value
        return f"{scaled:{'+' if sign else ''}z.{self._decimals + more}f}"

    def interval(self, low: float, high: float, *, sign: bool = False) -> str:
        """An interval, with a space before it; "" where there is none.

        Differences of accuracies are cut at 100 points.
        """
        if math.isnan(low):
            return ""
        if self.percent:
            low, high = max(low, -1.0), min(high, 1.0)
        return f" [{self._end(low, sign=sign)}, {self._end(high, sign=sign)}]"

    def _end(self, value: float, *, sign: bool) -> str:
        """An end that is not 0 must not look like 0, or the interval would seem to hold 0."""
        texts = (self.text(value, sign=sign, more=more) for more in range(8))
        usual = next(texts)
        return next((t for t in (usual, *texts) if value and float(t)), usual)

    def spread(self, summary: Summary | None) -> str:
        """Mean and standard deviation."""
        if summary is None:
            return NOTHING
        spread = "" if summary.n == 1 else f" ± {self.text(summary.std)}"
        return self.text(summary.mean) + spread


def setting_text(setting: dict[str, Any]) -> Code:
    """The flags of a setting that have a meaning for its scheme."""
    return Code(", ".join(f"{k}={v}" for k, v in setting.items() if v is not None))


def p_text(p: float, alpha: float) -> str:
    """Two significant digits; more where two would seem to lie on the other side of alpha."""
    texts = [f"{p:#.{digits}g}" for digits in (2, 3, 4, 6, 9, 17)]
    return next(text for text in texts if (float(text) <= alpha) == (p <= alpha))


def called(row: SchemeRow) -> list[str]:
    """A scheme at its chosen setting."""
    setting = setting_text(row.chosen.setting) if row.chosen else ""
    return [Code(row.scheme), " (", setting, ")"] if setting else [Code(row.scheme)]


def overview(analysis: Analysis, about: dict[str, Any]) -> Words:
    """What was compared, in a sentence."""
    shared, counts = about["shared"], analysis.cells
    schemes = list(listed(Code(row.scheme) for row in analysis.schemes))
    words = ["The experiment ", Code(about["experiment"]), " with ", *schemes, " as dropout"]
    for name, before in (("dataset", " on "), ("model", " in ")):
        if name in shared:
            words += [before, Code(shared[name])]
    if "epochs" in shared:
        words += [f", {counted(shared['epochs'], 'epoch')}"]
    if analysis.swept:
        words += ["; swept: ", *listed(Code(name) for name in analysis.swept)]
    seeds = list(analysis.seeds)
    run = seeds == list(range(min(seeds), max(seeds) + 1)) and len(seeds) > 2
    named = f"{min(seeds)} to {max(seeds)}" if run else ", ".join(map(str, seeds))
    ended = ", ".join(f"{count} {status}" for status, count in counts.items())
    words += [f"; {counted(len(seeds), 'seed')} ({named}). "]
    return [*words, f"{counted(sum(counts.values()), 'cell')}: {ended}."]


def answers(analysis: Analysis) -> list[Words]:
    """A sentence for each comparison, and one that says what they are about."""
    against = _baseline(analysis)
    rows = [row for row in analysis.schemes if row.scheme != analysis.baseline]
    if not rows:
        return [["There is no scheme to compare with ", *against, "."]]
    return [*(_answer(analysis, row, against) for row in rows), [_reach(analysis)]]


def _baseline(analysis: Analysis) -> list[str]:
    """The baseline at its chosen setting."""
    return called(next(row for row in analysis.schemes if row.scheme == analysis.baseline))


def _reach(analysis: Analysis) -> str:
    """Says that the answers are about other seeds, not about other test examples."""
    examples = analysis.test_examples
    if examples is None:
        return (
            "All of this is about one set of test examples: other seeds are likely to give the "
            "same on it, and other test examples need not."
        )
    worth = f", of which one is {100 / examples:.2g} points" if Unit(analysis).percent else ""
    return (
        f"All of this is about the same {counted(examples, 'test example')}{worth}: p and the "
        "intervals say what other seeds would give on them, not what other test examples would."
    )


def _answer(analysis: Analysis, row: SchemeRow, against: list[str]) -> Words:
    compared, unit = row.comparison, Unit(analysis)
    if compared is None or row.p is None:
        return [*called(row), " is not compared: ", row.why, "."]
    p, many = f"p = {p_text(row.p, analysis.alpha)}", analysis.comparisons
    if many > 1:
        both = "both " if math.isfinite(compared.low) else ""
        p += f" ({both}for {many} comparisons)"
    if not row.found:
        gap = unit.text(compared.difference, sign=True)
        interval = unit.interval(compared.low, compared.high, sign=True)
        gap = f": {gap} {unit.of_differences}{interval}, {p}."
        if too_few(analysis):
            return ["Too few seeds to tell ", *called(row), " from ", *against, gap]
        return ["No difference found between ", *called(row), " and ", *against, gap]
    # The size of the gap has no sign, whichever side is better.
    positive = compared.difference > 0
    low, high = sorted(x if positive else -x for x in (compared.low, compared.high))
    gap = f"{unit.text(abs(compared.difference))} {unit.of_differences}{unit.interval(low, high)}"
    better = positive == analysis.metric.higher
    verdict = " is better than " if better else " is worse than "
    return [*called(row), verdict, *against, f" by {gap}, {p}."]


def verdicts(analysis: Analysis) -> list[Words]:
    """A sentence for each comparison of added seeds; none if no seeds were added."""
    named, unit = {row.scheme: called(row) for row in analysis.schemes}, Unit(analysis)
    against, sentences = named[analysis.baseline], list[Words]()
    for verdict in analysis.verdicts:
        names = named[verdict.scheme]
        runs = counted(len(verdict.differences), "more seed")
        gap = unit.text(verdict.mean, sign=True) if verdict.differences else NOTHING
        gap += f" {unit.of_differences}{unit.interval(*verdict.interval, sign=True)}"
        gap += f"; {counted(verdict.lost, 'pair')} without a result." if verdict.lost else "."
        if not verdict.after:
            words = ["Not decided between ", *names, " and ", *against, f" by {runs}: {gap}"]
            sentences.append(words)
            continue
        word = "better" if verdict.higher == analysis.metric.higher else "worse"
        words = [*names, f" is {word} than ", *against]
        sentences.append([*words, f": decided after {verdict.after} of {runs}, {gap}"])
    return sentences


def note_of_verdicts(analysis: Analysis) -> str:
    """How the verdicts were made."""
    each = 100 * analysis.verdicts[0].level
    return (
        f"Seeds from {max(analysis.seeds) + 1} on, which had no part in the choice of settings, "
        "were added until each comparison was decided or there were as many as allowed. The test "
        f"may be looked at after every seed: the chance of any wrong decision is at most "
        f"{100 * analysis.alpha:g} % in all. It assumes that, without a difference, either scheme "
        f"is as likely to be ahead by any given amount. In brackets is what a {each:.4g} % "
        "confidence sequence leaves of the difference; it holds for all comparisons together and "
        "whenever one stops. A decision, its mean and its interval are of the seeds until then. "
        "The answers on top are of the seeds that settings were chosen with, by another test, "
        f"which keeps {100 * analysis.alpha:g} % by itself. The runs are in cells_added.csv."
    )


def notes(analysis: Analysis) -> list[str]:
    """How the main table's numbers were made, and what they cannot say."""
    per_cent = f"{100 * analysis.level:g} %"
    n, enough = len(analysis.seeds), fewest(analysis.level)
    interval = (
        f"in brackets is the {per_cent} interval of the mean, of each scheme by itself, by sign "
        "flips, for results that are symmetric about it"
    )
    if n < enough:
        interval = f"{counted(n, 'seed')} give no {per_cent} interval of the mean, {enough} do"
    sentences = [
        f"Test and validation {Unit(analysis).name}: mean over the seeds ± standard deviation of "
        f"one run; {interval}. IQM is the interquartile mean.",
        "Each scheme has one setting: nothing was chosen.",
    ]
    if any(row.settings > 1 for row in analysis.schemes):
        sentences[1] = (
            "Each scheme is at its setting with the best mean on the validation data, over all "
            f"seeds (then the least {analysis.metric.tie.upper()}, then the first of the grid); "
            "the column settings says of how many. The test data had no part in it."
        )
    if len({row.settings for row in analysis.schemes}) > 1:
        sentences.append("Schemes with more settings were tuned more than those with fewer.")
    if dropped := sum(not row.complete for row in analysis.settings):
        sentences.append(
            f"{dropped} of {counted(len(analysis.settings), 'setting')} could not be chosen: some "
            "of their seeds have no result, and means over different seeds are not compared. The "
            "cells are listed below."
        )
    return sentences + _notes_of_tests(analysis, per_cent)


def note_of_settings(analysis: Analysis) -> str:
    """What the numbers in the table of all settings are."""
    text = (
        f"Mean {Unit(analysis).name} ± standard deviation over the seeds that completed, without "
        "dropout."
    )
    if any(row.mc_test is not None for row in analysis.settings):
        text += " Mean of draws: of predictions averaged over Monte-Carlo draws, with dropout."
    return text


def _notes_of_tests(analysis: Analysis, per_cent: str) -> list[str]:
    comparisons = [row.comparison for row in analysis.schemes if row.comparison is not None]
    if not comparisons:
        return []
    n, many, alpha = len(analysis.seeds), analysis.comparisons, analysis.alpha
    better = "higher" if analysis.metric.higher else "lower"
    kind = "exact" if comparisons[0].exact else "Monte-Carlo"
    together = f", times {many} for {many} comparisons (Bonferroni)" if many > 1 else ""
    sentences = [
        "The difference is the mean over seeds of the scheme's test result less the baseline's "
        f"({better} is better). p is of the paired sign-flip test, two-sided, {kind}{together}. "
        "P(better) is the fraction of the seeds with which the scheme is better, ties half.",
    ]
    if too_few(analysis):
        enough = fewest(analysis.level, comparisons=many)
        least = p_text(min(many * smallest_p(n), 1.0), alpha)
        times = f", or {least} for {many} comparisons" if many > 1 else ""
        return [
            *sentences,
            f"{counted(n, 'seed').capitalize()} cannot show a difference at the level {alpha:g}, "
            f"whatever the results, and give no {per_cent} interval of one: the least p that so "
            f"few can have is {p_text(smallest_p(n), alpha)}{times}. It takes {enough} seeds or "
            f"more: --seeds={enough}.",
        ]
    all_hold = f"all {many} hold at once" if many > 1 else "it holds"
    # The chance that any interval fails is at most the sum of the chances of each.
    chance = 100 * (1 - sum(1 - comparison.coverage for comparison in comparisons))
    sentences.append(
        "In brackets behind a difference are the values that the same test does not reject: they "
        f"are without 0 exactly where p is at most {alpha:g}. Of differences that are symmetric "
        f"about their mean {all_hold} with a chance of at least {per_cent} (with {n} seeds "
        f"{chance:.4g} %); if they are skewed the chance is less (experiments/README.md says how "
        "much). Where no difference was found there may be one: the interval says how large."
    )
    return sentences


def too_few(analysis: Analysis) -> bool:
    """Whether no difference could have been found, whatever the results."""
    return len(analysis.seeds) < fewest(analysis.level, comparisons=analysis.comparisons)


def listed(pieces: Iterable[str]) -> Iterable[str]:
    """The pieces with commas between them."""
    for number, piece in enumerate(pieces):
        if number:
            yield ", "
        yield piece
