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
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from dropjax import runs
from dropjax.data.images import ImageError, read_image
from experiments.experiment import find

RUN = flags.DEFINE_string("run", None, "The run's folder.")
SAMPLES = flags.DEFINE_integer("samples", 100, "Draws of the noise, at least 2.", lower_bound=2)
TOP = flags.DEFINE_integer("top", 3, "Classes that are printed.", lower_bound=1)
INVERT = flags.DEFINE_bool(
    "invert", False, "The image is dark on bright, the training data bright on dark."
)


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
