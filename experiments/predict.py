"""Classifies images with a finished run: probabilities, and how they spread over draws.

  python -m experiments.predict --run=runs/first image.png other.jpg

An image is a PNG, JPEG, GIF, BMP, TIFF, WebP, PPM or PGM file of at most 80 million pixels; of
several in a file the first is taken. Each is made what the run's network was trained on: upright,
as the camera says, gray or coloured, padded and resized to its height and width, bright on dark or
not (--invert). What is transparent becomes black behind a bright drawing, white behind a dark one.

Prints the most probable classes, by their names if the training data had any, their probability
without noise and, by Monte-Carlo, its mean and standard deviation over draws of the noise.

Exit status: 0, 1 if no run or no image is named or a flag cannot be parsed, 2 if a run or an image
cannot be used, 130 or 143 if stopped by SIGINT or SIGTERM.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("predict", "nothing was changed")

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from dropjax import runs
from experiments.experiment import find

RUN = flags.DEFINE_string("run", None, "The run's folder.")
SAMPLES = flags.DEFINE_integer("samples", 100, "Draws of the noise, at least 2.", lower_bound=2)
TOP = flags.DEFINE_integer("top", 3, "Classes that are printed.", lower_bound=1)
INVERT = flags.DEFINE_bool(
    "invert", False, "The image is dark on bright, the training data bright on dark."
)

# Those that Pillow reads by itself. For EPS it would start a program, Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 80_000_000
# What Pillow reads as 32 bits, but is 16.
_WHITE_OF_16_BITS = 65535


class ImageError(Exception):
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


def _looks_inverted(image: np.ndarray, top: float) -> bool:
    """Whether the image's border is bright."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(edge.mean() > 0.6 * top)


def lines(run: runs.Run, paths: list[str], *, samples: int, top: int, invert: bool) -> list[str]:
    """What is printed: a table of classes for each image.

    Raises:
      ImageError: an image, or what the run's network takes, cannot be used.
      ValueError: there is no experiment of the name that the run has recorded.
    """
    experiment = find(run.config.get("experiment", "mnist"))
    described = run.config["network"]
    if described["task"] == "regression" or described["example_dtype"] != "uint8":
        raise ImageError(
            f"the run's network is for {described['task']} of {described['example_dtype']} "
            f"{tuple(described['example_shape'])}, not for classifying images; use "
            "dropjax.runs.load(...).predict"
        )
    white, shape = float(described["scale"]), tuple(described["example_shape"])
    images = np.stack([read_image(Path(p), shape, white, invert=invert) for p in paths])
    plain = _by_class(run.predict(images))
    noisy = run.network.scheme.is_random_in_evaluation()
    mean, spread = plain, np.zeros_like(plain)
    if noisy:
        mean, spread = map(_by_class, run.predict_with_spread(images, samples=samples))
        spread = (
            np.broadcast_to(spread[:, -1:], plain.shape)
            if described["task"] == "binary"
            else spread
        )
    names = run.classes or tuple(map(str, range(plain.shape[1])))
    wide = max(5, *map(len, names))
    text = []
    dark = run.config["flags"]["dataset"] in experiment.bright_on_dark
    for i, path in enumerate(paths):
        text.append(f"{path}")
        if dark and _looks_inverted(images[i], white):
            text.append(
                "  NOTE: its border is bright, the training data are bright on dark: --invert?"
            )
        text.append(
            f"  {'class':>{wide}}  {'probability':>11}" + (f"  {samples} draws" if noisy else "")
        )
        for label in np.argsort(-mean[i], kind="stable")[:top]:
            draws = f"  {mean[i, label]:.4f} +- {spread[i, label]:.4f}" if noisy else ""
            text.append(f"  {names[label]:>{wide}}  {plain[i, label]:>11.4f}{draws}")
    return text


def _by_class(probabilities: np.ndarray) -> np.ndarray:
    if probabilities.ndim == 2:
        return probabilities
    return np.stack([1 - probabilities, probabilities], axis=1)


@program.guarded("predict")
def main(argv: list[str]) -> int:
    if len(argv) < 2:
        raise app.UsageError("name at least one image")
    logging.set_verbosity(logging.WARNING)
    assert RUN.value is not None
    try:
        run = runs.load(os.path.expanduser(RUN.value))
        printed = lines(run, argv[1:], samples=SAMPLES.value, top=TOP.value, invert=INVERT.value)
    except (runs.RunError, ImageError, ValueError) as error:
        program.complain(f"predict: {error}")
        return 2
    return program.deliver("predict", "\n".join(printed))


if __name__ == "__main__":
    # Here: as a flag's own property it would bind every program that imports this module.
    flags.mark_flag_as_required("run")
    program.launch("predict", main)
