"""The reference pages: each key has a description, and the pages say what the types and the command line say."""

from typing import Annotated

import pytest
import typer
from pydantic import Field

from tiny_imagenet.cli import app, reference
from tiny_imagenet.common.schema import Section
from tiny_imagenet.config.params import Params
from tiny_imagenet.models import registry

PAGE = reference.params_reference()


class Inner(Section):
    """An inner section.

    Of two paragraphs.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the
    whole."""


class Outer(Inner):
    """An outer section."""

    names: tuple[str, ...] = Field(default=(), strict=False)
    """Names of things."""
    inner: Inner | None = None
    undescribed: bool = False


@pytest.mark.parametrize("section", list(reference._sections(Params)), ids=lambda section: section.__name__)
def test_each_key_of_params_yaml_is_described_where_it_is_defined(section):
    docs = reference.key_docs(section)
    assert [key for key in section.model_fields if not docs.get(key)] == []


def test_a_description_is_the_docstring_below_the_key_also_of_an_inherited_one():
    assert reference.key_docs(Outer) == {
        "share": "Part of the whole.",
        "names": "Names of things.",
        "inner": "",
        "undescribed": "",
    }


def test_a_row_has_the_values_the_default_and_the_meaning_of_a_key():
    rows = reference._keys(Outer, {"Inner": "[inner](#inner)"})
    assert "| `share` | number above 0 and at most 1 | `0.5` | Part of the whole. |" in rows
    assert "| `names` | list of: text | `[]` | Names of things. |" in rows
    assert "| `inner` | [inner](#inner) or `null` | `null` |  |" in rows


def test_sections_are_found_below_names_lists_and_unions_with_their_shortest_path():
    paths = set(reference._sections(Params).values())
    assert {"", "profiles.<name>.dataset.expect", "models.<name>.optimizer", "sweeps.<name>.stop_early"} <= paths
    assert "augmentation" in paths
    assert "profiles.<name>.training.augmentation" not in paths


@pytest.mark.parametrize(
    "row",
    [
        "| `epochs` | whole number at least 1 or `null` | not set | Passes over the training images. |",
        "| `batch_size` | whole number at least 1 | `64` | Images per training step. |",
        "| `modern` | `horizontal_flip: true`, `crop_padding: 8`, `trivial_augment: true`, `erasing: 0.1`, "
        "`mixup: 0.2`, `cutmix: 1.0` |",
    ],
)
def test_the_page_of_params_yaml_has_types_defaults_and_presets(row):
    assert row in PAGE.splitlines()


@pytest.mark.parametrize("architecture", registry.architectures())
def test_the_page_of_params_yaml_has_every_architecture_with_its_arguments(architecture):
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{architecture}` |")]
    allowed = [name for name in registry.build_arguments(architecture) if name not in registry._GIVEN]
    assert [name for name in allowed if f"`{name}`: " not in row] == []


def test_the_page_of_commands_has_arguments_options_and_defaults():
    other = typer.Typer()

    @other.command()
    def greet(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Whom.")],
        times: Annotated[int, typer.Option(metavar="N", help="How often.")] = 3,
        loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False,
        where: Annotated[str | None, typer.Option(metavar="PLACE", help="Where.", show_default="here")] = None,
    ) -> None:
        """Greet somebody.

        Then leave.
        """

    @other.command()
    def leave() -> None:
        """Leave."""

    page = reference.commands_reference(other)
    for line in (
        "## tiny-imagenet greet",
        "Greet somebody.",
        "Then leave.",
        "    tiny-imagenet greet NAME [--times N] [--loud] [--where PLACE]",
        "| `NAME` | Whom. | required |",
        "| `--times N` | How often. | `3` |",
        "| `--loud` | In capitals. |  |",
        "| `--where PLACE` | Where. | here |",
        "    tiny-imagenet leave",
    ):
        assert line in page.splitlines()


def test_each_argument_of_each_command_has_a_help_text():
    commands = typer.main.get_command(app.app).commands
    assert [
        (name, param.name) for name, command in commands.items() for param in command.params if not param.help
    ] == []
