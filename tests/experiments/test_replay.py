"""What is printed of a step: its rows, shares and masks, or why there is none."""

import dataclasses
import re
import shutil
import types

import numpy as np
import pytest

from dropjax import runs
from experiments import replay
from experiments.replay import _with_values, draw_picture, lines
from tests.experiments.conftest import rewrite

TEXT = 'bernoulli(rate=0.4)|gaussian(rate=0.2,at="input")|dropconnect(rate=0.3)'
# The last step of an epoch: of 13 examples instead of 256, so that a picture of it is soon drawn.
SHORT = 5


@pytest.fixture(scope="module")
def whole(some_run) -> runs.Run:
    """As its folder has it."""
    return runs.load(some_run)


@pytest.fixture(scope="module")
def run(whole) -> runs.Run:
    """As if it had had another scheme, at its full strength."""
    config = whole.config | {"flags": whole.config["flags"] | {"strength": "1"}}
    return under(dataclasses.replace(whole, config=config), TEXT)


def under(run: runs.Run, scheme: str, logits: dict[str, float] | None = None) -> runs.Run:
    """The run as if it had had another scheme, which has learned these logits by site."""
    network = runs.Network.rebuild(run.config["flags"]["model"], scheme, run.config["network"])
    learned = {site: {"logit": np.float32(logit)} for site, logit in (logits or {}).items()}
    return dataclasses.replace(run, network=network, values=run.values | {"learned": learned})


def printed(run: runs.Run, step: int, row: int | None = None, at: str = "") -> list[str]:
    return lines(run, step, row, at)[0]


def section(text: list[str], site: str) -> list[str]:
    """The picture of a site: its title and what follows."""
    start = next(i for i, line in enumerate(text) if line.startswith(f"{site}, "))
    end = text.index("", start) if "" in text[start:] else len(text)
    return text[start:end]


def cells(text: list[str], site: str) -> list[str]:
    return re.split(r"  +", next(line for line in text if line.startswith(f"{site} ")))


def test_the_batch_the_shares_and_a_line_an_example(run):
    text, rows = printed(run, 5), run.batch(5)  # the last of an epoch of 6
    assert len(rows) == run.config["train_examples"] - 5 * 256 < 256
    assert text[0] == "step 5 of 0 to 11, in epoch 0 of 0 to 1"
    said = f"batch: {len(rows)} examples (the epoch's last batch, which is not 256), these rows"
    assert said in text[1] and "last batch" not in printed(run, 4)[1]
    assert [int(n) for n in " ".join(text[2 : text.index("")]).split()] == rows.tolist()
    noise = run.noise(5, rows)
    (keep,) = noise["layer_0/hidden"]
    dropped = 1 - keep.mean(axis=1)
    said = cells(text, "layer_0/hidden")
    assert said[1:5] == ["bernoulli(rate=0.4)", "0.4", "(32,)", f"{dropped.mean():.4f}"]
    assert said[5] == f"{dropped.min():.4f} to {dropped.max():.4f} of an example"
    title, *picture = section(text, "layer_0/hidden")
    assert title.endswith("# kept, . dropped") and len(picture) == len(rows)
    for line, row, mask in zip(picture, rows, keep, strict=True):
        head, drawn = line.split()
        assert int(head) == row and drawn == "".join(np.where(mask, "#", "."))


def test_noise_that_all_share_is_shown_once_and_numbers_have_moments(run):
    text, rows = printed(run, 2), run.batch(2)
    (keep,) = run.noise(2, int(rows[0]), at="layer_0/linear")["layer_0/linear"]
    assert cells(text, "layer_0/linear")[4:] == [f"{1 - keep.mean():.4f}", "the same for all"]
    title, *picture = section(text, "layer_0/linear")
    assert "of all examples" in title and "the first 32 x 32 of 64 x 32" in title
    assert [line.strip() for line in picture] == ["".join(r) for r in np.where(keep, "#", ".")[:32]]
    (normal,) = run.noise(2, rows, at="input")["input"]
    said = f"nothing; noise of mean {normal.mean():.4f}, deviation {normal.std():.4f}"
    assert cells(text, "input")[4] == said
    assert "the first 256 x 64" not in section(text, "input")[0]  # 64 units: all of them


def test_one_row_is_shown_whole_and_sites_can_be_chosen(run):
    row = int(run.batch(2)[3])
    text = printed(run, 2, row, "hidden|input")
    assert not any(line.startswith("layer_0/linear") for line in text)
    (keep,) = run.noise(2, row)["layer_0/hidden"]
    title, picture = section(text, "layer_0/hidden")
    assert title.endswith(f", of row {row}") and f"dropped, row {row}" in "\n".join(text)
    assert picture.strip() == "".join(np.where(keep, "#", "."))
    assert [len(line.strip()) for line in section(text, "input")[1:]] == [8] * 8
    assert cells(text, "layer_0/hidden")[4] == f"{1 - keep.mean():.4f}"


def test_a_scheme_that_learns_is_shown_under_what_it_learned_last(run):
    learned = under(run, "tests.throwaway:LearnedRate(rate=0.5)", {"layer_0/hidden": 1.5})
    text = printed(learned, 3)
    (noise,) = learned.replay(learned=learned.values["learned"]).noise(3, learned.batch(3)).values()
    spread = 0.5 / (1 + np.exp(-1.5))
    np.testing.assert_allclose(np.abs(noise[0] - 1), spread, rtol=1e-5)
    said = f"nothing; noise of mean {noise[0].mean():.4f}, deviation {noise[0].std():.4f}"
    assert cells(text, "layer_0/hidden")[4] == said
    assert "NOTE: the scheme learns" in "\n".join(text) and "by step 12" in "\n".join(text)
    with pytest.raises(ValueError, match="learned="):
        learned.noise(3, learned.batch(3))


def test_layers_with_noise_of_their_own_form_say_so(run):
    said = cells(printed(under(run, "tests.throwaway:PreActivation"), 3), "head/linear")
    assert said[-1] == "its noise depends on the dense layer's input"


@pytest.mark.parametrize(
    ("step", "row", "at", "words"),
    [
        (12, None, "", "no step 12: they go from 0 to 11"),
        (-1, None, "", "no step -1"),
        (0, None, "head/hidden", "names no site that"),
        (0, None, "(", "not a regular expression"),
        (0, 10**6, "", "no row 1000000"),
        (0, "other", "", r"was not in the batch of step 0, where the nearest are \d+( and \d+)?;"),
    ],
)
def test_what_there_is_not_is_refused(run, step, row, at, words):
    if row == "other":
        row = int(run.batch(1)[0])
        words += " in that epoch it was in step 1"
    with pytest.raises(ValueError, match=words):
        printed(run, step, row, at)


def test_no_scheme_no_masks(run):
    with pytest.raises(ValueError, match="scheme is none: every example saw the whole network"):
        printed(under(run, "none"), 0)


def test_a_run_of_another_stream_or_an_older_version(run, tmp_path):
    changes = {"stream 1": {"mask_stream": 1}, "examples=": {"train_examples": None}}
    for words, change in changes.items():
        folder = tmp_path / next(iter(change))
        shutil.copytree(run.folder, folder)
        rewrite(folder / "config.json", lambda config, change=change: config.update(change))
        with pytest.raises(runs.RunError, match=words):
            runs.load(folder).batch(0)
    older, examples = runs.load(folder), run.config["train_examples"]
    np.testing.assert_array_equal(older.replay(examples=examples).batch(7), run.batch(7))
    with pytest.raises(runs.RunError, match=f"but the run had {examples}"):
        run.replay(examples=examples + 1)


def test_a_picture_s_file_need_not_be_named():
    for given, taken in {
        "--png": "--png=",
        "-png": "--png=",
        "--png=a.png": "--png=a.png",
        "--png a.png": "--png a.png",
        "--png --row=1": "--png= --row=1",
        "--step=1 --png": "--step=1 --png=",
    }.items():
        assert _with_values(["replay", *given.split()]) == ["replay", *taken.split()]


@pytest.mark.parametrize("one", [False, True])
def test_a_picture_is_written(run, tmp_path, one):
    batch = run.batch(SHORT)
    row = int(batch[0]) if one else None
    draw_picture(lines(run, SHORT, row, "")[1], batch, row, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_names_in_a_picture_are_no_mathematics(run, tmp_path):
    """A pair of "$" would be, and is an error where it makes no sense."""
    row = int(run.batch(2)[0])
    seen = lines(run, 2, row, "")[1][:1]
    odd = [
        dataclasses.replace(part, scheme=r'a(at="\frac{$")|b(at="$' + "\n\0\udcff") for part in seen
    ]
    draw_picture(odd, run.batch(2), row, tmp_path / "a$b$.png")
    assert (tmp_path / "a$b$.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_it_and_draws_a_picture(whole, python, tmp_path):
    start = ("-m", "experiments.replay", f"--run={whole.folder}")
    done = python(*start, f"--step={SHORT}", "--png", "--site=hidden", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    picture = ["", f"picture: step_{SHORT}.png"]
    assert done.stdout.splitlines() == printed(whole, SHORT, None, "hidden") + picture
    assert (tmp_path / f"step_{SHORT}.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_said_in_a_line(whole, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(whole.folder.parent))
    given = {"run": f"~/{whole.folder.name}", "step": SHORT, "row": None, "site": "hidden"}
    given["png"] = str(whole.folder / "none" / "a.png")
    monkeypatch.setattr(replay.flags, "FLAGS", types.SimpleNamespace(**given))
    assert replay.main(["replay"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == printed(whole, SHORT, None, "hidden")
    assert err == f"replay: {given['png']} was not drawn: No such file or directory\n"
    replay.flags.FLAGS.step = 99
    assert replay.main(["replay"]) == 2
    assert capsys.readouterr() == ("", "replay: there is no step 99: they go from 0 to 11\n")
