"""TrivialAugment, against Pillow and against what torchvision documents of `TrivialAugmentWide`."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from tiny_imagenet.input_pipeline.trivial_augment import (
    MAGNITUDES,
    OPERATIONS,
    SIGNED,
    TrivialDraws,
    draw_trivial,
    geometry_matrices,
    recolour,
)

NUM_DRAWS = 40_000
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
PILLOW = {
    "brightness": lambda image, magnitude: ImageEnhance.Brightness(image).enhance(1 + magnitude),
    "color": lambda image, magnitude: ImageEnhance.Color(image).enhance(1 + magnitude),
    "contrast": lambda image, magnitude: ImageEnhance.Contrast(image).enhance(1 + magnitude),
    "sharpness": lambda image, magnitude: ImageEnhance.Sharpness(image).enhance(1 + magnitude),
    "posterize": lambda image, magnitude: ImageOps.posterize(image, int(magnitude)),
    "solarize": ImageOps.solarize,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
ROUNDED = ("color", "sharpness")
"""Pillow cuts these to whole numbers, OpenCV rounds; the others are tables and equal."""


def recoloured(image: np.ndarray, operation: str, magnitude: float) -> np.ndarray:
    changed = image.copy()
    recolour(changed, operation, magnitude)
    return changed


def by_pillow(image: np.ndarray, operation: str, magnitude: float) -> np.ndarray:
    return np.asarray(PILLOW[operation](Image.fromarray(image), magnitude))


def all_magnitudes(operation: str) -> np.ndarray:
    magnitudes = MAGNITUDES[operation]
    return np.unique(np.concatenate([magnitudes, -magnitudes]) if operation in SIGNED else magnitudes)


@pytest.fixture(scope="module")
def pictures(make_pictures):
    """Some over the full range, some dull, one of noise, one dark, one gray, and one of a single colour."""
    pictures = make_pictures(8, seed=5)
    pictures[2:4] = pictures[2:4] // 3 + 60
    pictures[4] = np.random.default_rng(0).integers(0, 256, pictures[4].shape)
    pictures[5] //= 50
    pictures[6] = pictures[6, :, :, :1]
    pictures[7] = (200, 10, 90)
    return pictures


@pytest.fixture(scope="module")
def drawn():
    return draw_trivial(np.random.default_rng(3), NUM_DRAWS)


class TestDraws:
    def test_all_operations_are_equally_likely(self, drawn):
        counts = np.bincount(drawn.operation, minlength=14)
        assert len(OPERATIONS) == len(counts) == 14
        assert stats.chisquare(counts).pvalue > 0.01

    def test_all_strengths_are_equally_likely(self, drawn):
        for operation in ("shear_x", "rotate", "color", "solarize"):
            own = np.abs(drawn.magnitude[drawn.operation == OPERATIONS.index(operation)])
            values, counts = np.unique(own, return_counts=True)
            assert values.tolist() == sorted(MAGNITUDES[operation])
            assert len(values) == 31
            assert stats.chisquare(counts).pvalue > 0.01

    def test_half_of_the_signed_magnitudes_are_negative_and_no_others(self, drawn):
        for place, operation in enumerate(OPERATIONS):
            own = drawn.magnitude[(drawn.operation == place) & (drawn.magnitude != 0)]
            if operation in SIGNED:
                assert stats.binomtest(int((own < 0).sum()), len(own)).pvalue > 0.001, operation
            else:
                assert (own > 0).all()

    @pytest.mark.parametrize("num_images", [1, 2, 999])
    def test_of_an_image_do_not_depend_on_the_number_of_images(self, drawn, num_images):
        fewer = draw_trivial(np.random.default_rng(3), num_images)
        assert (fewer.operation == drawn.operation[:num_images]).all()
        assert (fewer.magnitude == drawn.magnitude[:num_images]).all()

    def test_ranges_are_those_of_the_wide_variant(self):
        largest = {operation: float(np.abs(values).max()) for operation, values in MAGNITUDES.items()}
        enhanced = dict.fromkeys(("brightness", "color", "contrast", "sharpness"), 0.99)
        sheared = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32, "translate_y": 32, "rotate": 135}
        nothing = {"identity": 0, "autocontrast": 0, "equalize": 0}
        assert largest == nothing | sheared | enhanced | {"posterize": 8, "solarize": 255}
        assert frozenset(sheared) | frozenset(enhanced) == SIGNED
        assert (MAGNITUDES["posterize"].min(), MAGNITUDES["solarize"].min()) == (2, 0)

    def test_strength_0_is_the_weakest(self):
        for operation, values in MAGNITUDES.items():
            strengths = -values if operation in ("posterize", "solarize") else values
            assert (np.diff(strengths) >= 0).all(), operation


class TestRecolour:
    @pytest.mark.parametrize("operation", PILLOW)
    def test_equals_pillow_at_every_strength(self, pictures, operation):
        for image in pictures:
            for magnitude in all_magnitudes(operation):
                ours = recoloured(image, operation, magnitude).astype(int)
                largest = np.abs(ours - by_pillow(image, operation, magnitude)).max()
                assert largest <= (operation in ROUNDED), magnitude

    @given(
        image=some.integers(2, 40).flatmap(
            lambda side: arrays(np.uint8, (side, 33, 3), elements=some.integers(0, 255), fill=some.integers(0, 255))
        ),
        operation=some.sampled_from(["contrast", "autocontrast", "equalize"]),
    )
    def test_tables_of_any_picture_equal_pillows(self, image, operation):
        assert (recoloured(image, operation, 0.5) == by_pillow(image, operation, 0.5)).all()

    @given(pixel=some.tuples(*[some.integers(0, 255)] * 3), magnitude=some.sampled_from(MAGNITUDES["color"].tolist()))
    def test_saturation_of_any_colour_is_within_one_of_pillows(self, pixel, magnitude):
        image = np.full((2, 2, 3), pixel, np.uint8)
        for signed in (magnitude, -magnitude):
            difference = recoloured(image, "color", signed).astype(int) - by_pillow(image, "color", signed)
            assert np.abs(difference).max() <= 1

    @pytest.mark.parametrize("operation", ["brightness", "color", "contrast", "sharpness"])
    def test_at_strength_0_changes_nothing(self, pictures, operation):
        for image in pictures:
            assert (recoloured(image, operation, 0.0) == image).all()

    @pytest.mark.parametrize("operation", ["identity", *GEOMETRY])
    def test_geometric_operations_do_not_change_colours(self, pictures, operation):
        assert (recoloured(pictures[0], operation, MAGNITUDES[operation][-1]) == pictures[0]).all()

    def test_works_on_a_picture_within_a_batch(self, pictures):
        for operation in PILLOW:
            batch = pictures.copy()
            recolour(batch[1], operation, MAGNITUDES[operation][20])
            assert (batch[1] == recoloured(pictures[1], operation, MAGNITUDES[operation][20])).all()
            assert (np.delete(batch, 1, 0) == np.delete(pictures, 1, 0)).all()


def warped(image: np.ndarray, operation: str, magnitude: float) -> np.ndarray:
    draws = TrivialDraws(np.array([OPERATIONS.index(operation)]), np.array([magnitude]))
    (matrix,) = geometry_matrices(draws, *image.shape[:2])
    assert (matrix[2] == (0, 0, 1)).all()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix[:2], image.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


class TestGeometry:
    MARGIN = 100

    def by_pillow(self, image: np.ndarray, operation: str, magnitude: float) -> np.ndarray:
        """Return what Pillow makes of the image on a canvas onto which its edges are repeated."""
        margin = self.MARGIN
        canvas = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "edge"))
        if operation == "rotate":
            turned = canvas.rotate(magnitude, Image.Resampling.BILINEAR)
        else:
            coefficients = {
                "shear_x": (1, magnitude, -magnitude * margin, 0, 1, 0),
                "shear_y": (1, 0, 0, magnitude, 1, -magnitude * margin),
                "translate_x": (1, 0, -magnitude, 0, 1, 0),
                "translate_y": (1, 0, 0, 0, 1, -magnitude),
            }[operation]
            turned = canvas.transform(canvas.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
        return np.asarray(turned)[margin:-margin, margin:-margin]

    @pytest.mark.parametrize("operation", GEOMETRY)
    def test_equals_pillow_with_the_edge_repeated(self, pictures, operation):
        images = pictures[:2, :48]  # not square: width and height cannot be swapped
        magnitudes = all_magnitudes(operation)
        ours = np.stack([warped(image, operation, magnitude) for image in images for magnitude in magnitudes])
        theirs = np.stack([self.by_pillow(image, operation, magnitude) for image in images for magnitude in magnitudes])
        differences = np.abs(ours.astype(int) - theirs)
        assert differences.mean() <= 0.6
        assert (differences > 4).mean() <= 0.01

    @pytest.mark.parametrize("pixels", [32, -7])
    @pytest.mark.parametrize(("operation", "axis"), [("translate_x", 1), ("translate_y", 0)])
    def test_translation_moves_the_picture_by_whole_pixels(self, pictures, operation, axis, pixels):
        places = np.clip(np.arange(64) - pixels, 0, 63)
        assert (warped(pictures[0], operation, pixels) == pictures[0].take(places, axis)).all()

    def test_rotation_by_a_right_angle_moves_no_pixel_off_the_grid(self, pictures):
        assert (warped(pictures[0], "rotate", 90) == np.rot90(pictures[0])).all()

    def test_colour_operations_move_nothing(self):
        draws = TrivialDraws(np.arange(14), np.array([values[-1] for values in MAGNITUDES.values()]))
        unmoved = (geometry_matrices(draws, 64, 48) == np.eye(3)).all(axis=(1, 2))
        assert [name for name, same in zip(OPERATIONS, unmoved, strict=True) if not same] == list(GEOMETRY)
