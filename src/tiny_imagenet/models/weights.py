"""Find the file of pretrained weights: in Keras's folder, on the web, or at a local path."""

import os
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from tiny_imagenet.common.download import obtain
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import digest

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""


class Published(NamedTuple):
    """A file of ImageNet weights without the top layers, as `keras.applications` downloads it."""

    url: str
    digest: str
    """MD5 or SHA-256, as Keras publishes it, in hexadecimal."""

    @property
    def file(self) -> str:
        """The file's name in Keras's folder."""
        return self.url.rsplit("/", 1)[1]


IMAGENET = {
    "resnet50": Published(
        f"{_KERAS}resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626"
    ),
    "vgg16": Published(
        f"{_KERAS}vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"
    ),
    "inception_v3": Published(
        f"{_KERAS}inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "efficientnet_b0": Published(
        "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"
    ),
    "efficientnet_v2_s": Published(
        f"{_KERAS}efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"
    ),
    "convnext_tiny": Published(
        f"{_KERAS}convnext/convnext_tiny_notop.h5", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"
    ),
}
"""Architecture -> its file, for each pretrained architecture."""


def weights_file(weights: str | None, architecture: str) -> Path | None:
    """Return the file for the `weights` of a recipe: None, "imagenet", or a path.

    The file for "imagenet" is in Keras's folder (`~/.keras/models`, or `$KERAS_HOME/models`). If it is missing, one
    process downloads it while others wait. Its digest is always checked. Raise UserError if the file is unknown, has
    another digest, or is missing and cannot be downloaded: the message says which file to put where.
    """
    if weights is None:
        return None
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"weights: '{path}' is not a file; give the path of an HDF5 file, `imagenet` or null")
        with path.open("rb") as file:
            if file.read(len(_HDF5)) != _HDF5:
                raise UserError(f"weights: '{path}' is not an HDF5 file; give the path of one, `imagenet` or null")
        return path
    if architecture not in IMAGENET:
        raise UserError(
            f"weights: no ImageNet weights are known for {architecture}, only for {', '.join(IMAGENET)}; give the path "
            "of an HDF5 file, or null to train from scratch"
        )
    published = IMAGENET[architecture]
    folder = _keras_home() / "models"
    path = folder / published.file
    if not path.is_file():
        kind = "sha256" if len(published.digest) == 64 else "md5"
        hint = (
            f"`weights: imagenet` of {architecture} needs {published.file} ({kind} {published.digest}).\nPut it into "
            f"{folder}, or set `weights` of the model in params.yaml to its path, or to null to train from scratch."
        )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{published.file}.lock"):  # processes that waited keep the file
            obtain(path, urls=[published.url], archive=None, size=None, md5=published.digest, hint=hint)
    kind, actual = digest(path, like=published.digest)
    if actual != published.digest:
        raise UserError(
            f"weights: {path} has {kind} {actual}, expected {published.digest}; remove it to download it again"
        )
    return path


def _keras_home() -> Path:
    """Return the folder of Keras's files."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(home)
    try:
        return Path.home() / ".keras"
    except RuntimeError as error:
        raise UserError(f"weights: imagenet: {error} Set KERAS_HOME to a folder for the file, or set HOME.") from None


def origin(weights: str | None, architecture: str, file: Path | None) -> str | None:
    """Return the initial weights for run.json: None (random), "imagenet", or a path.

    Keras's own file is "imagenet", even if a path names it.
    """
    published = IMAGENET.get(architecture)
    if file is not None and published is not None and digest(file, like=published.digest)[1] == published.digest:
        return "imagenet"
    return weights
