"""Classifies images with a finished run: probabilities, and how they spread over draws.

  python -m experiments.predict --run=runs/first image.png other.jpg

Each image is made what the run's network was trained on: gray or coloured, padded and resized to
its height and width, bright on dark or not (--invert). Prints the most probable classes, their
probability without noise and, by Monte-Carlo, its mean and standard deviation over draws of the
noise.

Exit status: 0, or 2 if a run or an image cannot be used.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("predict", "nothing was changed")

from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from dropjax import runs

RUN = flags.DEFINE_string("run", None, "The run's folder.")
SAMPLES = flags.DEFINE_integer("samples", 100, "Draws of the noise, at least 2.", lower_bound=2)
TOP = flags.DEFINE_integer("top", 3, "Classes that are printed.", lower_bound=1)
INVERT = flags.DEFINE_bool(
    "invert", False, "The image is dark on bright, the training data bright on dark."
)


class ImageError(Exception):
    """An image that cannot be used."""


def read_image(path: Path, shape: tuple[int, ...], top: float, *, invert: bool) -> np.ndarray:
    """An image as an example of the training data.

    Args:
      path: a file in any format that Pillow reads.
      shape: (height, width, channels), with 1 or 3 channels.
      top: the value of white.
      invert: black becomes white.

    Raises:
      ImageError: there is no such file, it is no image, or the network takes none.
    """
    from PIL import Image, ImageOps

    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ImageError(f"the run's examples are no images: their shape is {shape}")
    height, width, channels = shape
    try:
        with Image.open(path) as opened:
            file: Any = opened
            if file.mode.startswith("I;16"):  # which Pillow would clip at 255
                file = Image.fromarray(np.rint(np.asarray(file) / 257).astype(np.uint8))
            if file.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits, whose white is no fixed number")
            if "A" in file.getbands() or "transparency" in file.info:
                backed = Image.new("RGBA", file.size, "white")
                backed.alpha_composite(file.convert("RGBA"))
                picture = backed.convert("L" if channels == 1 else "RGB")
            else:
                picture = file.convert("L" if channels == 1 else "RGB")
            # Padded to the right proportions with what its border has most of.
            edge = [picture.crop(box).getcolors(2**24) for box in _edges(*picture.size)]
            ground: Any = max((pair for colors in edge for pair in colors or ()), default=(0, 0))[1]
            resized = ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS, color=ground)
    except FileNotFoundError:
        raise ImageError(f"there is no file {path}") from None
    # A broken PNG is a SyntaxError to Pillow, a broken PPM a ValueError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} is no image that can be read: {error}") from error
    pixels = np.asarray(resized, np.float32).reshape(shape) / 255
    return np.rint((1 - pixels if invert else pixels) * top).astype(np.uint8)


def _edges(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [(0, 0, width, 1), (0, height - 1, width, height)]


def _looks_inverted(image: np.ndarray, top: float) -> bool:
    """Whether the image's border is bright."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(edge.mean() > 0.6 * top)


def lines(run: runs.Run, paths: list[str], *, samples: int, top: int, invert: bool) -> list[str]:
    """What is printed: a table of classes for each image."""
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
    text = []
    dark = run.config["flags"]["dataset"] in ("digits", "mnist", "fashion_mnist")
    for i, path in enumerate(paths):
        text.append(f"{path}")
        if dark and _looks_inverted(images[i], white):
            text.append(
                "  NOTE: its border is bright, the training data are bright on dark: --invert?"
            )
        text.append(
            f"  {'class':>5}  {'probability':>11}" + (f"  {samples} draws" if noisy else "")
        )
        for label in np.argsort(-mean[i], kind="stable")[:top]:
            draws = f"  {mean[i, label]:.4f} +- {spread[i, label]:.4f}" if noisy else ""
            text.append(f"  {label:>5}  {plain[i, label]:>11.4f}{draws}")
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
        run = runs.load(RUN.value)
        printed = lines(run, argv[1:], samples=SAMPLES.value, top=TOP.value, invert=INVERT.value)
    except (runs.RunError, ImageError, ValueError) as error:
        program.complain(f"predict: {error}")
        return 2
    return program.deliver("predict", "\n".join(printed))


if __name__ == "__main__":
    # Here: as a flag's own property it would bind every program that imports this module.
    flags.mark_flag_as_required("run")
    app.run(main)
