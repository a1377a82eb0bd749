"""The architectures: one module each, found by its file name; its `build` function's signature is its schema.

Importing this package imports no Keras: names and keyword arguments are read from the source of the modules, so that
params.yaml is checked in full before any stage starts.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from tiny_imagenet.backend.layers import all_layers
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import nearest
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import ModelParams
from tiny_imagenet.models import argument_types

if TYPE_CHECKING:
    import keras

_FOLDER = Path(__file__).parents[1] / "architectures"
# Keyword arguments that the data and the recipe give, not the `build` mapping of a params block.
_GIVEN = frozenset({"input_shape", "num_classes", "preprocessing", "weights"})


def architectures() -> list[str]:
    """Return the names that `architecture` may have in params.yaml."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.stem.startswith("_"))


def architecture_source(architecture: str) -> str:
    """Return the source of an architecture's module."""
    return (_FOLDER / f"{architecture}.py").read_text(encoding="utf-8")


@cache
def _build_arguments(architecture: str) -> dict[str, tuple[ast.expr | None, ast.expr | None]]:
    """Return keyword -> annotation and default of the `build` function of an architecture."""
    tree = ast.parse(architecture_source(architecture))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {argument.arg: (argument.annotation, default) for argument, default in arguments}


def preprocessing_of(architecture: str, chosen: argument_types.Preprocessing | None) -> argument_types.Preprocessing:
    """Return the preprocessing that was chosen, or else the architecture's own: what its weights expect."""
    default = _build_arguments(architecture)["preprocessing"][1]
    own: argument_types.Preprocessing = ast.literal_eval(ast.unparse(default)) if default else "rescale"
    return chosen or own


@cache
def _build_schema(architecture: str) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (ast.unparse(annotation) if annotation else Any, None)
        for name, (annotation, _) in _build_arguments(architecture).items()
        if name not in _GIVEN or name == "preprocessing"
    }
    config = ConfigDict(strict=True)
    return create_model(architecture, __config__=config, __module__=argument_types.__name__, **fields)


def check_models(params: Params) -> None:
    """Check every block's `architecture`, `build`, `preprocessing` and `weights` against the architectures that exist.

    Raises:
        UserError: with the path of the key, what was given, and what is allowed.
    """
    for name, block in params.models.items():
        _check_block(f"params.yaml: models.{name}", block)
    for name in params.active:
        recipe = params.recipe(name)
        if recipe.weights is not None and "weights" not in _build_arguments(recipe.architecture):
            raise UserError(
                f"params.yaml: profiles.{params.profile}.training.weights: {recipe.architecture} has no pretrained "
                f"weights; remove `weights` from models.{name}"
            )


def _check_block(where: str, block: ModelParams) -> None:
    if block.architecture not in architectures():
        raise UserError(
            f"{where}.architecture: unknown architecture '{block.architecture}'"
            f"{nearest(block.architecture, architectures())}; known: {', '.join(architectures())}"
        )
    arguments = _build_arguments(block.architecture)
    if block.weights is not None and "weights" not in arguments:
        raise UserError(f"{where}.weights: {block.architecture} has no pretrained weights; remove the line")
    if block.trainable == "head" and "weights" not in arguments:
        raise UserError(f"{where}.trainable: {block.architecture} has no backbone to leave as it is; remove the line")
    allowed = [name for name in arguments if name not in _GIVEN]
    for key in block.build:
        if key not in allowed:
            raise UserError(f"{where}.build: unknown key '{key}'{nearest(key, allowed)}; known: {', '.join(allowed)}")
    try:
        _build_schema(block.architecture)(**block.build, **_chosen(block))
    except ValidationError as error:
        offence = error.errors()[0]
        path = ".".join(str(part) for part in offence["loc"])
        if path == "preprocessing":
            raise UserError(
                f"{where}.preprocessing: '{block.preprocessing}' in front of {block.architecture}, which scales pixels "
                "itself; remove the line"
            ) from None
        raise UserError(f"{where}.build.{path}: {offence['msg']}, got {offence['input']!r}") from None


def _chosen(block: ModelParams) -> dict[str, str]:
    return {"preprocessing": block.preprocessing} if block.preprocessing else {}


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
    """Return an uncompiled Keras model from uint8 RGB images (0 to 255) to float32 class probabilities.

    Args:
        architecture: the name of a module of this package.
        input_shape: (height, width, 3).
        num_classes: how many probabilities come out.
        preprocessing: the first layers of the model, see `_blocks.image_input`; None: the architecture's own.
        weights: path of a weights file, for the architectures that take one; None draws them at random.
        batch_normalization_momentum: set on every batch normalization layer where given (Keras's default: 0.99).
        build: the architecture's own keyword arguments.

    Raises:
        UserError: the arguments leave no image to convolve, or the weights are of another model.
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
        for layer in all_layers(model):
            if type(layer).__name__ == "BatchNormalization":
                layer.momentum = batch_normalization_momentum
    return model
