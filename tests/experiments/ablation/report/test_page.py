"""The page stands alone, says all, and lets nothing of the user's text become markup."""

import html.parser
import re

import pytest

from experiments.ablation.report.analysis import analyse
from experiments.ablation.report.figures import Picture
from experiments.ablation.report.page import page
from tests.experiments.ablation.outcomes import ABOUT, QUOTED

VOID = {"meta", "img", "wbr", "br"}
PNG = b"\x89PNG"


class Reader(html.parser.HTMLParser):
    """Elements, text, and whether what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def text(analysis, outcomes):
    return page(analysis, outcomes, ABOUT, {'Error & "rate"': Picture("Means <n>.", PNG)})


@pytest.fixture(scope="module")
def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_it_refers_to_nothing_outside(text, read):
    assert not {tag for tag, _ in read.elements} & {"script", "link", "iframe", "object"}
    sources = [attrs["src"] for _, attrs in read.elements if "src" in attrs]
    assert sources == ["data:image/png;base64,iVBORw=="]
    assert not [attrs for _, attrs in read.elements if "href" in attrs]
    assert "url(" not in text and "@import" not in text


def test_the_answer_comes_first(text):
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads == [
        *("Answer", "Table", "Figures", "All settings", "Without a result", "Cells", "About")
    ]
    first = text[text.index("<h2>Answer") : text.index("<h2>Table")]
    assert "<code>bernoulli</code> (<code>rate=0.3, batch_size=32</code>) is better than" in first


def test_what_the_user_wrote_is_text(read):
    said = "".join(read.text)
    assert QUOTED in said
    assert "OSError: <b>no | `space`</b> left" in said
    assert not [tag for tag, _ in read.elements if tag in ("b", "hidden")]


def test_every_cell_has_its_id_result_and_command(read, outcomes):
    said = "".join(read.text)
    cells = said[said.index("All 70 cells") :]
    for o in outcomes:
        assert o.cell.id in cells and o.cell.command in cells
        if o.status == "completed":
            assert f"{100 * o.result['test_accuracy']:.2f}" in cells


def test_tables_have_scopes_and_pictures_words(read):
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in read.elements if tag == "th")
    (alt,) = [attrs["alt"] for tag, attrs in read.elements if tag == "img"]
    assert alt == 'Error & "rate"' and 'Error & "rate". Means <n>.' in "".join(read.text)
    assert ("html", {"lang": "en"}) in read.elements


def test_it_says_where_the_numbers_come_from(read):
    said = "".join(read.text)
    for fact in (ABOUT["command"], "58618fc6", "versions.jax", "0.10.2", "7 seeds (0 to 6)"):
        assert fact in said
    assert "git_commit" not in said  # there is none


def test_without_figures_or_losses_it_says_so(outcomes):
    whole = [o for o in outcomes if o.cell.scheme == "none"]
    analysis = analyse(whole, baseline="none", task="classification")
    text = page(analysis, whole, ABOUT, {})
    assert "<h2>Figures" not in text and "None: every cell has one." in text
    assert "There is no scheme to compare with <code>none</code>" in text


@pytest.mark.parametrize(
    ("dataset", "title"),
    [("mnist", "mnist"), ("/home/a <b>/own$.npz", "own$.npz")],
)
def test_the_title_names_the_data(analysis, outcomes, dataset, title):
    about = ABOUT | {"shared": ABOUT["shared"] | {"dataset": dataset}}
    text = page(analysis, outcomes, about, {})
    assert f"<h1>Ablation of dropout on {title}</h1>" in text
    assert f"<title>Ablation of dropout on {title}</title>" in text and "<b>" not in text


def test_warnings_and_the_reason_why_a_figure_is_missing_are_text(analysis, outcomes):
    about = ABOUT | {"warnings": ["Mixed: <b>a</b>"]}
    text = page(analysis, outcomes, about, {}, {"Learning curves": "OSError: <b>"})
    first = text[text.index("<h2>Answer") : text.index("<h2>Table")]
    assert "<strong>Mixed: &lt;b&gt;a&lt;/b&gt;</strong>" in first
    assert "<h2>Figures" in text and "Learning curves is missing: OSError: &lt;b&gt;." in text
