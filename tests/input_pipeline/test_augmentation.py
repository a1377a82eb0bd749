"""The augmentation, against Keras's `ImageDataGenerator`, which the paper's authors used, PIL, and NumPy."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from tiny_imagenet.config.recipe import CROP_FLIP, NO_AUGMENTATION, PAPER_AUGMENTATION, PRESETS, Augmentation
from tiny_imagenet.input_pipeline import augmentation
from tiny_imagenet.input_pipeline.augmentation import (
    Augmenter,
    Draws,
    Stream,
    affine_matrices,
    brightness_tables,
    draw,
    draw_crops,
    draw_erased,
    epoch_order,
    random_stream,
)
from tiny_imagenet.input_pipeline.trivial_augment import OPERATIONS, TrivialDraws, draw_trivial, recolour

PARTS = {
    "rotation": Augmentation(rotation_degrees=180),
    "shear": Augmentation(shear_degrees=40),
    "zoom": Augmentation(zoom=(0.5, 2)),
    "shift": Augmentation(shift=0.5),
    "flip": Augmentation(horizontal_flip=True),
    "brightness": Augmentation(brightness=(0.3, 3)),
}
WIDEST_WARP = Augmentation(rotation_degrees=180, shear_degrees=40, zoom=(0.5, 2), shift=0.5, horizontal_flip=True)
MODERN = PRESETS["modern"]
NUM_DRAWS = 20_000
PAPER_RANGES = {
    "rotation": (-np.pi / 6, np.pi / 6),
    "shift_rows": (-0.1, 0.1),
    "shift_columns": (-0.1, 0.1),
    "shear": (-np.pi / 900, np.pi / 900),  # 0.2 degrees
    "zoom_rows": (0.8, 1.2),
    "zoom_columns": (0.8, 1.2),
    "brightness": (0.8, 1.2),
}


def augmented(chosen: Augmentation, images: np.ndarray, *, seed: int = 1, epoch: int = 0, **options: Any) -> np.ndarray:
    indices = np.arange(len(images))
    return Augmenter(chosen, seed=seed, num_images=len(images), **options)(images, indices, epoch)


def draws_of(num_images: int, **changes: Any) -> Draws:
    """Return draws that change only what is in `changes`."""
    zeros, ones = np.zeros(num_images), np.ones(num_images)
    return replace(
        Draws(zeros, zeros, zeros, zeros, ones, ones, np.zeros(num_images, bool), ones),
        **{name: np.asarray(value) for name, value in changes.items()},
    )


@pytest.fixture(scope="module")
def pictures(make_pictures):
    return make_pictures(500)


@pytest.fixture(scope="module")
def generator(keras):
    """`ImageDataGenerator.apply_transform` with what was drawn for image `index`."""
    import tensorflow

    apply_transform = tensorflow.keras.preprocessing.image.ImageDataGenerator().apply_transform

    def transform(image: np.ndarray, draws: Draws, index: int, *, brightness: bool = True) -> np.ndarray:
        height, width = image.shape[:2]
        # Its x is the first axis of the matrix, which it swaps with the second before it samples: tx, zx move columns.
        parameters = {
            "theta": np.rad2deg(draws.rotation[index]),
            "tx": draws.shift_columns[index] * width,
            "ty": draws.shift_rows[index] * height,
            "shear": np.rad2deg(draws.shear[index]),
            "zx": draws.zoom_columns[index],
            "zy": draws.zoom_rows[index],
            "flip_horizontal": draws.mirrored[index],
            "brightness": draws.brightness[index] if brightness else None,
        }
        return apply_transform(image.astype(np.float32), parameters)

    return transform


@pytest.mark.filterwarnings("ignore:.*scipy.ndimage.interpolation.*:DeprecationWarning")
class TestOracle:
    """`tf.keras.preprocessing.image.ImageDataGenerator`, given the parameters that were drawn here.

    It truncates to whole numbers before brightness, OpenCV rounds: half a gray level on average. Square images only:
    of others it swaps the two coordinates of the centre.
    """

    @staticmethod
    def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
        differences = np.abs(ours.astype(np.float64) - theirs)
        assert differences.mean() <= 0.6
        assert (differences > 4).mean() <= 0.01

    @pytest.mark.parametrize("chosen", [PAPER_AUGMENTATION, WIDEST_WARP], ids=["paper", "widest"])
    def test_all_parts_together_equal_the_generators(self, pictures, generator, chosen):
        draws = draw(chosen, seed=1, epoch=3, num_images=len(pictures))
        theirs = np.stack([generator(image, draws, index) for index, image in enumerate(pictures)])
        self.compare(augmented(chosen, pictures, epoch=3), theirs)

    def test_brightness_alone_is_exactly_the_generators(self, pictures, generator):
        draws = draw(PARTS["brightness"], seed=1, epoch=0, num_images=len(pictures))
        theirs = [generator(image, draws, index) for index, image in enumerate(pictures)]
        assert (augmented(PARTS["brightness"], pictures) == np.stack(theirs)).all()

    def test_of_the_next_epoch_is_another(self, pictures, generator):
        draws = draw(PAPER_AUGMENTATION, seed=1, epoch=4, num_images=20)
        theirs = np.stack([generator(image, draws, index) for index, image in enumerate(pictures[:20])])
        with pytest.raises(AssertionError):
            self.compare(augmented(PAPER_AUGMENTATION, pictures[:20], epoch=3), theirs)

    @pytest.mark.parametrize("part", [part for part in PARTS if part != "brightness"])
    def test_each_part_alone_equals_the_generators(self, pictures, generator, part):
        draws = draw(PARTS[part], seed=1, epoch=0, num_images=len(pictures))
        theirs = [generator(image, draws, index, brightness=False) for index, image in enumerate(pictures)]
        self.compare(augmented(PARTS[part], pictures), np.stack(theirs))

    @pytest.mark.parametrize("chosen", [PAPER_AUGMENTATION, WIDEST_WARP, *PARTS.values()], ids=["paper", "all", *PARTS])
    def test_matrices_in_single_precision_equal_the_generators(self, pictures, generator, chosen):
        draws = draw(chosen, seed=2, epoch=0, num_images=len(pictures))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        differences = []
        for index, matrix in enumerate(affine_matrices(draws, 64, 64)):
            image = pictures[index].astype(np.float32)
            ours = cv2.warpAffine(image, matrix, (64, 64), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            theirs = generator(pictures[index], draws, index, brightness=False)
            differences.append(np.abs(ours - theirs).mean())
        assert max(differences) <= 0.01  # of every picture; in gray levels


class TestBrightnessTables:
    def test_equal_pil_for_every_value_and_many_factors(self):
        values = np.arange(256, dtype=np.uint8)
        enhancer = ImageEnhance.Brightness(Image.fromarray(values[np.newaxis].repeat(2, axis=0)))
        rng = np.random.default_rng(0)
        factors = np.concatenate(
            [rng.uniform(0.8, 1.2, 2_000), rng.uniform(0.01, 10, 2_000), np.arange(1, 256) / 255, [0.5, 1, 2, 10]]
        )
        tables = brightness_tables(factors)
        assert tables.dtype == np.uint8
        for factor, table in zip(factors, tables, strict=True):
            assert (table == np.asarray(enhancer.enhance(factor))[0]).all(), factor

    def test_equal_pil_on_colours(self, pictures):
        image = Image.fromarray(pictures[0])
        for factor in (0.8, 0.9, 1.1, 1.2):
            (table,) = brightness_tables(np.array([factor]))
            assert (table[pictures[0]] == np.asarray(ImageEnhance.Brightness(image).enhance(factor))).all()


class TestMatrices:
    """Cases whose result is plain: no bilinear weights are involved."""

    @staticmethod
    def warped(image: np.ndarray, draws: Draws) -> np.ndarray:
        (matrix,) = affine_matrices(draws, *image.shape[:2])
        out = np.empty_like(image)
        augmentation._warp(image, matrix, None, out)
        return out

    def test_neutral_draws_change_nothing(self, pictures):
        assert (self.warped(pictures[0], draws_of(1)) == pictures[0]).all()

    @pytest.mark.parametrize(("quarter_turns"), [1, 2, 3])
    def test_rotation_turns_about_the_centre(self, pictures, quarter_turns):
        # A positive angle turns the sampled grid from x towards y, so the picture turns left.
        draws = draws_of(1, rotation=[quarter_turns * np.pi / 2])
        assert (self.warped(pictures[0], draws) == np.rot90(pictures[0], quarter_turns)).all()

    def test_rotation_is_about_the_centre_of_an_oblong_too(self, pictures):
        image = pictures[0][:48]
        assert (self.warped(image, draws_of(1, rotation=[np.pi])) == image[::-1, ::-1]).all()

    def test_mirror_swaps_left_and_right(self, pictures):
        assert (self.warped(pictures[0], draws_of(1, mirrored=[True])) == pictures[0][:, ::-1]).all()

    @pytest.mark.parametrize(("pixels"), [5, -5])
    @pytest.mark.parametrize(("name", "axis"), [("shift_rows", 0), ("shift_columns", 1)])
    def test_shift_moves_its_axis_and_repeats_the_edge(self, pictures, name, axis, pixels):
        image = pictures[0][:48]
        places = np.clip(np.arange(image.shape[axis]) + pixels, 0, image.shape[axis] - 1)
        draws = draws_of(1, **{name: [pixels / image.shape[axis]]})
        assert (self.warped(image, draws) == image.take(places, axis)).all()

    @pytest.mark.parametrize(("name", "axis"), [("zoom_rows", 0), ("zoom_columns", 1)])
    def test_zoom_above_one_samples_a_larger_window_of_its_axis(self, pictures, name, axis):
        image = np.ascontiguousarray(pictures[0][:33, :33])  # odd, so that three times falls on whole pixels
        places = np.clip(3 * (np.arange(33) - 16) + 16, 0, 32)
        assert (self.warped(image, draws_of(1, **{name: [3.0]})) == image.take(places, axis)).all()


@pytest.fixture(scope="module")
def paper():
    return draw(PAPER_AUGMENTATION, seed=7, epoch=2, num_images=NUM_DRAWS)


class TestDraws:
    @pytest.mark.parametrize(("name", "low", "high"), [(name, *limits) for name, limits in PAPER_RANGES.items()])
    def test_are_uniform_over_the_papers_ranges(self, paper, name, low, high):
        values = getattr(paper, name)
        assert low <= values.min() < low + 0.001 * (high - low)
        assert high >= values.max() > high - 0.001 * (high - low)
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01

    def test_mirror_half_of_the_images(self, paper):
        assert stats.binomtest(int(paper.mirrored.sum()), NUM_DRAWS).pvalue > 0.01

    def test_of_one_image_do_not_depend_on_each_other(self, paper):
        columns = np.stack([getattr(paper, field.name).astype(float) for field in fields(Draws)])
        correlations = np.corrcoef(columns) - np.eye(len(columns))
        assert np.abs(correlations).max() < 4.5 / np.sqrt(NUM_DRAWS)

    def test_of_neighbours_and_of_epochs_do_not_depend_on_each_other(self, paper):
        following = draw(PAPER_AUGMENTATION, seed=7, epoch=3, num_images=NUM_DRAWS)
        for name in PAPER_RANGES:
            values = getattr(paper, name)
            for others in (np.roll(values, 1), getattr(following, name)):
                assert abs(np.corrcoef(values, others)[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)

    @pytest.mark.parametrize("num_images", [1, 2, 63, 1_000])
    def test_of_an_image_do_not_depend_on_the_number_of_images(self, paper, num_images):
        fewer = draw(PAPER_AUGMENTATION, seed=7, epoch=2, num_images=num_images)
        for field in fields(Draws):
            assert (getattr(fewer, field.name) == getattr(paper, field.name)[:num_images]).all()

    @pytest.mark.parametrize(("seed", "epoch"), [(8, 2), (7, 3), (2, 7)])
    def test_differ_between_seeds_and_epochs(self, paper, seed, epoch):
        other = draw(PAPER_AUGMENTATION, seed=seed, epoch=epoch, num_images=NUM_DRAWS)
        for name in PAPER_RANGES:
            assert (getattr(other, name) != getattr(paper, name)).mean() > 0.99

    def test_without_augmentation_change_nothing(self):
        draws, nothing = draw(NO_AUGMENTATION, seed=1, epoch=0, num_images=100), draws_of(100)
        for field in fields(Draws):
            assert (getattr(draws, field.name) == getattr(nothing, field.name)).all()

    @pytest.mark.parametrize("part", PARTS)
    def test_part_that_is_on_leaves_the_others_off(self, part):
        own = {
            "shift": {"shift_rows", "shift_columns"},
            "zoom": {"zoom_rows", "zoom_columns"},
            "flip": {"mirrored"},
        }.get(part, {part})
        draws, nothing = draw(PARTS[part], seed=1, epoch=0, num_images=100), draws_of(100)
        changed = {
            field.name for field in fields(Draws) if (getattr(draws, field.name) != getattr(nothing, field.name)).any()
        }
        assert changed == own


class TestStreams:
    """The draws of each part do not depend on the other parts."""

    def test_have_different_numbers(self):
        first = [random_stream(stream, seed=1, epoch=2).random() for stream in Stream.__members__.values()]
        assert len(set(first)) == len(Stream.__members__)

    def test_of_the_papers_parts_have_not_changed(self):
        # A change here changes every training that was ever run.
        uniform = np.random.default_rng([7, 2, 1]).random((5, 8))
        draws = draw(PAPER_AUGMENTATION, seed=7, epoch=2, num_images=5)
        assert np.allclose(draws.rotation, np.deg2rad(60 * uniform[:, 0] - 30))
        assert np.allclose(draws.brightness, 0.8 + 0.4 * uniform[:, 7])
        order = np.random.default_rng([7, 2, 2]).permutation(100)
        assert (epoch_order(seed=7, epoch=2, num_images=100) == order).all()

    @pytest.mark.parametrize("others", [{"crop_padding": 9}, {"trivial_augment": True}, {"erasing": 1}, {"mixup": 1}])
    def test_of_the_papers_parts_do_not_depend_on_the_others(self, paper, others):
        draws = draw(PAPER_AUGMENTATION.model_copy(update=others), seed=7, epoch=2, num_images=NUM_DRAWS)
        for field in fields(Draws):
            assert (getattr(draws, field.name) == getattr(paper, field.name)).all()

    def test_erasing_changes_only_its_rectangle(self, pictures):
        erased = augmented(MODERN.model_copy(update={"erasing": 1.0}), pictures)
        plain = augmented(MODERN.model_copy(update={"erasing": 0.0}), pictures)
        boxes = draw_erased(1.0, seed=1, epoch=0, num_images=len(pictures), height=64, width=64)
        for ours, theirs, (top, bottom, left, right) in zip(erased, plain, boxes, strict=True):
            changed = (ours != theirs).any(axis=2)
            assert changed[top:bottom, left:right].mean() > 0.9
            changed[top:bottom, left:right] = False
            assert not changed.any()

    def test_images_that_trivial_augment_skips_do_not_change(self, pictures):
        draws = draw_trivial(random_stream(Stream.TRIVIAL_AUGMENT, seed=1, epoch=0), len(pictures))
        alone = draws.operation == OPERATIONS.index("identity")
        with_trivial = augmented(PAPER_AUGMENTATION.model_copy(update={"trivial_augment": True}), pictures)
        assert 10 < alone.sum() < 70
        assert (with_trivial[alone] == augmented(PAPER_AUGMENTATION, pictures)[alone]).all()


def noise_of(*, seed: int, epoch: int, num_images: int) -> np.ndarray:
    """Return the red of the first pixel of each image's noise; the picture is black, so noise shows."""
    black = np.zeros((num_images, 64, 64, 3), np.uint8)
    noisy = augmented(Augmentation(erasing=1), black, seed=seed, epoch=epoch)
    corners = [np.argwhere(image.any(axis=2)).min(axis=0) for image in noisy]
    return np.array([image[row, column, 0] for image, (row, column) in zip(noisy, corners, strict=True)])


# A number for each image, from each stream that makes one; those of mixing are in test_mixing.py.
DRAWN = {
    "warp": lambda **key: draw(PAPER_AUGMENTATION, **key).rotation,
    "order": epoch_order,
    "crop sideways": lambda **key: draw_crops(32, **key)[:, 0],
    "crop up and down": lambda **key: draw_crops(32, **key)[:, 1],
    "erased rectangle": lambda **key: draw_erased(1.0, height=640, width=640, **key)[:, 0],
    "noise": noise_of,
}
# How many pictures may come out alike in two epochs, by chance: half of them are mirrored or not in both.
ALIKE = {"flip": 0.6, "trivial_augment": 0.15}
ALONE = PARTS | {
    "crop": Augmentation(crop_padding=8), "trivial_augment": Augmentation(trivial_augment=True),
    "erasing": Augmentation(erasing=1),
}  # fmt: skip


class TestWhatRandomNumbersDependOn:
    """Seed, epoch and index, each by itself, and nothing else."""

    @pytest.mark.parametrize("stream", DRAWN)
    def test_each_stream_changes_with_seed_epoch_and_index(self, stream):
        num_images = 500 if stream == "noise" else 5_000
        first = DRAWN[stream](seed=3, epoch=1, num_images=num_images)
        assert (DRAWN[stream](seed=3, epoch=1, num_images=num_images) == first).all()
        assert len(np.unique(first)) > 50
        others = [DRAWN[stream](seed=seed, epoch=epoch, num_images=num_images) for seed, epoch in [(3, 2), (4, 1)]]
        for other in (*others, np.roll(first, 1)):
            assert abs(np.corrcoef(first, other)[0, 1]) < 4.5 / np.sqrt(num_images)

    @pytest.mark.parametrize("part", ALONE)
    def test_each_part_alone_changes_with_seed_epoch_and_index(self, pictures, part):
        first, most_alike = augmented(ALONE[part], pictures), ALIKE.get(part, 0.02)
        for other in (augmented(ALONE[part], pictures, epoch=1), augmented(ALONE[part], pictures, seed=2)):
            assert (first == other).all(axis=(1, 2, 3)).mean() < most_alike
        one_picture = augmented(ALONE[part], np.repeat(pictures[:1], 500, axis=0))
        neighbours = (one_picture[1:] == one_picture[:-1]).all(axis=(1, 2, 3))
        assert neighbours.mean() < most_alike

    @pytest.mark.parametrize("part", ALONE)
    def test_each_part_alone_does_not_depend_on_the_other_images(self, pictures, part):
        first = augmented(ALONE[part], pictures)
        augment = Augmenter(ALONE[part], seed=1, num_images=10_000, threads=3)
        some = np.array([400, 7, 8, 99])
        augment(pictures[some], some, 4)
        assert (augment(pictures[some], some, 0) == first[some]).all()


class TestCrop:
    def test_is_a_shift_by_whole_pixels_with_the_edge_repeated(self, pictures):
        begins = draw_crops(8, seed=1, epoch=0, num_images=len(pictures))
        cropped = augmented(Augmentation(crop_padding=8), pictures[:, :48])  # not square: x and y cannot be swapped
        for ours, image, (x, y) in zip(cropped, pictures[:, :48], begins, strict=True):
            padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), "edge")
            assert (ours == padded[8 + y : 56 + y, 8 + x : 72 + x]).all()

    def test_all_shifts_are_equally_likely(self):
        begins = draw_crops(8, seed=1, epoch=0, num_images=NUM_DRAWS)
        for axis in begins.T:
            values, counts = np.unique(axis, return_counts=True)
            assert values.tolist() == list(range(-8, 9))
            assert stats.chisquare(counts).pvalue > 0.01
        assert abs(np.corrcoef(begins.T)[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)

    def test_of_an_image_does_not_depend_on_the_number_of_images(self):
        more = draw_crops(8, seed=1, epoch=0, num_images=1_000)
        assert (draw_crops(8, seed=1, epoch=0, num_images=7) == more[:7]).all()


class TestTrivialAugment:
    """Crop, then mirror, then the one operation: Pillow does them in turn on a canvas that repeats the edges."""

    MARGIN = 120

    def by_pillow(self, image: np.ndarray, crop: np.ndarray, mirrored: bool, drawn: tuple[str, float]) -> np.ndarray:
        operation, magnitude = drawn
        margin, (x, y) = self.MARGIN, crop
        padded = np.pad(image, ((margin + 8, margin + 8), (margin + 8, margin + 8), (0, 0)), "edge")
        canvas = padded[8 + y :, 8 + x :][: 64 + 2 * margin, : 64 + 2 * margin]
        picture = Image.fromarray(canvas[:, ::-1] if mirrored else canvas)
        coefficients = {
            "shear_x": (1, magnitude, -magnitude * margin, 0, 1, 0),
            "shear_y": (1, 0, 0, magnitude, 1, -magnitude * margin),
            "translate_x": (1, 0, -magnitude, 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, -magnitude),
        }
        if operation == "rotate":
            picture = picture.rotate(magnitude, Image.Resampling.BILINEAR)
        elif operation in coefficients:
            affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
            picture = picture.transform(picture.size, affine, coefficients[operation], bilinear)
        turned = np.array(picture)[margin:-margin, margin:-margin]
        turned = np.ascontiguousarray(turned)
        recolour(turned, operation, magnitude)
        return turned

    def test_follows_the_crop_and_the_mirror(self, pictures):
        chosen = CROP_FLIP.model_copy(update={"trivial_augment": True})
        crops = draw_crops(8, seed=1, epoch=0, num_images=len(pictures))
        mirrored = draw(chosen, seed=1, epoch=0, num_images=len(pictures)).mirrored
        draws: TrivialDraws = draw_trivial(random_stream(Stream.TRIVIAL_AUGMENT, seed=1, epoch=0), len(pictures))
        names = [OPERATIONS[operation] for operation in draws.operation]
        drawn = zip(names, draws.magnitude, strict=True)
        theirs = np.stack([self.by_pillow(*each) for each in zip(pictures, crops, mirrored, drawn, strict=True)])
        differences = np.abs(augmented(chosen, pictures).astype(int) - theirs)
        warped = np.isin(names, ["shear_x", "shear_y", "rotate"])
        assert differences[~warped].max() == 0
        assert differences[warped].mean() <= 0.6
        assert (differences[warped] > 4).mean() <= 0.01


@pytest.fixture(scope="module")
def erased():
    """The rectangles of many pictures of 64 x 64, one for each."""
    return draw_erased(1.0, seed=1, epoch=0, num_images=NUM_DRAWS, height=64, width=64)


class TestErasing:
    def test_erases_the_requested_share_of_images(self):
        top, bottom, _, _ = draw_erased(0.1, seed=1, epoch=0, num_images=NUM_DRAWS, height=64, width=64).T
        assert stats.binomtest(int((bottom > top).sum()), NUM_DRAWS, 0.1).pvalue > 0.01

    def test_area_and_aspect_are_within_their_ranges(self, erased):
        top, bottom, left, right = erased.T
        tall, wide = bottom - top, right - left
        area, aspect = tall * wide / 64**2, tall / wide
        assert 0.017 < area.min() < 0.021  # sides are whole pixels
        assert 0.32 < area.max() < 0.34
        assert stats.kstest(area, stats.uniform(0.02, 0.31).cdf).statistic < 0.02
        assert 0.26 < aspect.min() < 0.31
        assert 3.2 < aspect.max() < 3.8
        assert abs((tall > wide).mean() - (tall < wide).mean()) < 0.02

    def test_rectangles_are_anywhere_within_the_picture(self, erased):
        top, bottom, left, right = erased.T
        assert (min(top.min(), left.min()), max(bottom.max(), right.max())) == (0, 64)
        assert ((top < bottom) & (left < right)).all()
        assert abs(np.corrcoef(top + bottom, left + right)[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)
        assert abs((top + bottom).mean() / 2 - 32) < 0.3
        assert abs((left + right).mean() / 2 - 32) < 0.3

    def test_fits_into_oblong_pictures(self, pictures):
        chosen = Augmentation(erasing=1)
        boxes = draw_erased(1.0, seed=1, epoch=0, num_images=len(pictures), height=20, width=64)
        assert boxes[:, 1].max() <= 20
        assert (augmented(chosen, pictures[:, :20]) != pictures[:, :20]).any(axis=(1, 2, 3)).all()

    def test_fills_with_uniform_values_that_differ_between_images_and_epochs(self):
        chosen, black = Augmentation(erasing=1), np.zeros((300, 64, 64, 3), np.uint8)
        epochs = [augmented(chosen, black, epoch=epoch) for epoch in (0, 1)]
        for images in epochs:
            top, bottom, left, right = draw_erased(1.0, seed=1, epoch=0, num_images=300, height=64, width=64).T
            assert len(np.unique(images.reshape(300, -1), axis=0)) == 300
        inside = [image[t:b, x:y] for image, t, b, x, y in zip(epochs[0], top, bottom, left, right, strict=True)]
        counts = np.bincount(np.concatenate([noise.ravel() for noise in inside]), minlength=256)
        assert stats.chisquare(counts).pvalue > 0.01
        assert (epochs[0] != epochs[1]).any(axis=(1, 2, 3)).all()

    def test_of_an_image_does_not_depend_on_the_number_of_images(self, erased):
        fewer = draw_erased(1.0, seed=1, epoch=0, num_images=7, height=64, width=64)
        assert (fewer == erased[:7]).all()


@pytest.fixture(scope="module", params=[PAPER_AUGMENTATION, MODERN], ids=["paper", "modern"])
def chosen(request):
    return request.param


@pytest.fixture(scope="module")
def whole(pictures, chosen):
    """All pictures of epoch 0, augmented in one batch on one thread."""
    return augmented(chosen, pictures, threads=1)


class TestAugmenter:
    @pytest.mark.parametrize("threads", [2, 4, 7])
    def test_pixels_do_not_depend_on_the_number_of_threads(self, pictures, chosen, whole, threads):
        assert (augmented(chosen, pictures, threads=threads) == whole).all()

    @pytest.mark.parametrize("batch_size", [1, 3, 64, 499])
    def test_pixels_do_not_depend_on_the_split_into_batches_or_the_order(self, pictures, chosen, whole, batch_size):
        augment = Augmenter(chosen, seed=1, num_images=len(pictures), threads=4)
        order = np.random.default_rng(batch_size).permutation(len(pictures))
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            assert (augment(pictures[indices], indices, 0) == whole[indices]).all()

    def test_an_epoch_is_the_same_after_another_was_made(self, pictures, chosen, whole):
        augment = Augmenter(chosen, seed=1, num_images=len(pictures))
        indices = np.arange(len(pictures))
        assert (augment(pictures, indices, 5) != whole).any(axis=(1, 2, 3)).mean() > 0.95
        assert (augment(pictures, indices, 0) == whole).all()

    def test_epochs_requested_at_once_do_not_mix(self, pictures, chosen):
        images, indices = pictures[:2], np.arange(2)
        augment = Augmenter(chosen, seed=1, num_images=2)
        expected = [augment(images, indices, epoch) for epoch in (0, 5)] * 100
        with ThreadPoolExecutor(4) as threads:
            made = list(threads.map(lambda epoch: augment(images, indices, epoch), [0, 5] * 100))
        assert all((ours == theirs).all() for ours, theirs in zip(made, expected, strict=True))

    @pytest.mark.parametrize(("seed", "epoch"), [(2, 0), (1, 1)])
    def test_other_seeds_and_epochs_give_other_pictures(self, pictures, chosen, whole, seed, epoch):
        others = augmented(chosen, pictures, seed=seed, epoch=epoch)
        assert (others != whole).any(axis=(1, 2, 3)).mean() > 0.95

    def test_no_augmentation_returns_the_same_pixels(self, pictures):
        assert (augmented(NO_AUGMENTATION, pictures) == pictures).all()

    def test_mixing_is_done_elsewhere(self, pictures):
        assert (augmented(Augmentation(mixup=1, cutmix=1), pictures) == pictures).all()

    def test_originals_do_not_change(self, pictures, chosen):
        images = pictures[:50].copy()
        images.flags.writeable = False  # as those of the memory-mapped cache
        augmented(chosen, images)
        assert (images == pictures[:50]).all()

    def test_images_are_uint8_of_the_same_shape(self, pictures, whole):
        assert (whole.shape, whole.dtype) == (pictures.shape, np.uint8)

    def test_flip_alone_gives_the_picture_or_its_mirror_image(self, pictures):
        flipped = augmented(PARTS["flip"], pictures)
        same = (flipped == pictures).all(axis=(1, 2, 3))
        mirrored = (flipped == pictures[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (same ^ mirrored).all()
        assert 200 < mirrored.sum() < 300

    def test_brightness_alone_equals_pil(self, pictures):
        factors = draw(PARTS["brightness"], seed=1, epoch=0, num_images=len(pictures)).brightness
        for ours, image, factor in zip(augmented(PARTS["brightness"], pictures), pictures, factors, strict=True):
            assert (ours == np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))).all()

    def test_empty_batch_is_accepted(self, pictures):
        augment = Augmenter(PAPER_AUGMENTATION, seed=1, num_images=10)
        assert augment(pictures[:0], np.arange(0), 0).shape == (0, 64, 64, 3)

    def test_error_on_a_thread_is_not_swallowed(self, pictures):
        augment = Augmenter(PAPER_AUGMENTATION, seed=1, num_images=10, threads=4)
        with pytest.raises(IndexError):
            augment(pictures[:5], np.arange(8, 13), 0)


class TestEpochOrder:
    @pytest.mark.parametrize("num_images", [1, 2, 1_000])
    def test_visits_every_image_once(self, num_images):
        assert sorted(epoch_order(seed=1, epoch=0, num_images=num_images)) == list(range(num_images))

    def test_depends_only_on_seed_and_epoch(self):
        order = epoch_order(seed=1, epoch=2, num_images=1_000)
        assert (epoch_order(seed=1, epoch=2, num_images=1_000) == order).all()
        for seed, epoch in ((1, 3), (2, 2), (2, 1)):
            assert (epoch_order(seed=seed, epoch=epoch, num_images=1_000) != order).mean() > 0.9
