"""Pictures of every kind become 64 x 64 RGB, or are refused: by their pixels, and by what is done to hurt."""

import io
import logging
import os
import random
import re
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from made_zips import ANY_ARCHIVE
from PIL import ExifTags, Image, ImageOps

from tiny_imagenet.cli.pictures import MAX_PIXELS, ImageError, NotAnImageError, read_image
from tiny_imagenet.dataset.jpeg import decode, decode_jpeg
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.dataset.packing import pack

LOSSLESS = {"BMP": {}, "JPEG2000": {"irreversible": False}, "PNG": {}, "PPM": {}, "QOI": {}, "TGA": {}, "TIFF": {},
            "WEBP": {"lossless": True}}  # fmt: skip
LOSSY = ("AVIF", "GIF", "JPEG")


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def read(tmp_path):
    """Return what `read_image` makes of these bytes, in a file whose name says nothing."""

    def read_bytes(content: bytes) -> np.ndarray:
        path = tmp_path / "picture"
        path.write_bytes(content)
        pixels = read_image(path)
        assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
        return pixels

    return read_bytes


@pytest.fixture(scope="module")
def picture(make_pictures):
    return make_pictures(1)[0]


@pytest.fixture(scope="module")
def large(make_pictures):
    """1200 x 900, as smooth as a photograph."""
    return np.ascontiguousarray(cv2.resize(make_pictures(1, side=300)[0], (1200, 900), interpolation=cv2.INTER_CUBIC))


class TestPixelsOfTheRightSize:
    def test_of_a_jpeg_are_the_caches_bit_for_bit(self, read, make_pictures, make_jpeg):
        for pixels in make_pictures(20):
            for jpeg in (make_jpeg(pixels), make_jpeg(pixels[..., 0]), encoded(Image.fromarray(pixels), "JPEG")):
                np.testing.assert_array_equal(read(jpeg), decode(jpeg))

    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_stay_as_they_are(self, kind, read, picture):
        np.testing.assert_array_equal(read(encoded(Image.fromarray(picture), kind, **LOSSLESS[kind])), picture)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
    def test_in_another_mode_have_the_same_colours(self, mode, read, picture):
        image = Image.fromarray(picture).convert(mode)
        np.testing.assert_array_equal(read(encoded(image, "PNG")), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("kind", LOSSY)
    def test_are_similar_after_lossy_formats(self, kind, read, picture):
        assert np.abs(read(encoded(Image.fromarray(picture), kind)).astype(int) - picture).mean() < 8


def without_adobe_marker(jpeg):
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + struct.unpack(">H", jpeg[start + 2 : start + 4])[0] :]


def ycck(pixels, subsampling):
    inks = 255 - np.asarray(Image.fromarray(pixels).convert("CMYK"))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(inks), colorspace="CMYK", colorsubsampling=subsampling)


def with_xmp_orientation(jpeg, orientation):
    text = b"http://ns.adobe.com/xap/1.0/\0" + b'<x:xmpmeta tiff:Orientation="%d"/>' % orientation
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(text) + 2) + text + jpeg[2:]


def jpegs_of_every_kind(pixels):
    """Return kind -> the picture as a JPEG of that kind."""
    image = Image.fromarray(pixels)
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=90)
    kinds = {
        "gray": encoded(image.convert("L"), "JPEG"),
        "progressive": encoded(image, "JPEG", progressive=True),
        "stored as RGB": encoded(image, "JPEG", keep_rgb=True),
        "CMYK": cmyk,
        "CMYK without Adobe's marker": without_adobe_marker(cmyk),
        "orientation 6 in XMP": with_xmp_orientation(encoded(image, "JPEG"), 6),
        "several in one file": encoded(image, "MPO", save_all=True, append_images=[image.rotate(90)]),
    }
    kinds |= {f"YCbCr {part}": encoded(image, "JPEG", subsampling=part) for part in ("4:4:4", "4:2:2", "4:2:0")}
    kinds |= {f"YCCK {part}": ycck(pixels, part) for part in ("444", "422", "420")}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        kinds[f"orientation {orientation}"] = encoded(image, "JPEG", exif=exif)
        kinds[f"gray, orientation {orientation}"] = encoded(image.convert("L"), "JPEG", exif=exif)
        kinds[f"CMYK, orientation {orientation}"] = encoded(image.convert("CMYK"), "JPEG", exif=exif)
    return kinds


def test_an_image_of_the_dataset_has_the_pixels_of_the_cache_for_each_kind_of_jpeg(
    read, make_archive, make_pictures, tmp_path
):
    jpegs = [*jpegs_of_every_kind(make_pictures(1, seed=5)[0]).items()]
    archive = make_archive(2, train=1, val=1)
    first = archive.wnids[0]
    for index, (_, jpeg) in enumerate(jpegs, start=1):
        archive.members[f"train/{first}/images/{first}_{index:03}.JPEG"] = jpeg
    source = archive.write(tmp_path / "dataset.zip")
    reorganize(source, tmp_path / "images", ANY_ARCHIVE)
    cached = pack(tmp_path / "images", tmp_path / "cache").train.images[1 : len(jpegs) + 1]
    differing = [kind for (kind, jpeg), pixels in zip(jpegs, cached, strict=True) if (read(jpeg) != pixels).any()]
    assert not differing
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(dict(jpegs)["orientation 6"])))
    assert np.abs(cached[[kind for kind, _ in jpegs].index("orientation 6")].astype(int) - upright).max() <= 3


class TestSixteenBits:
    VALUES = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
    def test_of_gray_are_scaled_and_not_clipped(self, kind, read):
        options = {"irreversible": False} if kind == "JPEG2000" else {}
        content = encoded(Image.fromarray(self.VALUES), kind, **options)
        np.testing.assert_array_equal(read(content), np.repeat(self.VALUES[..., None] >> 8, 3, axis=2))

    def test_of_gray_with_the_large_end_first_as_well(self, read):
        tags = [(256, 64), (257, 64), (258, 16), (259, 1), (262, 1), (273, 200), (277, 1), (278, 64), (279, 8192)]
        directory = struct.pack(">H", len(tags)) + b"".join(
            struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags
        )
        header = b"MM\0*" + struct.pack(">I", 8) + directory + bytes(4)
        content = header.ljust(200, b"\0") + self.VALUES.astype(">u2").tobytes()
        np.testing.assert_array_equal(read(content), np.repeat(self.VALUES[..., None] >> 8, 3, axis=2))

    @pytest.mark.parametrize("channels", [3, 4])
    def test_of_colours_are_scaled(self, channels, read):
        pixels = np.stack([self.VALUES, self.VALUES.T, self.VALUES[::-1]], axis=2)
        bgr = [2, 1, 0]
        stored = pixels[..., bgr]
        if channels == 4:
            stored = np.concatenate([stored, np.full((64, 64, 1), 65535, np.uint16)], axis=2)
        np.testing.assert_array_equal(read(cv2.imencode(".png", stored)[1].tobytes()), pixels >> 8)

    @pytest.mark.parametrize("mode", ["F", "I"])
    def test_numbers_without_a_white_are_refused(self, mode, read):
        with pytest.raises(ImageError, match="32 bits"):
            read(encoded(Image.new(mode, (64, 64), 1), "TIFF"))


class TestSize:
    @pytest.mark.parametrize(("width", "height"), [(128, 64), (64, 128), (300, 100), (100, 301)])
    def test_the_middle_is_taken_and_nothing_is_stretched(self, width, height, read):
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = Image.new("RGB", (width, height), "red")
        image.paste("blue", (left, top, left + side, top + side))
        colours = read(encoded(image, "PNG"))
        np.testing.assert_array_equal(colours[2:-2, 2:-2], np.broadcast_to((0, 0, 255), (60, 60, 3)))
        circle = Image.new("L", (width, height))
        circle.paste(255, (left + side // 4, top + side // 4, left + side - side // 4, top + side - side // 4))
        covered = read(encoded(circle, "PNG"))[..., 0] > 127
        assert abs(int(covered.any(0).sum()) - int(covered.any(1).sum())) <= 1

    @pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (63, 65)])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_the_smallest_and_the_narrowest_are_enlarged(self, kind, size, read):
        colours = read(encoded(Image.new("RGB", size, (10, 200, 30)), kind))
        assert np.abs(colours.astype(int) - (10, 200, 30)).max() <= 2

    def test_a_fine_pattern_becomes_gray_without_a_coarse_pattern(self, read):
        board = (np.indices((640, 640)).sum(0) % 2 * 255).astype(np.uint8)
        assert set(np.unique(read(encoded(Image.fromarray(board), "PNG")))) <= {126, 127, 128}

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_a_photograph_is_resized_like_pillow_without_shortcuts(self, kind, read, large):
        content = encoded(Image.fromarray(large), kind)
        whole = Image.open(io.BytesIO(content)).convert("RGB")
        expected = np.asarray(whole.resize((64, 64), Image.Resampling.BICUBIC, box=(150, 0, 1050, 900)))
        difference = np.abs(read(content).astype(int) - expected)
        assert difference.mean() < 0.3
        assert difference.max() <= 3


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_the_picture_is_set_upright(self, kind, orientation, read, picture):
        image = Image.fromarray(picture)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        content = encoded(image, kind, exif=exif, **LOSSLESS.get(kind, {}))
        lying = decode_jpeg(content, "YCbCr") if kind == "JPEG" else picture
        oracle = Image.fromarray(lying)
        oracle.getexif()[ExifTags.Base.Orientation] = orientation
        np.testing.assert_array_equal(read(content), np.asarray(ImageOps.exif_transpose(oracle)))

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_also_of_a_large_photograph(self, orientation, read, large):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        content = encoded(Image.fromarray(large), "JPEG", exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        expected = read(encoded(upright, "PNG"))
        assert np.abs(read(content).astype(int) - expected).max() <= 1

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    @pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
    def test_damaged_exif_is_ignored(self, exif, read, picture):
        jpeg = encoded(Image.fromarray(picture), "JPEG")
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        np.testing.assert_array_equal(read(jpeg[:2] + segment + jpeg[2:]), decode(jpeg))

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_unknown_orientation_is_ignored(self, orientation, read, picture):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        np.testing.assert_array_equal(read(encoded(Image.fromarray(picture), "PNG", exif=exif)), picture)


class TestColours:
    def test_cmyk_jpegs_have_pillows_colours(self, read, picture):
        content = encoded(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(read(content), expected)
        assert np.abs(expected.astype(int) - picture).mean() < 8  # and not their negative

    def test_cmyk_tiffs_too(self, read, picture):
        np.testing.assert_array_equal(read(encoded(Image.fromarray(picture).convert("CMYK"), "TIFF")), picture)


class TestTransparency:
    @pytest.mark.parametrize(("mode", "clear"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
    @pytest.mark.parametrize("size", [(64, 64), (500, 500)])
    def test_becomes_white(self, mode, clear, size, read):
        assert (read(encoded(Image.new(mode, size, clear), "PNG")) == 255).all()

    @pytest.mark.parametrize(("kind", "mode", "colour"), [("PNG", "RGB", (0, 0, 0)), ("PNG", "L", 0), ("PNG", "P", 0),
                                                          ("GIF", "P", 0)])  # fmt: skip
    def test_as_a_colour_of_its_own_becomes_white(self, kind, mode, colour, read):
        image = Image.new(mode, (64, 64), colour)
        assert (read(encoded(image, kind, transparency=colour)) == 255).all()

    @pytest.mark.parametrize(
        ("bits", "kind", "clear", "opaque", "shown"),
        [
            (1, 0, [0], [1], 255), (2, 0, [1], [2], 170), (4, 0, [3], [12], 204), (8, 0, [10], [200], 200),
            (16, 0, [1000], [40000], 156), (8, 2, [10, 20, 30], [9, 9, 9], 9),
            (16, 2, [1000, 2000, 3000], [40000] * 3, 156),
        ],
    )  # fmt: skip
    def test_as_a_colour_becomes_white_at_every_depth(self, bits, kind, clear, opaque, shown, read):
        """Kind 0 is gray, 2 is RGB: https://www.w3.org/TR/png-3/#11tRNS."""
        row = "".join(f"{level:0{bits}b}" for level in [*clear * 32, *opaque * 32])
        pixels = int(row, 2).to_bytes(len(row) // 8, "big")
        chunks = {
            b"IHDR": struct.pack(">2L5B", 64, 64, bits, kind, 0, 0, 0),
            b"tRNS": struct.pack(f">{len(clear)}H", *clear),
            b"IDAT": zlib.compress((b"\0" + pixels) * 64),
            b"IEND": b"",
        }
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))
            for name, data in chunks.items()
        )
        assert (read(content) == np.repeat([255, shown], 32)[None, :, None]).all()

    def test_of_one_half_mixes_with_white(self, read):
        assert set(np.unique(read(encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), "PNG")))) == {127}

    def test_does_not_bleed_hidden_colours_into_the_edge(self, read):
        image = Image.new("RGBA", (640, 640), (0, 255, 0, 0))  # a green that nobody sees
        image.paste((255, 0, 0, 255), (0, 0, 325, 640))
        colours = read(encoded(image, "PNG")).astype(int)
        assert (colours[..., 0] == 255).all()
        assert np.abs(colours[..., 1] - colours[..., 2]).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF"])
def test_the_first_frame_of_an_animation_is_used(kind, read):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(read(content).astype(int) - (255, 0, 0)).max() <= 6


class TestDamage:
    @pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_a_truncated_file_is_refused(self, kind, share, read, large):
        content = encoded(Image.fromarray(large[:200, :300]), kind)
        with pytest.raises(ImageError):
            read(content[: int(len(content) * share)])

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    def test_a_truncated_jpeg_with_an_end_marker_is_refused(self, mode, read, large):
        jpeg = encoded(Image.fromarray(large).convert(mode), "JPEG")
        with pytest.raises(ImageError, match="damaged or truncated"):
            read(jpeg[: len(jpeg) // 2] + b"\xff\xd9")

    def test_a_checksum_that_is_wrong_is_refused(self, read, picture):
        png = bytearray(encoded(Image.fromarray(picture), "PNG"))
        png[len(png) // 2] ^= 1
        with pytest.raises(ImageError, match="damaged or truncated"):
            read(bytes(png))

    def test_unusual_jpegs_with_complete_pixels_are_read(self, read, picture):
        jpeg = encoded(Image.fromarray(picture), "JPEG")
        np.testing.assert_array_equal(read(jpeg[:-2] + bytes(7) + jpeg[-2:]), decode(jpeg))  # padding before the end
        np.testing.assert_array_equal(read(jpeg + b"what a camera appends"), decode(jpeg))
        scan = jpeg.index(b"\xff\xda")
        spectral_end = scan + 4 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0] - 4
        assert jpeg[spectral_end] == 63
        odd = jpeg[:spectral_end] + b"\0" + jpeg[spectral_end + 1 :]  # as some phones write it
        np.testing.assert_array_equal(read(odd), decode(jpeg))

    @pytest.mark.filterwarnings("ignore")
    def test_any_changed_bytes_give_a_picture_or_one_clear_error(self, read, picture):
        seeds = [
            encoded(Image.fromarray(picture), kind) for kind in [*LOSSLESS, *LOSSY, "ICO", "ICNS", "PCX", "SGI", "DDS"]
        ]
        draw = random.Random(0)  # noqa: S311 - no secret
        logging.getLogger("PIL").addHandler(logging.NullHandler())
        read_ones = 0
        for _ in range(1500):
            content = bytearray(draw.choice(seeds))
            for _ in range(draw.choice((1, 2, 5, 20))):
                content[draw.randrange(min(len(content), draw.choice((40, 200, 1 << 30))))] = draw.randrange(256)
            try:
                read(bytes(content))
                read_ones += 1
            except ImageError as error:
                assert str(error)  # noqa: PT017 - either outcome is right
        assert 100 < read_ones < 1400


HEIF = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(%pipe%touch hurt) (w) file\n%%EOF\n"
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "empty"),
            (b"no picture at all\n", "not an image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
            (b"%PDF-1.7\n", "not an image"),
            (os.urandom(1000), "not an image"),
            (HDF5, "is HDF5"),
        ],
    )
    def test_are_no_images(self, content, expected, read):
        with pytest.raises(NotAnImageError, match=expected):
            read(content)

    def test_a_drawing_is_an_image_and_refused_by_its_name(self, read):
        with pytest.raises(ImageError, match="is EPS") as caught:
            read(EPS)
        assert not isinstance(caught.value, NotAnImageError)

    def test_heif_is_an_image_and_refused_by_its_name(self, read):
        with pytest.raises(ImageError, match="HEIF") as caught:
            read(HEIF)
        assert not isinstance(caught.value, NotAnImageError)

    def test_pipes_and_devices_are_refused_without_waiting(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
            with pytest.raises(ImageError, match="not a regular file"):
                read_image(type(tmp_path)(path))

    @pytest.mark.parametrize("name", ["nowhere.png", "n" * 300 + ".png"])
    def test_a_missing_file_is_refused(self, name, tmp_path):
        with pytest.raises(ImageError, match=r"does not exist|name too long"):
            read_image(tmp_path / name)

    def test_an_unreadable_file_is_refused(self, tmp_path, monkeypatch, picture):
        def forbidden(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        Image.fromarray(picture).save(tmp_path / "picture.png")
        monkeypatch.setattr("pathlib.Path.open", forbidden)
        with pytest.raises(ImageError, match="cannot be read: Permission denied"):
            read_image(tmp_path / "picture.png")


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_zeros(side):
    """A whole PNG of side x side black pixels, 1 bit each: 30,000 x 30,000 in 110 kB."""
    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def with_size(kind, width, height):
    """A small picture whose header claims this size."""
    content = bytearray(encoded(Image.new("RGB", (64, 64)), kind))
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", height, width)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "PPM":
        content = bytearray(b"P6 %d %d 255\n" % (width, height))
    return bytes(content)


class TestBombs:
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PPM", "PNG"])
    @pytest.mark.parametrize("side", [9_500, 30_000])  # below and above where Pillow itself would refuse it
    def test_are_refused_before_they_use_memory(self, kind, side, read):
        content = png_of_zeros(side) if kind == "PNG" else with_size(kind, side, side)
        assert len(content) < 200_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ImageError, match=re.escape(f"{MAX_PIXELS:,}")):
            read(content)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB

    def test_a_bomb_inside_an_icon_is_refused(self, read):
        png = png_of_zeros(30_000)
        icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 64, 0, 0, 1, 32, len(png), 22) + png
        with pytest.raises(ImageError):
            read(icon)

    def test_compressed_text_that_swells_is_refused(self, read, picture):
        png = encoded(Image.fromarray(picture), "PNG")
        swelling = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 28), 9))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ImageError):
            read(png[:33] + swelling + png[33:])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024

    def test_a_file_longer_than_any_picture_is_not_read(self, tmp_path):
        with (tmp_path / "long.jpg").open("wb") as stream:
            stream.write(b"\xff\xd8\xff\xe0")
            stream.truncate(1 << 40)  # sparse
        with pytest.raises(ImageError, match="bytes"):
            read_image(tmp_path / "long.jpg")

    def test_a_large_picture_within_the_limit_is_read(self, read):
        assert (read(png_of_zeros(5_000)) == 0).all()
