"""The digits that come with scikit-learn: always there, without a network.

Source: E. Alpaydin, C. Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI; scikit-learn
holds its test part: 1,797 real images of 8 x 8 pixels in 0..16.
"""

import numpy as np

from dropjax.data.dataset import Dataset, stratified_split

TEST_EXAMPLES = 360


def digits() -> Dataset:
    """1,437 training and 360 test images, (8, 8, 1), in a fixed stratified split."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = np.asarray(x, np.uint8).reshape(-1, 8, 8, 1)
    labels = np.asarray(y, np.int32)
    train, test = stratified_split(labels, TEST_EXAMPLES)
    return Dataset(
        "digits",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        task="classification",
        outputs=10,
        max_value=16,
    )
