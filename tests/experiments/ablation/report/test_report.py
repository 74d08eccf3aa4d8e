"""The files of an ablation."""

import sys

import pytest

from experiments.ablation import report
from experiments.ablation.report import figures, write
from experiments.ablation.report.page import page
from experiments.ablation.report.tables import cells_csv, table_md
from tests.experiments.ablation.outcomes import ABOUT, example


def test_all_files_are_written_the_same_for_the_same_outcomes(tmp_path, outcomes, drawn):
    folder = tmp_path / "new" / "first"
    analysis = write(folder, outcomes, ABOUT, baseline="none", task="classification")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    assert set(files) == {"cells.csv", "report.html", "table.md"} | {
        f"figures/{name}.png"
        for name in (
            *("test_error_against_rate", "differences_seed_by_seed", "learning_curves"),
            *("training_and_test_error", "error_against_rate_and_batch_size"),
        )
    }
    assert files["cells.csv"].decode() == cells_csv(outcomes)
    assert files["table.md"].decode() == table_md(analysis, ABOUT)
    again = {picture.png for picture in drawn.pictures.values()}
    assert {data for name, data in files.items() if name.startswith("figures/")} == again
    whole = page(analysis, outcomes, ABOUT, drawn.pictures)
    assert files["report.html"].decode() == whole


def test_nothing_is_written_when_it_cannot_be_analysed(tmp_path):
    with pytest.raises(ValueError, match="baseline"):
        write(tmp_path / "a", example(), ABOUT, baseline="nothing", task="classification")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def broken(monkeypatch):
    """No figure can be drawn."""

    def refuse(*arguments):
        raise MemoryError("no room")

    for name in ("error_against_rate", "paired_differences", "learning_curves"):
        monkeypatch.setattr(figures, name, refuse)
    for name in ("train_test_gap", "heat_map"):
        monkeypatch.setattr(figures, name, lambda *arguments: None)


def test_figures_that_cannot_be_drawn_are_said_and_all_else_is_written(tmp_path, broken, capsys):
    analysis = write(tmp_path, example(), ABOUT, baseline="none", task="classification")
    assert (tmp_path / "table.md").read_text() == table_md(analysis, ABOUT)
    assert (tmp_path / "cells.csv").exists() and not list((tmp_path / "figures").iterdir())
    said, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    assert said.startswith("figure missing: Test error against rate: MemoryError: no room\n")
    assert page.count("MemoryError: no room") == said.count("figure missing: ") == 3
    assert "Learning curves is missing: MemoryError: no room." in page


def test_a_matplotlib_that_is_broken_costs_the_figures_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "experiments.ablation.report.figures", None)
    write(tmp_path, example(), ABOUT, baseline="none", task="classification")
    assert "Each figure is missing: ModuleNotFoundError" in (tmp_path / "report.html").read_text()
    assert "figure missing: Each figure: ModuleNotFoundError" in capsys.readouterr().out


def test_a_process_killed_while_it_draws_has_written_the_rest(tmp_path, monkeypatch):
    def kill(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_draw", kill)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, example(), ABOUT, baseline="none", task="classification")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("cells.csv", "table.md", "report.html", "figures")
    }
    assert "Each figure is missing: it was not drawn yet" in (tmp_path / "report.html").read_text()


def test_only_figures_of_an_ablation_are_removed(tmp_path, broken):
    (tmp_path / "figures").mkdir()
    for name in ("learning_curves.png", "error_against_rate_and_epochs.png", "mine.png"):
        (tmp_path / "figures" / name).write_bytes(b"")
    write(tmp_path, example(), ABOUT, baseline="none", task="classification")
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]


def test_bytes_of_a_name_that_are_no_text_end_nothing(tmp_path, broken):
    about = ABOUT | {"shared": ABOUT["shared"] | {"dataset": "/data/\udcff.npz"}}
    write(tmp_path, example(), about, baseline="none", task="classification")
    assert "Ablation of dropout on \\udcff.npz" in (tmp_path / "report.html").read_text()
