"""Reads image files as examples: upright, without transparency, resized, gray or coloured."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dropjax.data.dataset import DataError

# Those that Pillow reads by itself. For EPS it would start a program, Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 80_000_000
# What Pillow reads as 32 bits, but is 16.
_WHITE_OF_16_BITS = 65535


class ImageError(DataError):
    """An image that cannot be used."""


def read_image(path: Path, shape: tuple[int, ...], top: float, *, invert: bool) -> np.ndarray:
    """An image as an example of the training data.

    Args:
      path: a file in one of `FORMATS`, of at most `MOST_PIXELS`.
      shape: (height, width, channels), with 1 or 3 channels.
      top: the value of white.
      invert: black becomes white.

    Raises:
      ImageError: there is no such file, it is no such image, nothing is drawn in it, or the
        network takes none.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ImageError(f"the run's examples are no images: their shape is {shape}")
    height, width, channels = shape
    try:
        # Of a path Pillow maps an uncompressed TIFF that lies on its side as if it stood upright.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is stricter
            opened = Image.open(file, formats=FORMATS)
            if opened.width * opened.height > MOST_PIXELS:
                raise ImageError(
                    f"{path} has {opened.width} x {opened.height} pixels, more than "
                    f"{MOST_PIXELS:,}; make it smaller"
                )
            picture = _on_ground(_of_8_bits(opened), path)
        picture = picture.convert("L" if channels == 1 else "RGB")
        # Padded to the right proportions with what its border has most of.
        edge = [picture.crop(box).getcolors(2**24) for box in _edges(*picture.size)]
        ground: Any = max((pair for colors in edge for pair in colors or ()), default=(0, 0))[1]
        resized = ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS, color=ground)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"there is no file {path}") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{path} is no image that can be read: it is none of {', '.join(FORMATS)}, or damaged"
        ) from None
    # What Pillow raises for a damaged file has no common class.
    except Exception as error:
        raise ImageError(f"{path} is no image that can be read: {error}") from error
    pixels = np.asarray(resized, np.float32).reshape(shape) / 255
    return np.rint((1 - pixels if invert else pixels) * top).astype(np.uint8)


def _of_8_bits(opened: Any) -> Any:
    """An opened image upright, its first frame, with 8 bits a channel at most."""
    from PIL import Image, ImageOps

    file: Any = ImageOps.exif_transpose(opened)
    if file.mode == "I" and opened.format == "PPM":
        white = _WHITE_OF_16_BITS
    elif file.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, whose white is no fixed number")
    elif file.mode.startswith("I;16"):
        white = _WHITE_OF_16_BITS
    else:
        return file
    # Pillow itself would clip at 255.
    deep = np.asarray(file)
    gray = Image.fromarray(np.rint(deep * (255 / white)).astype(np.uint8))
    if (clear := file.info.get("transparency")) is not None:
        gray.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    return gray


def _on_ground(file: Any, path: Path) -> Any:
    """An image without transparency: on black where what is drawn is bright, else on white."""
    from PIL import Image

    if not file.has_transparency_data:
        return file
    drawn = file.convert("RGBA")
    small = drawn.reduce(max(1, max(drawn.size) // 1024))
    bright, opaque = np.asarray(small.convert("L"), float), np.asarray(small.getchannel("A"), float)
    if not opaque.any():
        raise ImageError(f"{path} is transparent all over: nothing is drawn in it")
    is_bright = np.average(bright, weights=opaque) > 127.5
    ground = Image.new("RGBA", drawn.size, "black" if is_bright else "white")
    ground.alpha_composite(drawn)
    return ground


def _edges(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [(0, 0, width, 1), (0, height - 1, width, height)]
