"""Pretrained weights: from Keras's own folder, from its publisher, or from a local path; never silently absent."""

import os
from pathlib import Path

from tiny_imagenet.dataset.archive import obtain
from tiny_imagenet.errors import UserError
from tiny_imagenet.files import md5

RESNET50_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
RESNET50_MD5 = "4d473c1dd8becc155b73f8504c6f6626"
RESNET50_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{RESNET50_FILE}"


def weights_file(weights: str | None) -> Path | None:
    """Return the file for the `weights` of a recipe: None, "imagenet", or a path.

    "imagenet" is looked for where Keras keeps it (`~/.keras/models`, or `$KERAS_HOME/models`), and fetched where it is
    missing. Its MD5 is checked before use.

    Raises:
        UserError: no such file, or another MD5, or no network; the message says what to put where.
    """
    if weights is None:
        return None
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"weights: no file '{path}'; give the path of an HDF5 file, `imagenet` or null")
        return path
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    path = folder / RESNET50_FILE
    if not path.is_file():
        hint = (
            f"`weights: imagenet` needs {RESNET50_FILE} (md5 {RESNET50_MD5}).\nPut it into {folder}, or give its path "
            "as `weights` of the model in params.yaml, or set that to null to train from scratch."
        )
        obtain(path, urls=[RESNET50_URL], archive=None, size=None, md5=RESNET50_MD5, hint=hint)
    found = md5(path)
    if found != RESNET50_MD5:
        raise UserError(
            f"weights: {path} has md5 {found}, expected {RESNET50_MD5}; remove it, so that it is fetched anew"
        )
    return path
