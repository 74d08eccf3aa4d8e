"""The files of an ablation."""

import pytest

from experiments.ablation.output import write
from experiments.ablation.tables import cells_csv, table_md
from tests.experiments.ablation.outcomes import ABOUT, example


def test_all_files_are_written_and_written_again_the_same(tmp_path):
    outcomes = example()
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
    write(folder, outcomes, ABOUT, baseline="none", task="classification")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")} == files


def test_nothing_is_written_when_it_cannot_be_analysed(tmp_path):
    with pytest.raises(ValueError, match="baseline"):
        write(tmp_path / "a", example(), ABOUT, baseline="nothing", task="classification")
    assert not (tmp_path / "a").exists()
