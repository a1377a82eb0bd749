"""The saved model: a `.keras` file with the names of its classes. Its bytes depend only on the model.

Keras saves the time and addresses in memory, so the hash would change with each training. Here both are replaced, and
the optimizer's state is not saved.
"""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import ZIP_ERRORS, deterministic_member, open_member, replaced

if TYPE_CHECKING:
    import keras

_METADATA = "metadata.json"


def without_optimizer(model: "keras.Model") -> "keras.Model":
    """Return a model with the same layers and weights, without the optimizer's state, which is twice as large."""
    import keras

    return keras.Model(model.inputs, model.outputs, name=model.name)


def save_model(model: "keras.Model", path: Path, *, wnids: list[str], class_names: list[str]) -> None:
    """Save the model's graph and weights to `path`, with class ids and names, sorted by label, as metadata."""
    raw = path.with_name(f"{path.stem}.partial.keras")  # Keras requires the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        without_optimizer(model).save(raw)
        _rewrite(raw, path, {"wnids": wnids, "class_names": class_names})
    finally:
        raw.unlink(missing_ok=True)


def _rewrite(raw: Path, path: Path, classes: dict[str, list[str]]) -> None:
    """Copy a model file of Keras without the time and the addresses in memory."""
    with replaced(path) as partial, zipfile.ZipFile(raw) as source, zipfile.ZipFile(partial, "w") as target:
        for member in sorted(source.infolist(), key=lambda member: member.filename):
            name = member.filename
            if name == _METADATA:
                metadata = json.loads(source.read(name)) | {"date_saved": "1980-01-01@00:00:00"} | classes
                target.writestr(deterministic_member(name), json.dumps(metadata))
            elif name == "config.json":
                target.writestr(deterministic_member(name), _renumbered(source.read(name).decode()))
            else:
                with source.open(name) as content, open_member(target, name, member.file_size) as copy:
                    shutil.copyfileobj(content, copy, 1 << 24)


def _renumbered(config: str) -> str:
    """Return a model's config with shared objects numbered from 1 instead of by their addresses in memory."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(?<="shared_object_id": )\d+',
        lambda match: str(numbers.setdefault(match[0], len(numbers) + 1)),
        config,
    )


def load_model(path: Path) -> "keras.Model":
    """Return a saved model, uncompiled. Raise UserError if the file is missing or broken."""
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras may raise anything for a broken file
        raise UserError(f"{path} cannot be loaded as a model: {error}") from None


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a saved model: `keras_version`, `wnids`, `class_names`. Needs no Keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read(_METADATA)))
    except (*ZIP_ERRORS, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a model: {error}") from None
