"""Files of pictures of every sort, read as examples."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dropjax import data
from dropjax.data import images
from dropjax.data.images import FORMATS, ImageError, read_image
from experiments import predict

SHAPE = (8, 8, 1)
DIGITS = data.load("digits", None, say=pytest.fail)
# 16 levels, so that 8 bits hold an image of the digits exactly.
PIXELS = np.rint(DIGITS.x_test[0, :, :, 0] * (255 / 16)).astype(np.uint8)
GRAY = Image.fromarray(PIXELS)


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def read(path: Path, shape=SHAPE, top: float = 16, *, invert: bool = False) -> np.ndarray:
    return read_image(path, shape, top, invert=invert)


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


def test_one_bit_is_black_or_white_and_16_bits_of_pgm_are_16_bits(tmp_path):
    image = read(saved(GRAY.point(lambda p: p > 100, "1"), tmp_path / "a.png"))
    np.testing.assert_array_equal(image[..., 0], np.where(PIXELS > 100, 16, 0))
    deep = PIXELS.astype(np.uint16) * 257
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(read(tmp_path / "a.pgm"), DIGITS.x_test[0])


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


DRAWN = np.zeros((8, 8), bool)
DRAWN[1:6, 2] = DRAWN[5, 2:6] = True


def drawing(bright: bool) -> Image.Image:
    """An L on transparent ground, whose hidden colour is that of the drawing."""
    value = np.full((8, 8), 250 if bright else 5, np.uint8)
    return Image.fromarray(np.dstack([value, DRAWN * np.uint8(255)]), "LA")


def with_alpha(bright: bool) -> Image.Image:
    return drawing(bright).convert("RGBA")


def with_one_level(bright: bool, dtype="u1", unit: int = 1) -> Image.Image:
    return Image.fromarray(np.where(DRAWN, (250 if bright else 5) * unit, 7).astype(dtype))


def with_a_key(bright: bool) -> Image.Image:
    ground = Image.new("RGB", (8, 8), (7, 8, 9))
    return Image.composite(drawing(bright).convert("RGB"), ground, Image.fromarray(DRAWN))


FRAMES = {"save_all": True, "append_images": [Image.new("RGBA", (8, 8), "red")]}
TRANSPARENT = {
    "LA": ("a.png", drawing, {}),
    "RGBA": ("a.png", with_alpha, {}),
    "P with one": ("a.png", with_one_level, {"transparency": 7}),
    "P with bytes": ("a.png", lambda bright: with_alpha(bright).quantize(4), {}),
    "RGB with a key": ("a.png", with_a_key, {"transparency": (7, 8, 9)}),
    "16 bits": ("a.png", lambda b: with_one_level(b, "u2", 257), {"transparency": 7}),
    "1 bit": ("a.png", lambda bright: Image.fromarray(bright == DRAWN), {}),
    "TIFF": ("a.tiff", with_alpha, {}),
    "WebP": ("a.webp", with_alpha, {"lossless": True}),
    "GIF": ("a.gif", with_alpha, {}),
    "animated GIF": ("a.gif", with_alpha, FRAMES),
    "animated PNG": ("a.png", with_alpha, FRAMES),
}


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("name", TRANSPARENT)
def test_a_drawing_stands_out_from_what_was_transparent(tmp_path, name, bright):
    """A bright one goes on black, a dark one on white; so nothing drawn is lost."""
    file, make, options = TRANSPARENT[name]
    if name == "1 bit":  # what is not drawn is black where the drawing is bright
        options = {"transparency": 0 if bright else 255}
    image = read(saved(make(bright), tmp_path / file, **options), top=255)[..., 0].astype(int)
    assert np.all(image[~DRAWN] == (0 if bright else 255))
    assert np.all(image[DRAWN] > 200 if bright else image[DRAWN] < 55)


@pytest.mark.parametrize("bright", [True, False])
def test_a_palette_with_alpha_is_transparent_too(bright):
    """No format of ours is read as one, but Pillow has it."""
    palette = Image.new("P", (8, 8), 250 if bright else 5)
    palette.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    palette.putalpha(Image.fromarray(DRAWN).convert("L"))
    assert palette.mode == "PA"
    found = images._on_ground(palette, Path("a")).convert("L")
    assert np.all(np.asarray(found)[~DRAWN] == (0 if bright else 255))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_a_picture_in_which_nothing_is_drawn_is_refused(tmp_path, mode):
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 0)).convert("P" if mode == "P" else mode)
    options = {"transparency": clear.getpixel((0, 0))} if mode == "P" else {}
    with pytest.raises(ImageError, match=r"a\.png is transparent all over"):
        read(saved(clear, tmp_path / "a.png", **options))


# What turns a picture that lies as the camera held it.
LYING = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", LYING)
def test_a_photo_is_read_as_the_camera_was_held(tmp_path, orientation):
    """In each format that says so, and each mode."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK"):
        whole = GRAY.crop((0, 0, 8, 6))
        upright = AS_PNG["16 bits"].crop((0, 0, 8, 6)) if mode == "I;16" else whole.convert(mode)
        turn = LYING[orientation]
        lying = upright if turn is None else upright.transpose(turn)
        for file in ("a.png", "a.tiff", "a.webp", "a.jpg"):
            if file == "a.jpg" and mode not in ("L", "RGB", "CMYK"):
                continue
            if mode == "CMYK" and file in ("a.png", "a.webp"):
                continue
            of = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100}}.get(file, {})
            wanted = read(saved(upright, tmp_path / f"upright_{file}", **of), (6, 8, 1), 255)
            found = read(saved(lying, tmp_path / file, exif=exif, **of), (6, 8, 1), 255)
            difference = np.abs(found.astype(int) - wanted).max()
            assert difference <= (8 if file == "a.jpg" else 0), (mode, file)


def test_only_the_formats_that_are_named_are_opened(tmp_path, monkeypatch):
    """Whatever the file is called: for EPS Pillow would start a program."""
    Image.init()
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))  # which saving SPIDER changes
    for plugin in set(Image.OPEN) - {*FORMATS}:
        monkeypatch.setitem(
            Image.OPEN, plugin, (lambda *_: pytest.fail("was opened"), Image.OPEN[plugin][1])
        )
    refused, path = [], tmp_path / "photo.png"
    warnings.simplefilter("ignore", DeprecationWarning)  # of formats that few use
    for form in sorted(set(Image.SAVE) - {"MPO", "DIB"}):  # a JPEG with more; a part of a BMP
        for mode in ("RGB", "L", "1"):
            try:
                Image.new(mode, (32, 32)).save(path, form)
            except (OSError, ValueError, KeyError):
                continue  # not of this mode, or only by another program
            break
        else:
            continue
        if form in FORMATS:
            assert read(path).shape == SHAPE
            continue
        with pytest.raises(ImageError, match=f"none of {', '.join(FORMATS)}, or damaged"):
            read(path)
        refused.append(form)
    assert {"EPS", "TGA", "ICO"} <= {*refused}
    for form in FORMATS:
        assert form.lower() in (predict.__doc__ or "").lower()


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
    words = re.sub(r"\s+", " ", predict.__doc__ or "")
    assert f"at most {images.MOST_PIXELS // 10**6} million pixels" in words
    for limit in (20_000_000, 10_000_000):  # of which Pillow warns, and which it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        monkeypatch.setattr(images, "MOST_PIXELS", 5_000_000)
        with pytest.raises(ImageError, match=r"a\.png .*pixels"):
            read(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match=r"has 6000 x 4000 pixels, more than 5,000,000; make it"):
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


def test_a_wide_picture_is_padded_not_squeezed(tmp_path):
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 25:35] = 255
    image = read(saved(Image.fromarray(pixels), tmp_path / "wide.png"), (12, 12, 1))[..., 0]
    assert image[:4].max() == 0 and image[-4:].max() == 0  # what was added above and below
    assert (image[6] > 8).sum() == 2  # 10 of 60 columns

    path = saved(Image.fromarray(255 - pixels), tmp_path / "bright.png")
    np.testing.assert_array_equal(read(path, (12, 12, 1), invert=True)[..., 0], image)
