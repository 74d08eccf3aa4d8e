"""table.md and cells.csv: the numbers, where they come from, and what must be escaped."""

import csv
import dataclasses
import io
import math
import re

import numpy as np
import pytest

from experiments.ablation.report.analysis import analyse
from experiments.ablation.report.decide import Verdict
from experiments.ablation.report.page import page
from experiments.ablation.report.tables import answers_text, cells_csv, table_md
from experiments.ablation.report.words import Unit, p_text
from tests.experiments.ablation.outcomes import (
    ABOUT,
    QUOTED,
    classifiers,
    completed,
    example,
    grid,
    lost,
    small,
)


def written(outcomes, baseline="none", task="classification", **more):
    return table_md(analyse(outcomes, baseline=baseline, task=task, **more), ABOUT)


def csv_rows(outcomes):
    return list(csv.DictReader(io.StringIO(cells_csv(outcomes), newline="")))


def of_tests(cells, test):
    """Outcomes with these test accuracies, cell by cell."""
    return [completed(c, test_accuracy=t) for c, t in zip(cells, test, strict=True)]


def rows_of(text):
    """The rows of all tables: lists of cells, split as GitHub does it."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_main_table_by_hand():
    text = written(small())
    row = next(row for row in rows_of(text) if row[0] == "`bernoulli`")
    # Three seeds have no interval.
    assert row == [
        *("`bernoulli`", "`rate=0.3`", "2", "3", "93.67 ± 3.51"),
        *("85.00 ± 4.36", "85.00", "+3.00", "0.50", "0.83"),
    ]
    baseline = next(row for row in rows_of(text) if row[0] == "`none`")
    assert baseline[7:] == ["baseline", "-", "-"]


def test_the_intervals_of_six_seeds_by_hand():
    """They are the ranges: of 64 sign flips 2 are as far out, and 1/32 is at most 0.05."""
    cells = grid({"none": {}, "a": {}}, seeds=6)
    test = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.91, 0.93, 0.95, 0.94, 0.96, 0.98]
    text = written(of_tests(cells, test), test_examples=360)
    heads, _, first, second = rows_of(text)[:4]
    assert heads[5] == "test accuracy, %, of 360 examples: mean ± std [95 %]"
    assert heads[7:9] == ["difference, points [95 %]", "p"]
    assert first[5] == "92.50 ± 1.87 [90.00, 95.00]"
    assert second[5].endswith(" [91.00, 98.00]")
    assert second[7:] == ["+2.00 [+1.00, +3.00]", "0.031", "1.00"]
    assert "`a` is better than `none` by 2.00 points [1.00, 3.00], p = 0.031.\n" in text
    assert "(with 6 seeds 96.88 %)" in text


def test_the_mean_of_the_middle_half_leaves_out_a_seed_that_failed():
    cells = grid({"none": {}, "a": {}}, seeds=4)
    test = [0.90, 0.91, 0.92, 0.93, 0.50, 0.90, 0.91, 0.92]
    text = written(of_tests(cells, test))
    row = next(row for row in rows_of(text) if row[0] == "`a`")
    assert "90.50" in row and any(cell.startswith("80.75 ±") for cell in row)


def test_what_the_answer_is_about_stands_beside_it():
    outcomes = classifiers(grid({"none": {}, "a": {}}, seeds=6))
    said = "All of this is about the same 360 test examples, of which one is 0.28 points: p and"
    analysis = analyse(outcomes, baseline="none", task="classification", test_examples=360)
    before_the_table = table_md(analysis, ABOUT | {"warnings": ["Two."]}).partition("\n|")[0]
    assert said in before_the_table and "\n- **Two.**\n" in before_the_table
    assert said in page(analysis, outcomes, ABOUT, {}).partition("<h2>Table")[0]
    assert said in answers_text(analysis)
    assert "about one set of test examples" in written(outcomes)
    errors = [completed(o.cell, test_rmse=1.0 + o.cell.seed) for o in outcomes]
    text = written(errors, task="regression", test_examples=1)
    assert "the same 1 test example: p and" in text


def test_the_sentences_and_the_least_p_by_hand():
    text = written(small())
    assert text.startswith(
        "The experiment `mnist` with `none`, `bernoulli` as dropout on `digits` in "
        "`mlp(widths=(32,))`, 3 epochs; swept: `rate`; 3 seeds (0 to 2). 9 cells: 9 completed."
    )
    assert (
        "\n- Too few seeds to tell `bernoulli` (`rate=0.3`) from `none`: +3.00 points, p = 0.50."
        in text
    )
    assert "3 seeds cannot show a difference at the level 0.05, whatever the results" in text
    assert "the least p that so few can have is 0.25. It takes 6 seeds or more: --seeds=6." in text
    assert "3 seeds give no 95 % interval of the mean, 6 do" in text
    assert "[95 %" not in text and "[+" not in text


def test_a_difference_that_is_found_is_said_with_its_size_and_side():
    cells = grid({"none": {}, "bernoulli": {}, "zoneout": {}}, seeds=8)
    add = {"none": 0, "bernoulli": 0.0042, "zoneout": -0.01}
    test = [0.9 + 0.01 * c.seed + add[c.scheme] for c in cells]
    text = written(of_tests(cells, test))
    after = "p = 0.016 (both for 2 comparisons)."
    assert f"- `bernoulli` is better than `none` by 0.42 points [0.42, 0.42], {after}" in text
    assert f"- `zoneout` is worse than `none` by 1.00 points [1.00, 1.00], {after}" in text
    assert "cannot show" not in text and "nothing was chosen" in text
    errors = [completed(c, test_rmse=t) for c, t in zip(cells, test, strict=True)]
    text = written(errors, task="regression")
    assert "`bernoulli` is worse than `none` by 0.0042 RMSE [0.0042, 0.0042]" in text
    assert "`zoneout` is better than `none` by 0.0100 RMSE [0.0100, 0.0100]" in text


def test_more_comparisons_need_more_seeds():
    outcomes = classifiers(grid({"none": {}, "a": {}, "b": {}, "c": {}}, seeds=6))
    text = written(outcomes)
    assert "have is 0.031, or 0.094 for 3 comparisons. It takes 7 seeds or more: --seeds=7." in text
    heads, _, first = rows_of(text)[:3]
    assert heads[7:9] == ["difference, points", "p (times 3)"]
    # The means of single schemes have an interval by then.
    assert heads[5].endswith("± std [95 %]") and first[5].endswith("]")
    text = written(classifiers(grid({"none": {}, "a": {}, "b": {}, "c": {}}, seeds=7)))
    assert rows_of(text)[0][7] == "difference, points [95 % for all 3]"
    assert "all 3 hold at once with a chance of at least 95 % (with 7 seeds 95.31 %)" in text


def test_no_difference_found_is_said_where_one_could_have_been():
    cells = grid({"none": {}, "a": {}}, seeds=8)
    test = [0.9] * 8 + [0.91, 0.89] * 4
    text = written(of_tests(cells, test))
    assert "- No difference found between `a` and `none`: +0.00 points [-" in text
    assert ", p = 1.0.\n" in text


SENTENCE = re.compile(
    r"^- (?P<verdict>No difference found|`a` is better|`a` is worse).* points "
    r"\[(?P<low>[-+.\d]+), (?P<high>[-+.\d]+)\], p = (?P<p>\d\.\d+)",
    re.MULTILINE,
)
ENDS = re.compile(r"\[([-+.\d]+), ([-+.\d]+)\]$")


def test_no_sentence_and_no_row_contradicts_itself():
    """By the texts: a difference is found, its interval is without 0, its p is at most 0.05."""
    rng = np.random.default_rng(0)
    effects, seen = {"none": 0, "a": 0.9, "b": -1.5, "c": 0}, set()
    for i in range(120):
        schemes = ("none", "a", "b", "c")[: 2 + 2 * (i % 2)]
        cells = grid({scheme: {} for scheme in schemes}, seeds=int(rng.integers(7, 11)))
        examples, noise = ((360, 0.001), (10_000, 0.004), (7, 0.1))[i % 3]
        shares = [0.9 + noise * (rng.normal() + effects[c.scheme]) for c in cells]
        shares = np.clip(np.round(examples * np.array(shares)), 0, examples) / examples
        text = written(of_tests(cells, shares), test_examples=examples)
        match = SENTENCE.search(text)
        assert match, text
        found = match["verdict"] != "No difference found"
        low, high, p = (float(match[name]) for name in ("low", "high", "p"))
        assert found == (low > 0 or high < 0) == (p <= 0.05), match[0]
        seen.add(found)
        for row in rows_of(text)[2 : 2 + len(schemes)]:
            low, high = map(float, ENDS.search(row[5]).groups())
            assert 0 <= low <= high <= 100, row
            if row[7] != "baseline":
                low, high = map(float, ENDS.search(row[7]).groups())
                assert (low > 0 or high < 0) == (float(row[8]) <= 0.05), row
    assert seen == {True, False}


def test_what_is_nearly_0_or_nearly_the_level_does_not_look_like_it():
    assert p_text(0.05, 0.05) == "0.050" and p_text(0.0501, 0.05) == "0.0501"
    assert p_text(0.05000004, 0.05) == "0.0500000400" and p_text(0.0312, 0.05) == "0.031"
    unit = Unit(analyse(small(), baseline="none", task="classification"))
    assert unit.interval(0.00002, 0.01, sign=True) == " [+0.002, +1.00]"
    assert unit.interval(-0.01, -1e-7) == " [-1.00, -0.00001]"
    assert unit.interval(0.0, 0.01) == " [0.00, 1.00]"
    assert unit.interval(-math.inf, 2.0, sign=True) == " [-100.00, +100.00]"


def test_one_seed_has_no_interval_and_more_than_twenty_a_monte_carlo_p():
    one, twenty, more = (
        written(classifiers(grid({"none": {}, "a": {}}, seeds=seeds))) for seeds in (1, 20, 21)
    )
    assert "nan" not in one and "±" not in "".join(map("".join, rows_of(one)[2:4]))
    assert "1 seed cannot show a difference" in one
    assert "two-sided, exact" in twenty and "two-sided, Monte-Carlo" in more


def test_why_nothing_was_chosen_stands_in_the_table():
    outcomes = small()
    outcomes[3] = lost(outcomes[3].cell, "diverged")
    outcomes[6] = lost(outcomes[6].cell, "failed", "no memory")
    text = written(outcomes)
    row = next(row for row in rows_of(text) if row[0] == "`bernoulli`")
    why = "each of its 2 settings is without some of its seeds (1 diverged, 1 failed)"
    assert row[1] == f"none: {why}" and row[3:] == ["-"] * 7
    assert f"- `bernoulli` is not compared: {why}." in text
    assert "2 of 3 settings could not be chosen" in text


def test_a_table_of_two_flags_shows_each_pair():
    outcomes = example()
    text = written(outcomes)
    means = {}
    for o in outcomes:
        if o.cell.scheme == "bernoulli" and o.status == "completed":
            pair = o.cell.setting["rate"], o.cell.setting["batch_size"]
            means.setdefault(pair, []).append(o.result["test_accuracy"])
    section = text[text.index("### rate and batch_size") :]
    table = rows_of(section)[:5]
    assert table[0] == ["`rate, batch_size`", "`32`", "`128`"]
    for row, rate in zip(table[2:], (0.1, 0.3, 0.5), strict=True):
        for cell, size in zip(row[1:], (32, 128), strict=True):
            found = means[rate, size]
            shown = f" / {100 * sum(found) / 7:.2f}" if len(found) == 7 else "-"
            assert cell.endswith(shown)
    assert "### rate" not in written(small())


def test_every_cell_is_behind_a_row_and_lost_ones_say_why():
    outcomes = example()
    text = written(outcomes)
    trace = text[text.index("The cells behind each setting") :]
    assert re.findall(r"c\d{4}", trace) == [o.cell.id for o in outcomes]
    listed = text[text.index("### Without a result") : text.index("### Where the numbers")]
    assert [row[0] for row in rows_of(listed)[2:]] == ["`c0001`", "`c0022`"]
    assert "`` OSError: <b>no \\| `space`</b> left ``" in listed


def test_a_bar_in_a_scheme_ends_no_cell():
    text = written(example())
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(row) for row in rows_of(table)}) == 1
    shown = "`" + QUOTED.replace("|", "\\|") + "`"
    assert any(row[0] == shown for row in rows_of(text))
    assert f"`{QUOTED}`" in text.partition("\n|")[0]
    # The path of the data is left out.
    assert "--epochs=3" in text and "/data" not in text and "data_dir" not in text


def test_cells_csv_gives_back_what_was_measured():
    outcomes = example()
    rows = csv_rows(outcomes)
    assert len(rows) == len(outcomes)
    flags = ["batch_size", "data_dir", "dropout", "epochs", "rate", "seed"]
    assert list(rows[0])[:9] == ["id", "status", "scheme", *flags]
    for row, o in zip(rows, outcomes, strict=True):
        cell = o.cell
        assert (row["id"], row["status"], row["scheme"]) == (cell.id, o.status, cell.scheme)
        assert (row["error"], row["command"]) == (o.error, cell.command)
        for name in flags:
            value = cell.config[name]
            assert row[name] == ("" if value is None else str(value))
        for name in ("train_accuracy", "validation_nll", "test_accuracy", "mc_test_accuracy"):
            found = float(row[name]) if row[name] else None
            assert found == o.result.get(name)
    assert not any("seconds" in name for name in rows[0])


def test_what_a_scheme_has_learned_is_json_and_a_chain_s_rate_is_there():
    cell = grid({"concrete|bernoulli": {"rate": [0.25]}}, seeds=1)[0]
    cell.config["rate"] = None
    outcome = completed(cell, learned={"hidden": {"rate": 0.25}}, resumed_from_step=7)
    (row,) = csv_rows([outcome])
    assert row["learned"] == '{"hidden": {"rate": 0.25}}' and "resumed_from_step" not in row
    assert row["rate"] == "0.25"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 2500.0])
def test_errors_of_regression_have_four_digits(scale):
    cells = grid({"none": {}, "a": {}}, seeds=3)
    values = [1.5, 1.6, 1.7, 1.2, 1.3, 1.4]
    outcomes = [completed(c, test_rmse=v * scale) for c, v in zip(cells, values, strict=True)]
    row = next(r for r in rows_of(written(outcomes, task="regression")) if r[0] == "`none`")
    expected = {1e-3: "0.001600 ± 0.000100", 1.0: "1.600 ± 0.100", 2500.0: "4000 ± 250"}[scale]
    assert row[5] == expected


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        # It turned after it was decided: mean and interval are those of the decision.
        (
            Verdict("bernoulli", (0.01,) * 7 + (-0.2,), 7, 0.95, 0),
            "`bernoulli` (`rate=0.3`) is better than `none`: decided after 7 of 8 more seeds, "
            "+1.00 points [+1.00, +1.00]",
        ),
        (
            Verdict("bernoulli", (-0.02, -0.01) * 4, 8, 0.95, 2),
            "`bernoulli` (`rate=0.3`) is worse than `none`: decided after 8 of 8 more seeds, "
            "-1.50 points [-",
        ),
        (
            Verdict("bernoulli", (), 0, 0.95, 3),
            "Not decided between `bernoulli` (`rate=0.3`) and `none` by 0 more seeds: - points "
            "[-100.00, +100.00]; 3 pairs without a result.",
        ),
    ],
)
def test_what_added_seeds_say(verdict, sentence):
    analysis = analyse(small(), baseline="none", task="classification")
    analysis = dataclasses.replace(analysis, verdicts=(verdict,))
    text = table_md(analysis, ABOUT)
    assert f"\n- {sentence}" in text and "Seeds from 3 on, which had no part" in text
    assert ("2 pairs without a result." in text) == (verdict.lost == 2)
    assert "Seeds added until it was decided" in page(analysis, small(), ABOUT, {})


def test_lower_errors_are_better_there_too():
    cells = grid({"none": {}, "bernoulli": {"rate": [0.1]}}, seeds=3)
    outcomes = [completed(c, test_rmse=1.0, validation_rmse=1.0) for c in cells]
    analysis = analyse(outcomes, baseline="none", task="regression")
    verdict = Verdict("bernoulli", (-0.5,) * 6, 6, 0.95, 0)
    text = table_md(dataclasses.replace(analysis, verdicts=(verdict,)), ABOUT)
    assert (
        "(`rate=0.1`) is better than `none`: decided after 6 of 6 more seeds, -0.500 RMSE" in text
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+1+1", "'+1+1"),
        ("-x.npz", "'-x.npz"),
        ("\t=1", "'\t=1"),
        ("+0.5", "+0.5"),
        ("-1e-3", "-1e-3"),
        ("a=b", "a=b"),
    ],
)
def test_no_text_is_a_formula_in_a_spreadsheet(text, shown):
    cell = dataclasses.replace(grid({"none": {}}, seeds=1)[0], scheme=text, command=text)
    cell.config["dropout"] = text
    outcome = dataclasses.replace(completed(cell, test_r2=-0.5), error=text)
    (row,) = csv_rows([outcome])
    assert {row[name] for name in ("scheme", "command", "error", "dropout")} == {shown}
    assert row["test_r2"] == "-0.5"
