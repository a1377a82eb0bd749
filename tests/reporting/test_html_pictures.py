"""The pictures of results.html: the smaller file, the size on the page, broken files."""

import base64
import io

import numpy as np
import pytest
from made_report import png, svg
from PIL import Image

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.reporting.html.pictures import picture


def test_the_smaller_of_two_files_is_taken_with_its_size_in_pixels_of_css(tmp_path):
    (tmp_path / "some.png").write_bytes(png(960, 600))
    small = picture(tmp_path, "some", "Some")
    assert (small.uri[:14], small.width, small.height) == ("data:image/png", 614, 384)  # 150 dots to the inch
    (tmp_path / "some.svg").write_bytes(svg("some"))
    drawn = picture(tmp_path, "some", "Some")
    assert (drawn.uri[:18], drawn.width, drawn.height) == ("data:image/svg+xml", 614, 384)
    (tmp_path / "some.svg").write_bytes(svg("x" * 100_000))
    assert picture(tmp_path, "some", "Some") == small
    assert picture(tmp_path, "other", "Other") is None


@pytest.mark.parametrize("size", [(96, 60), (960, 600)], ids=["small", "large"])
def test_a_truncated_or_damaged_picture_is_named(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "some.png")
    whole = (tmp_path / "some.png").read_bytes()
    assert (len(whole) > 150_000) == (size == (960, 600))
    length = whole.index(b"IDAT") - 4
    of_other_length = whole[:length] + (100).to_bytes(4, "big") + whole[length + 4 :]
    for content in (whole[: len(whole) // 2], of_other_length):
        (tmp_path / "some.png").write_bytes(content)
        with pytest.raises(UserError, match=r"some\.png cannot be read as a picture: `rm -f .*` and `dvc repro`"):
            picture(tmp_path, "some", "Some")


@pytest.mark.parametrize("empty", ["svg", "png"])
def test_an_empty_file_is_not_a_picture(tmp_path, empty):
    contents = {"svg": svg("some"), "png": png(960, 600)}
    for suffix, content in contents.items():
        (tmp_path / f"some.{suffix}").write_bytes(b"" if suffix == empty else content)
    found = picture(tmp_path, "some", "Some")
    (other,) = contents.keys() - {empty}
    assert found.uri.startswith(f"data:image/{other}")
    (tmp_path / f"some.{other}").write_bytes(b"")
    assert picture(tmp_path, "some", "Some") is None


def test_a_large_photograph_becomes_smaller_and_keeps_its_size_on_the_page(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = picture(tmp_path, "photo", "Photo")
    content = base64.b64decode(found.uri.partition(",")[2])
    assert found.uri.startswith("data:image/webp")
    assert len(content) < (tmp_path / "photo.png").stat().st_size
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (found.width, found.height) == (400, 300)


def test_a_large_plot_that_a_webp_would_make_larger_stays_as_it_is(tmp_path):
    edges = np.zeros((900, 1200, 3), np.uint8)
    edges[np.random.default_rng(0).integers(0, 2, (900, 1200)) > 0] = 255  # bits, which a WebP of that quality blurs
    Image.fromarray(edges).save(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 150_000
    content = base64.b64decode(picture(tmp_path, "plot", "Plot").uri.partition(",")[2])
    assert content == (tmp_path / "plot.png").read_bytes()


def test_a_damaged_picture_is_named(tmp_path):
    (tmp_path / "some.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"some\.png"):
        picture(tmp_path, "some", "Some")
