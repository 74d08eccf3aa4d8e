import pytest

from dropjax.core.text import aligned, counted

ROWS = [["", "of", "b"], ["name", "1.25", "x"], ["a", "10", ""]]


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned(ROWS) == ["      of    b", "name  1.25  x", "a     10"]
    assert aligned([]) == []


def test_numbers_end_at_the_right():
    assert aligned(ROWS, right=True) == ["        of  b", "name  1.25  x", "a       10"]


def test_a_column_has_its_least_width():
    assert aligned(ROWS, right=True, least=(6, 3, 2)) == [
        "          of   b",
        "name    1.25   x",
        "a         10",
    ]


def test_a_frame_stands_around_the_cells():
    assert aligned(ROWS, frame=("| ", " | ", " |")) == [
        "|      | of   | b |",
        "| name | 1.25 | x |",
        "| a    | 10   |   |",
    ]


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        aligned([["a", "b"], ["c"]])


def test_a_noun_has_its_plural():
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]
