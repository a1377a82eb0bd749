"""Find an architecture by the name of its file, check its arguments, and build it.

The signature of its `build` function is its schema. It is read from the module's source, to check params.yaml without
importing Keras.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tiny_imagenet.backend.layers import batch_normalizations
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import unknown
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import ModelParams
from tiny_imagenet.models import argument_types

if TYPE_CHECKING:
    import keras

_FOLDER = Path(__file__).parents[1] / "architectures"
# Keyword arguments that come from the data and the recipe, not from `build` in params.yaml.
_GIVEN = frozenset({"input_shape", "num_classes", "preprocessing", "weights"})


def architectures() -> list[str]:
    """Return the possible values of `architecture` in params.yaml."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def architecture_source(architecture: str) -> str:
    """Return the source of an architecture's module."""
    return (_FOLDER / f"{architecture}.py").read_text(encoding="utf-8")


@cache
def build_arguments(architecture: str) -> dict[str, tuple[ast.expr | None, ast.expr | None]]:
    """Return keyword -> annotation and default of the `build` function of an architecture."""
    tree = ast.parse(architecture_source(architecture))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {argument.arg: (argument.annotation, default) for argument, default in arguments}


def preprocessing_of(architecture: str, chosen: argument_types.Preprocessing | None) -> argument_types.Preprocessing:
    """Return the chosen preprocessing, or the architecture's default."""
    node = build_arguments(architecture)["preprocessing"][1]
    default: argument_types.Preprocessing = ast.literal_eval(node) if node else "rescale"
    return chosen or default


@cache
def build_schema(architecture: str) -> type[BaseModel]:
    """Return the types of `preprocessing` and of the keys that `build` may have."""
    fields: dict[str, Any] = {
        name: (ast.unparse(annotation) if annotation else Any, None)
        for name, (annotation, _) in build_arguments(architecture).items()
        if name not in _GIVEN or name == "preprocessing"
    }
    config = ConfigDict(strict=True)
    return create_model(architecture, __config__=config, __module__=argument_types.__name__, **fields)


def check_models(params: Params) -> None:
    """Check `architecture`, `build`, `preprocessing` and `weights` of each block against the known architectures.

    Raise a UserError that names the key, its value, and what is allowed.
    """
    for name, block in params.models.items():
        _check_block(f"params.yaml: models.{name}", block)
    for name in params.active:
        recipe = params.recipe(name)
        if recipe.weights is not None and "weights" not in build_arguments(recipe.architecture):
            raise UserError(
                f"params.yaml: profiles.{params.profile}.training.weights: {recipe.architecture} has no pretrained "
                f"weights; remove `weights` from models.{name}"
            )


def _check_block(key: str, block: ModelParams) -> None:
    if block.architecture not in architectures():
        raise UserError(f"{key}.architecture: {unknown('architecture', block.architecture, architectures())}")
    arguments = build_arguments(block.architecture)
    if "weights" not in arguments:
        if block.weights is not None:
            raise UserError(f"{key}.weights: {block.architecture} has no pretrained weights; remove the line")
        if block.trainable == "head":
            raise UserError(f"{key}.trainable: {block.architecture} has no backbone to freeze; remove the line")
    allowed = [name for name in arguments if name not in _GIVEN]
    for name in block.build:
        if name not in allowed:
            raise UserError(f"{key}.build: {unknown('key', name, allowed)}")
    chosen = {"preprocessing": block.preprocessing} if block.preprocessing else {}
    try:
        build_schema(block.architecture)(**block.build, **chosen)
    except ValidationError as error:
        detail = error.errors()[0]
        path = ".".join(str(part) for part in detail["loc"])
        if path == "preprocessing":
            raise UserError(
                f"{key}.preprocessing: '{block.preprocessing}' would scale pixels twice, because {block.architecture} "
                "scales them itself; remove the line"
            ) from None
        raise UserError(f"{key}.build.{path}: {detail['msg']}, got {detail['input']!r}") from None


def build_classifier(
    architecture: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: argument_types.Preprocessing | None = None,
    weights: str | None = None,
    batch_normalization_momentum: float | None = None,
    **build: Any,
) -> "keras.Model":
    """Return an uncompiled Keras model: uint8 RGB images (0 to 255) to float32 class probabilities.

    None means: the architecture's default for `preprocessing` (see `blocks.image_input`); random weights instead of a
    weights file; Keras's momentum, 0.99. `build` has the architecture's own keyword arguments.

    Raise UserError if the image becomes smaller than a layer needs, or the weights belong to another model.
    """
    module = importlib.import_module(f"tiny_imagenet.architectures.{architecture}")
    if weights is not None:
        build["weights"] = weights
    try:
        model: keras.Model = module.build(
            input_shape=input_shape,
            num_classes=num_classes,
            preprocessing=preprocessing_of(architecture, preprocessing),
            **build,
        )
    except (OSError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{architecture} cannot be built with {build}: {reason}") from None
    if batch_normalization_momentum is not None:
        for layer in batch_normalizations(model):
            layer.momentum = batch_normalization_momentum
    return model
