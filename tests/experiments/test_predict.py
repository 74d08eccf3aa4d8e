"""Pictures of every sort, classified by a finished run."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dropjax import data, runs
from experiments.predict import ImageError, lines, read_image

SHAPE = (8, 8, 1)
DIGITS = data.load("digits", None, say=pytest.fail)
# 16 levels, so that 8 bits hold an image of the digits exactly.
PIXELS = np.rint(DIGITS.x_test[0, :, :, 0] * (255 / 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(small_run) -> runs.Run:
    return runs.load(small_run())


@pytest.fixture(scope="module")
def colours(small_run, npz) -> runs.Run:
    """A run on coloured pictures, red or blue, two classes of one output."""
    y = np.arange(90) % 2
    x = np.random.default_rng(0).integers(0, 60, (90, 6, 4, 3), np.uint8)
    x[np.arange(90), :, :, 2 * y] += 190
    arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    return runs.load(small_run(dataset=npz(**arrays), batch_size=16))


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def read(path: Path, shape=SHAPE, top: float = 16, *, invert: bool = False) -> np.ndarray:
    return read_image(path, shape, top, invert=invert)


def printed(run: runs.Run, *paths: Path, samples=5, top=3, invert=False) -> list[str]:
    return lines(run, [str(p) for p in paths], samples=samples, top=top, invert=invert)


GRAY = Image.fromarray(PIXELS)
AS_PNG = {
    "gray": GRAY,
    "gray and alpha": GRAY.convert("LA"),
    "colours": GRAY.convert("RGB"),
    "colours and alpha": GRAY.convert("RGBA"),
    "palette": GRAY.quantize(256),
    "16 bits": Image.fromarray(PIXELS.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", AS_PNG)
def test_any_png_of_a_digit_is_that_digit(tmp_path, name):
    image = read(saved(AS_PNG[name], tmp_path / "a.png"))
    assert image.shape == SHAPE and image.dtype == np.uint8
    np.testing.assert_array_equal(image, DIGITS.x_test[0])


def test_formats_without_loss_agree_and_a_jpeg_nearly(tmp_path):
    for name in ("a.bmp", "a.gif", "a.tiff", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        image = read(saved(GRAY, tmp_path / name, **options))
        np.testing.assert_array_equal(image, DIGITS.x_test[0], err_msg=name)
    image = read(saved(GRAY, tmp_path / "a.jpg", quality=95))
    assert np.abs(image.astype(int) - DIGITS.x_test[0]).max() <= 1


def test_one_bit_is_black_or_white(tmp_path):
    image = read(saved(GRAY.point(lambda p: p > 100, "1"), tmp_path / "a.png"))
    np.testing.assert_array_equal(image[..., 0], np.where(PIXELS > 100, 16, 0))


def test_pictures_of_floats_and_of_32_bits_are_refused_rather_than_guessed(tmp_path):
    """Their white is no fixed number."""
    for dtype in (np.float32, np.int32):
        path = saved(Image.fromarray(PIXELS.astype(dtype)), tmp_path / "a.tiff")
        with pytest.raises(ImageError, match=r"a\.tiff"):
            read(path)


def test_what_is_transparent_is_white(tmp_path):
    clear = np.dstack([PIXELS, np.where(np.arange(8) < 4, 255, 0) + 0 * PIXELS]).astype(np.uint8)
    wanted = DIGITS.x_test[0].copy()
    wanted[:, 4:] = 16
    np.testing.assert_array_equal(
        read(saved(Image.fromarray(clear, "LA"), tmp_path / "a.png")), wanted
    )
    palette = Image.fromarray(np.eye(8, dtype=np.uint8)).convert("P")
    image = read(saved(palette, tmp_path / "b.png", transparency=1))
    assert (image[np.arange(8), np.arange(8)] == 16).all() and image[0, 1] == 0


def test_invert_turns_dark_on_bright_round(tmp_path):
    path = saved(ImageOps.invert(GRAY), tmp_path / "a.png")
    np.testing.assert_array_equal(read(path, invert=True), DIGITS.x_test[0])
    np.testing.assert_array_equal(read(path), 16 - DIGITS.x_test[0])


@pytest.mark.parametrize("shape", [(6, 4, 3), (6, 4, 1)])
def test_a_picture_of_another_size_is_resized_to_height_and_width(tmp_path, shape):
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[:30, :20, 0] = 255  # the upper left is red
    image = read(saved(Image.fromarray(pixels), tmp_path / "a.png"), shape, 255)
    wanted = [255, 0, 0] if shape[2] == 3 else [76]
    assert image.shape == shape
    quarter = (np.arange(6) < 3)[:, None, None] * (np.arange(4) < 2)[None, :, None]
    np.testing.assert_allclose(image, quarter * np.array(wanted), atol=40)


def test_a_huge_picture_is_taken_and_a_bomb_is_not(tmp_path, monkeypatch):
    path = saved(Image.new("L", (6000, 4000), 255), tmp_path / "a.png")
    assert (read(path) == 16).all()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)
    with pytest.raises(ImageError, match=r"a\.png is no image that can be read.*exceeds limit"):
        read(path)


def test_no_damage_ends_in_another_error(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "a"
    picture = Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8))
    for form in ("PNG", "JPEG", "GIF", "TIFF", "PPM"):
        picture.save(path, form)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for at in rng.integers(0, min(len(whole), 300), 2):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(1, 2 * len(whole))])
            try:
                with warnings.catch_warnings(action="ignore"):
                    assert read(path).shape == SHAPE
            except ImageError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "no permission"])
def test_what_is_no_picture_is_named(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "text")
    if kind == "no permission":
        path.chmod(0)
    words = "there is no file" if kind == "missing" else "no image that can be read"
    with pytest.raises(ImageError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 8), (5,)])
def test_a_network_that_takes_no_pictures_is_refused(tmp_path, shape):
    with pytest.raises(ImageError, match=re.escape(f"their shape is {shape}")):
        read(saved(GRAY, tmp_path / "a.png"), shape)


def test_a_table_shows_what_the_run_predicts(run, tmp_path):
    paths = [saved(GRAY, tmp_path / "a.png"), saved(ImageOps.invert(GRAY), tmp_path / "b.png")]
    text = printed(run, *paths, samples=7)
    first, second = text[:5], text[5:]
    assert first[0] == str(paths[0]) and second[0] == str(paths[1])
    assert first[1].split() == ["class", "probability", "7", "draws"]
    plain = run.predict(DIGITS.x_test[:1])[0]
    mean, spread = (part[0] for part in run.predict_with_spread(DIGITS.x_test[:1], samples=7))
    for line, label in zip(first[2:], np.argsort(-mean)[:3], strict=True):
        values = [f"{value[label]:.4f}" for value in (plain, mean, spread)]
        assert line.split() == [str(label), values[0], values[1], "+-", values[2]]
    assert "NOTE" in second[1] and "--invert" in second[1] and "NOTE" not in "".join(first)
    again = printed(run, paths[1], samples=7, invert=True)
    assert again[1:] == first[1:]


def test_top_is_the_number_of_classes_shown(run, tmp_path):
    path = saved(GRAY, tmp_path / "a.png")
    assert [len(printed(run, path, top=n)) for n in (1, 10, 99)] == [3, 12, 12]


def test_two_classes_of_one_output_add_up(colours, tmp_path):
    path = saved(Image.new("RGB", (50, 50), (0, 0, 230)), tmp_path / "blue.png")
    text = printed(colours, path)
    assert len(text) == 4 and "NOTE" not in "".join(text)
    (label, plain, mean, _, spread), other = (line.split() for line in text[2:])
    assert (label, other[0]) == ("1", "0") and float(plain) > 0.6
    assert float(plain) + float(other[1]) == pytest.approx(1, abs=2e-4)
    assert float(mean) + float(other[2]) == pytest.approx(1, abs=2e-4) and spread == other[4]


def test_without_noise_there_is_no_column_of_draws(small_run, tmp_path):
    still = runs.load(small_run(dropout="none", mc_samples=None, epochs=1))
    text = printed(still, saved(GRAY, tmp_path / "a.png"))
    assert text[1].split() == ["class", "probability"]
    assert all(len(line.split()) == 2 for line in text[2:])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_run_on_tables_is_refused(own_run, tmp_path, task):
    other = runs.load(own_run(task))
    with pytest.raises(ImageError, match=rf"for {task} of float32 \(5,\)"):
        printed(other, saved(GRAY, tmp_path / "a.png"))


def test_the_command_prints_its_table_and_errors_in_a_line(run, python, tmp_path):
    path = saved(GRAY, tmp_path / "a.png")
    start = ("-m", "experiments.predict", f"--run={run.folder}", "--samples=7")
    done = python(*start, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed(run, path, samples=7)
    os.truncate(path, 50)
    done = python(*start, str(path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"predict: {path} is no image that can be read")


def test_a_wide_picture_is_padded_not_squeezed(tmp_path):
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 25:35] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", (12, 12, 1), 16.0, invert=False)[..., 0]
    assert image[:4].max() == 0 and image[-4:].max() == 0  # what was added above and below
    assert (image[6] > 8).sum() == 2  # 10 of 60 columns

    Image.fromarray(255 - pixels).save(tmp_path / "bright.png")
    bright = read_image(tmp_path / "bright.png", (12, 12, 1), 16.0, invert=True)[..., 0]
    np.testing.assert_array_equal(bright, image)
