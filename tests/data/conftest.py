"""No test of data touches the home folder, nor the network unless it says so."""

import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DROPJAX_OFFLINE", "1")
    for name in ("XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def prepare():
    """`prepare(place, name, images, labels)`: as tensorflow-datasets does it, as array_record.

    `images` and `labels` are by split. The builder is not TFDS's own, which needs TensorFlow, but
    has the same name and features, and the same code writes the files.
    """
    pytest.importorskip("array_record", reason="tensorflow-datasets has it on Linux only")
    import tensorflow_datasets as tfds
    from PIL import Image

    def write(place: Path, name: str, images: dict, labels: dict, version: str = "3.0.1") -> Path:
        shape = images["train"].shape[1:]

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version(version)

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=shape),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in images}

            def _generate_examples(self, split):
                for row, (image, label) in enumerate(
                    zip(images[split], labels[split], strict=True)
                ):
                    picture = Image.fromarray(image[..., 0] if shape[-1] == 1 else image)
                    yield row, {"image": picture, "label": int(label)}

        Builder.name = name
        Builder(data_dir=place, file_format="array_record").download_and_prepare()
        assert "tensorflow" not in sys.modules
        return place / name / version

    return write


@pytest.fixture(scope="session")
def pictures():
    """`pictures(shape)`: images and labels of 30 training and 12 test examples."""

    def make(shape: tuple[int, ...]):
        rng = np.random.default_rng(0)
        counts = {"train": 30, "test": 12}
        images = {s: rng.integers(0, 256, (n, *shape), np.uint8) for s, n in counts.items()}
        labels = {s: rng.permutation(np.arange(n) % 10) for s, n in counts.items()}
        return images, labels

    return make
