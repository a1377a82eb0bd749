"""The batches for Keras: every image once an epoch, in an order that depends only on seed and epoch."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import NO_AUGMENTATION, PAPER_AUGMENTATION, PRESETS, Augmentation
from tiny_imagenet.input_pipeline.augmentation import Augmenter, epoch_order
from tiny_imagenet.input_pipeline.mixing import class_shares, draw_mixes, mix_images, mix_labels
from tiny_imagenet.input_pipeline.packed import Split

NUM_IMAGES = 50
MODERN = PRESETS["modern"]
SOME = np.array([3, 4, 11, 20, 21, 22, 30, 49])
BATCH_SIZE = 16  # 50 images make three batches and one of 2


@pytest.fixture(scope="module")
def split(make_pictures):
    """Pictures whose first pixel is their index, which is also their label."""
    images = make_pictures(NUM_IMAGES, seed=3)
    images[:, 0, 0, 0] = np.arange(NUM_IMAGES)
    images.flags.writeable = False  # as the memory-mapped cache is
    return Split(images, np.arange(NUM_IMAGES, dtype=np.int32))


@pytest.fixture
def training(keras, split):
    """Return batches for training from what a test changes."""
    from tiny_imagenet.input_pipeline.batches import TrainingBatches

    def training(**changes: Any) -> TrainingBatches:
        chosen = {"batch_size": BATCH_SIZE, "augmentation": NO_AUGMENTATION, "seed": 1} | changes
        return TrainingBatches(split, **chosen)

    return training


@pytest.fixture
def ordered(keras, split):
    """Return batches in the order of the split."""
    from tiny_imagenet.input_pipeline.batches import OrderedBatches

    def ordered(**changes: Any) -> OrderedBatches:
        return OrderedBatches(split, **{"batch_size": BATCH_SIZE} | changes)

    return ordered


@pytest.fixture(scope="module")
def hold_out(keras):
    """Return `hold_out` for labels, and for ranks if a test gives them."""
    from tiny_imagenet.input_pipeline.batches import hold_out

    def hold_out_of_labels(labels: np.ndarray, per_class: int, ranks: list[int] | None = None) -> Any:
        no_pixels = np.empty((len(labels), 0, 0, 3), np.uint8)
        return hold_out(Split(no_pixels, labels, None if ranks is None else np.array(ranks)), per_class)

    return hold_out_of_labels


def batches_of(dataset: Any, num_epochs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches of some epochs, requested one by one. Like `fit`, call `on_epoch_end` before the first too."""
    batches = []
    for _ in range(num_epochs):
        dataset.on_epoch_end()
        batches += [dataset[index] for index in range(len(dataset))]
    return batches


def joined(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def assert_same(ours: list[tuple[np.ndarray, np.ndarray]], theirs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert [len(labels) for _, labels in ours] == [len(labels) for _, labels in theirs]
    for mine, other in zip(joined(ours), joined(theirs), strict=True):
        assert (mine == other).all()


@pytest.fixture
def recorder(keras):
    """A model that learns nothing and records every batch of `fit` and `evaluate`."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("train_step has another signature on other backends")

    class Recorder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.trained: list[tuple[np.ndarray, np.ndarray]] = []
            self.tested: list[tuple[np.ndarray, np.ndarray]] = []

        def train_step(self, data: Any) -> dict[str, float]:
            images, labels = data
            self.trained.append((images.numpy(), labels.numpy()))
            return {"loss": 0.0}

        def test_step(self, data: Any) -> dict[str, float]:
            images, labels = data
            self.tested.append((images.numpy(), labels.numpy()))
            return {"loss": 0.0}

    model = Recorder()
    model.compile(run_eagerly=True)
    return model


class TestTrainingBatches:
    @pytest.mark.parametrize("batch_size", [1, 16, 25, 50, 64])
    def test_visit_every_image_once_an_epoch(self, training, batch_size):
        dataset = training(batch_size=batch_size)
        for _ in range(3):
            _, labels = joined(batches_of(dataset, 1))
            assert sorted(labels) == list(range(NUM_IMAGES))
        assert dataset.images_per_epoch == NUM_IMAGES

    def test_last_one_is_short(self, training):
        sizes = [len(labels) for _, labels in batches_of(training(), 2)]
        assert sizes == [16, 16, 16, 2] * 2
        assert len(training()) == 4

    @pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, PAPER_AUGMENTATION], ids=["plain", "augmented"])
    def test_labels_belong_to_their_images(self, training, split, augmentation):
        images, labels = joined(batches_of(training(augmentation=augmentation), 1))
        expected = Augmenter(augmentation, seed=1, num_images=NUM_IMAGES)(split.images, np.arange(NUM_IMAGES), 0)
        assert (images == expected[labels]).all()
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)

    def test_order_differs_between_epochs_and_seeds(self, training):
        orders = [
            joined(batches_of(training(seed=seed, first_epoch=epoch), 1))[1] for seed, epoch in [(1, 0), (1, 1), (2, 0)]
        ]
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert (orders[first] != orders[second]).any()
        assert (orders[0] == epoch_order(seed=1, epoch=0, num_images=NUM_IMAGES)).all()

    def test_pictures_differ_between_epochs(self, training, split):
        batches = batches_of(training(augmentation=PAPER_AUGMENTATION), 2)
        first, second = joined(batches[:4]), joined(batches[4:])
        same_image = first[0][np.argsort(first[1])], second[0][np.argsort(second[1])]
        assert (same_image[0] != same_image[1]).any(axis=(1, 2, 3)).all()

    def test_are_equal_for_equal_seed_and_epoch(self, training):
        chosen = {"augmentation": PAPER_AUGMENTATION, "seed": 5}
        assert_same(batches_of(training(**chosen), 3), batches_of(training(**chosen), 3))

    def test_are_the_same_when_requested_twice_and_in_any_order(self, training):
        dataset = training(augmentation=PAPER_AUGMENTATION)
        forwards = [dataset[index] for index in range(len(dataset))]
        backwards = [dataset[index] for index in reversed(range(len(dataset)))]
        assert_same(forwards, backwards[::-1])

    @pytest.mark.parametrize("first_epoch", [1, 2, 3])
    @pytest.mark.parametrize("batches_per_epoch", [None, 2])
    def test_resumed_at_an_epoch_equal_those_without_interruption(self, training, first_epoch, batches_per_epoch):
        chosen = {"augmentation": PAPER_AUGMENTATION, "batches_per_epoch": batches_per_epoch}
        whole = batches_of(training(**chosen), 4)
        resumed = batches_of(training(**chosen, first_epoch=first_epoch), 4 - first_epoch)
        assert_same(resumed, whole[first_epoch * len(training(**chosen)) :])

    @pytest.mark.parametrize(
        ("asked", "num_batches", "num_images"), [(None, 4, 50), (1, 1, 16), (3, 3, 48), (4, 4, 50), (99, 4, 50)]
    )
    def test_fewer_per_epoch_are_the_first_of_its_order(self, training, asked, num_batches, num_images):
        dataset = training(batches_per_epoch=asked)
        assert (len(dataset), dataset.images_per_epoch) == (num_batches, num_images)
        _, labels = joined([dataset[index] for index in range(len(dataset))])
        assert (labels == epoch_order(seed=1, epoch=0, num_images=NUM_IMAGES)[:num_images]).all()

    def test_fewer_per_epoch_still_reach_every_image(self, training):
        # The authors' model 3 saw a quarter of the data an epoch: another quarter each time.
        _, labels = joined(batches_of(training(batches_per_epoch=1), 60))
        assert set(labels) == set(range(NUM_IMAGES))

    def test_of_the_first_epoch_are_the_same_before_keras_starts_it(self, training):
        # Keras looks at some to learn their shapes.
        dataset = training(augmentation=PAPER_AUGMENTATION, first_epoch=3)
        assert_same([dataset[index] for index in range(len(dataset))], batches_of(dataset, 1))


class TestLabels:
    def test_are_shares_of_classes_if_num_classes_is_given(self, training, ordered, split):
        for dataset in (training(num_classes=60), ordered(num_classes=60)):
            images, labels = joined(batches_of(dataset, 1))
            assert (labels.dtype, labels.shape) == (np.float32, (NUM_IMAGES, 60))
            assert (labels == class_shares(images[:, 0, 0, 0], 60)).all()

    def test_do_not_change_the_pictures(self, training):
        chosen = {"augmentation": PAPER_AUGMENTATION}
        numbers, shares = joined(batches_of(training(**chosen), 1)), joined(batches_of(training(num_classes=50), 1))
        assert (numbers[1] == shares[1].argmax(1)).all()
        assert (numbers[0] == joined(batches_of(training(**chosen, num_classes=50), 1))[0]).all()

    @pytest.mark.parametrize("chosen", [Augmentation(mixup=0.2), Augmentation(cutmix=1.0), MODERN])
    def test_of_mixed_pictures_need_the_number_of_classes(self, training, chosen):
        with pytest.raises(ValueError, match="num_classes"):
            training(augmentation=chosen)


class TestMixedBatches:
    @pytest.fixture
    def mixed(self, training):
        return lambda **changes: training(**{"augmentation": MODERN, "num_classes": NUM_IMAGES} | changes)

    @staticmethod
    def expected(split: Split, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all images of the split in their own order: each augmented by itself, then mixed with its partner."""
        indices = np.arange(NUM_IMAGES)
        pictures = Augmenter(MODERN, seed=1, num_images=NUM_IMAGES)(split.images, indices, epoch)
        mixes = draw_mixes(MODERN, seed=1, epoch=epoch, num_images=NUM_IMAGES, partners=indices, height=64, width=64)
        images = mix_images(pictures, pictures[mixes.partner], mixes)
        return images, mix_labels(split.labels, split.labels[mixes.partner], mixes, NUM_IMAGES)

    @pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 64])
    def test_mix_pictures_and_labels_in_the_same_way_for_any_batch_size(self, mixed, split, batch_size):
        dataset = mixed(batch_size=batch_size)
        for epoch in (0, 1):
            images, labels = joined(batches_of(dataset, 1))
            order = epoch_order(seed=1, epoch=epoch, num_images=NUM_IMAGES)
            expected_images, expected_labels = self.expected(split, epoch)
            assert (images == expected_images[order]).all()
            assert (labels == expected_labels[order]).all()
            assert (images.dtype, labels.dtype) == (np.uint8, np.float32)

    def test_resumed_at_an_epoch_equal_those_without_interruption(self, mixed):
        assert_same(batches_of(mixed(first_epoch=2), 1), batches_of(mixed(), 3)[2 * 4 :])

    def test_partners_are_among_the_selected_images(self, mixed):
        _, labels = joined(batches_of(mixed(indices=SOME), 30))
        shown = np.flatnonzero(labels.sum(0))
        assert shown.tolist() == SOME.tolist()
        assert (np.count_nonzero(labels, axis=1) == 2).mean() > 0.5


class TestIndices:
    def test_select_images(self, training, ordered, split):
        dataset = training(indices=SOME, batch_size=3)
        assert (len(dataset), dataset.images_per_epoch) == (3, 8)
        for _ in range(3):
            images, labels = joined(batches_of(dataset, 1))
            assert sorted(labels) == SOME.tolist()
            assert (images == split.images[labels]).all()
        images, labels = joined(batches_of(ordered(indices=SOME, batch_size=3), 1))
        assert labels.tolist() == SOME.tolist()
        assert (images == split.images[SOME]).all()

    def test_order_of_an_epoch_contains_only_them(self, training):
        _, labels = joined(batches_of(training(indices=SOME, first_epoch=4), 1))
        assert (labels == SOME[epoch_order(seed=1, epoch=4, num_images=len(SOME))]).all()

    def test_picture_of_an_image_is_the_same_without_the_others(self, training, ordered):
        chosen = {"augmentation": PAPER_AUGMENTATION}
        for make in (training, ordered):
            images, labels = joined(batches_of(make(**chosen), 1))
            some_images, some_labels = joined(batches_of(make(**chosen, indices=SOME), 1))
            places = np.argsort(labels)[some_labels]
            assert (some_images == images[places]).all()

    def test_of_all_images_change_nothing(self, training):
        chosen = {"augmentation": PAPER_AUGMENTATION}
        assert_same(batches_of(training(**chosen), 2), batches_of(training(**chosen, indices=np.arange(50)), 2))


class TestImageSizes:
    SIZES = (32, 32, 48)

    @pytest.mark.parametrize("augmentation", [PRESETS["crop_flip"], MODERN], ids=["crop_flip", "modern"])
    def test_are_those_of_the_epoch_and_the_rest_is_that_of_the_full_size(self, training, augmentation):
        chosen = {"augmentation": augmentation, "num_classes": NUM_IMAGES}
        full, resized = batches_of(training(**chosen), 4), batches_of(training(**chosen, image_sizes=self.SIZES), 4)
        sizes = [size for size in (*self.SIZES, 64) for _ in range(4)]  # four batches in each epoch
        assert [images.shape[1:] for images, _ in resized] == [(size, size, 3) for size in sizes]
        assert all(images.dtype == np.uint8 for images, _ in resized)
        for (images, labels), (smaller, same_labels), size in zip(full, resized, sizes, strict=True):
            assert (labels == same_labels).all()
            if size == 32:  # two by two pixels are one
                assert (smaller == [Image.fromarray(image).reduce(2) for image in images]).all()
            elif size == 64:
                assert (smaller == images).all()

    @pytest.mark.parametrize("size", [16, 40, 48, 63])
    def test_of_any_ratio_are_means_of_the_covered_area(self, training, split, size):
        images, labels = joined(batches_of(training(image_sizes=[size]), 1))
        expected = [by_area(split.images[label], size) for label in labels]
        assert np.abs(images - np.stack(expected)).max() <= 0.51

    @pytest.mark.parametrize("first_epoch", [1, 2, 3])
    def test_resumed_at_an_epoch_equal_those_without_interruption(self, training, first_epoch):
        chosen = {"augmentation": PAPER_AUGMENTATION, "image_sizes": self.SIZES}
        whole = batches_of(training(**chosen), 4)[first_epoch * 4 :]
        resumed = batches_of(training(**chosen, first_epoch=first_epoch), 4 - first_epoch)
        assert all((one == two).all() for (one, _), (two, _) in zip(whole, resumed, strict=True))

    def test_reach_keras_in_one_fit(self, keras, recorder, training):
        from tiny_imagenet.input_pipeline.batches import Untuned

        chosen = {"augmentation": PAPER_AUGMENTATION, "image_sizes": self.SIZES}
        recorder.fit(Untuned(training(**chosen)), epochs=4, shuffle=False, verbose=0)
        expected = batches_of(training(**chosen), 4)
        assert all((one == two).all() for (one, _), (two, _) in zip(recorder.trained, expected, strict=True))


def by_area(image: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of the area that each pixel covers, by a matrix for rows and columns."""
    edges = np.arange(size + 1) * len(image) / size
    pixels = np.arange(len(image))
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = overlap.clip(0) * size / len(image)
    return np.einsum("ij,jkc,lk->ilc", weights, image.astype(float), weights, optimize=True)


class TestAhead:
    """While a batch is used, a thread makes the next."""

    @pytest.fixture
    def watched(self, training):
        """Return batches, and the list of (epoch, first image) that were made, with an event for each further one."""
        dataset, made, news = training(augmentation=PAPER_AUGMENTATION), [], threading.Semaphore(0)
        augment = dataset._augment

        def watching(images: np.ndarray, indices: np.ndarray, epoch: int) -> np.ndarray:
            if 13 in indices and watching.fails:
                raise OSError("image 13 cannot be read")
            made.append((epoch, *indices[:1], threading.get_ident()))
            news.release()
            return augment(images, indices, epoch)

        watching.fails = False
        dataset._augment = watching
        return dataset, made, news, watching

    def test_next_batch_is_made_in_advance_on_another_thread(self, watched):
        dataset, made, news, _ = watched
        dataset[0]
        assert news.acquire(timeout=10)
        assert news.acquire(timeout=10)
        order = epoch_order(seed=1, epoch=0, num_images=NUM_IMAGES)
        assert {first for _, first, _ in made} == {order[0], order[BATCH_SIZE]}
        threads = {first: thread for _, first, thread in made}
        assert threads[order[0]] == threading.get_ident() != threads[order[BATCH_SIZE]]

    def test_each_is_made_once_and_none_past_the_end_of_the_epoch(self, watched):
        dataset, made, _, _ = watched
        batches_of(dataset, 2)
        dataset._background.shutdown()
        orders = [epoch_order(seed=1, epoch=epoch, num_images=NUM_IMAGES) for epoch in (0, 1)]
        firsts = [(epoch, order[start]) for epoch, order in enumerate(orders) for start in range(0, 50, BATCH_SIZE)]
        assert sorted(tuple(of) for *of, _ in made) == sorted(firsts)

    def test_error_is_raised_for_its_own_batch(self, watched):
        dataset, _, _, watching = watched
        concerned = int(np.flatnonzero(epoch_order(seed=1, epoch=0, num_images=NUM_IMAGES) == 13)[0] // BATCH_SIZE)
        whole = [dataset[index] for index in range(4)]
        watching.fails = True
        for index in range(4):
            if index == concerned:
                with pytest.raises(OSError, match="image 13"):
                    dataset[index]
            else:
                assert_same([dataset[index]], [whole[index]])
        watching.fails = False
        assert_same([dataset[concerned]], [whole[concerned]])

    @settings(max_examples=20, deadline=None)
    @given(asked=st.lists(st.integers(-1, 3), max_size=15))
    def test_batches_requested_in_any_order_are_right(self, keras, split, asked):
        from tiny_imagenet.input_pipeline.batches import TrainingBatches

        def made() -> TrainingBatches:
            return TrainingBatches(split, batch_size=16, augmentation=PAPER_AUGMENTATION, seed=1)

        fresh, dataset, epoch = batches_of(made(), 17), made(), 0
        dataset.on_epoch_end()
        for index in asked:  # -1: end the epoch
            if index < 0:
                dataset.on_epoch_end()
                epoch += 1
            else:
                assert_same([dataset[index]], [fresh[4 * epoch + index]])

    def test_batches_requested_by_several_threads_are_right(self, training):
        expected = batches_of(training(augmentation=PAPER_AUGMENTATION), 1)
        dataset = training(augmentation=PAPER_AUGMENTATION)
        asked = [*range(4), *range(4), *reversed(range(4))] * 10
        with ThreadPoolExecutor(5) as threads:
            assert_same(list(threads.map(dataset.__getitem__, asked)), [expected[index] for index in asked])


class TestFit:
    @pytest.fixture(params=["as they are", "untuned"])
    def given(self, keras, request):
        """Return the argument of `fit` for batches: themselves, or the adapter that trainings use."""
        from tiny_imagenet.input_pipeline.batches import Untuned

        return Untuned if request.param == "untuned" else lambda batches: batches

    def test_sees_the_batches_in_their_order_for_every_epoch(self, recorder, given, training):
        chosen = {"augmentation": PAPER_AUGMENTATION}
        recorder.fit(given(training(**chosen)), epochs=3, shuffle=False, verbose=0)
        first_epoch = epoch_order(seed=1, epoch=0, num_images=NUM_IMAGES)
        assert joined(recorder.trained)[1][:NUM_IMAGES].tolist() == first_epoch.tolist()
        assert_same(recorder.trained, batches_of(training(**chosen), 3))

    def test_resumed_sees_what_it_would_have_seen(self, recorder, given, training):
        chosen = {"augmentation": PAPER_AUGMENTATION}
        dataset = training(**chosen, first_epoch=2)
        recorder.fit(given(dataset), initial_epoch=2, epochs=4, shuffle=False, verbose=0)
        assert_same(recorder.trained, batches_of(training(**chosen), 4)[2 * 4 :])

    def test_validates_on_the_split_in_its_own_order_after_every_epoch(self, recorder, given, training, ordered, split):
        recorder.fit(given(training()), validation_data=given(ordered()), epochs=2, shuffle=False, verbose=0)
        assert_same(recorder.trained, batches_of(training(), 2))
        images, labels = joined(recorder.tested)
        assert (images == np.concatenate([split.images] * 2)).all()
        assert labels.tolist() == list(range(NUM_IMAGES)) * 2

    def test_twice_from_one_seed_gives_the_same_losses(self, keras, training):
        def losses() -> list[float]:
            keras.utils.set_random_seed(0)
            layers = keras.layers
            model = keras.Sequential(
                [layers.Rescaling(1 / 255), layers.AveragePooling2D(8), layers.Flatten(), layers.Dense(NUM_IMAGES)]
            )
            model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            dataset = training(augmentation=PAPER_AUGMENTATION)
            return model.fit(dataset, epochs=2, shuffle=False, verbose=0).history["loss"]

        first = losses()
        assert first == losses()
        assert first[1] < first[0]


class TestOrderedBatches:
    @pytest.mark.parametrize("batch_size", [1, 16, 50, 64])
    def test_contain_the_split_in_its_own_order(self, ordered, split, batch_size):
        dataset = ordered(batch_size=batch_size)
        assert len(dataset) == math.ceil(NUM_IMAGES / batch_size)
        images, labels = joined(batches_of(dataset, 1))
        assert (images == split.images).all()
        assert (labels == split.labels).all()

    def test_read_a_memory_mapped_split(self, keras, split, tmp_path):
        from tiny_imagenet.input_pipeline.batches import OrderedBatches, TrainingBatches

        np.save(tmp_path / "images.npy", split.images)
        mapped = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), split.labels)
        assert (joined(batches_of(OrderedBatches(mapped, batch_size=16), 1))[0] == split.images).all()
        dataset = TrainingBatches(mapped, batch_size=16, augmentation=NO_AUGMENTATION, seed=0)
        images, labels = joined(batches_of(dataset, 1))
        assert (images == split.images[labels]).all()

    def test_are_the_same_in_every_epoch(self, ordered):
        batches = batches_of(ordered(augmentation=PAPER_AUGMENTATION), 2)
        assert_same(batches[:4], batches[4:])

    @pytest.mark.parametrize("batch_size", [1, 16, 64])
    def test_of_the_papers_protocol_do_not_depend_on_the_batch_size(self, ordered, split, batch_size):
        expected = Augmenter(PAPER_AUGMENTATION, seed=0, num_images=NUM_IMAGES)(split.images, np.arange(NUM_IMAGES), 0)
        images, labels = joined(batches_of(ordered(augmentation=PAPER_AUGMENTATION, batch_size=batch_size), 1))
        assert (images == expected).all()
        assert (images != split.images).any(axis=(1, 2, 3)).all()
        assert (labels == split.labels).all()

    def test_predictions_are_in_the_order_of_the_split(self, keras, ordered, split):
        inputs = keras.Input((64, 64, 3))
        outputs = keras.layers.Rescaling(1.0)(inputs)
        predicted = keras.Model(inputs, outputs).predict(ordered(), verbose=0)
        assert (predicted == split.images).all()


class TestHoldOut:
    def test_holds_out_the_last_of_each_class(self, hold_out):
        labels = np.array([0, 0, 1, 0, 1, 2, 2, 1], np.int32)
        training, held_out = hold_out(labels, 1)
        assert held_out.tolist() == [3, 6, 7]
        assert training.tolist() == [0, 1, 2, 4, 5]

    def test_the_last_are_those_with_the_highest_numbers_at_any_index(self, hold_out):
        numbers = [0, 1, 10, 11, 2, 9] * 2  # as their names are sorted
        ranks = [sorted(numbers).index(number) for number in numbers]
        labels = np.repeat(np.arange(2, dtype=np.int32), 6)
        training, held_out = hold_out(labels, 2, ranks)
        assert [numbers[index] for index in held_out] == [10, 11] * 2
        assert [numbers[index] for index in training] == [0, 1, 2, 9] * 2

    def test_zero_leaves_all(self, hold_out):
        training, held_out = hold_out(np.array([1, 0, 1], np.int32), 0)
        assert (training.tolist(), held_out.tolist()) == ([0, 1, 2], [])
        assert training.dtype == held_out.dtype == np.int64

    @pytest.mark.parametrize("per_class", [2, 3, 100])
    def test_a_whole_class_is_refused(self, hold_out, per_class):
        labels = np.array([5] * 3 + [7] * 2 + [0] * 200, np.int32)
        with pytest.raises(UserError, match=r"class 7 has 2 .* Set `holdout_per_class` to at most 1"):
            hold_out(labels, per_class)

    @settings(deadline=None)
    @given(labels=arrays(np.int32, st.integers(1, 80), elements=st.integers(0, 3)), per_class=st.integers(0, 5))
    def test_splits_any_labels_in_two_or_names_the_class_that_is_too_small(self, hold_out, labels, per_class):
        counts = np.bincount(labels)
        if ((counts > 0) & (counts <= per_class)).any():
            with pytest.raises(UserError):
                hold_out(labels, per_class)
            return
        training, held_out = hold_out(labels, per_class)
        assert sorted([*training, *held_out]) == list(range(len(labels)))
        assert training.tolist() == sorted(training)
        assert held_out.tolist() == sorted(held_out)
        for label in np.flatnonzero(counts):
            own = np.flatnonzero(labels == label)
            assert np.isin(held_out, own).sum() == per_class
            assert np.isin(own[len(own) - per_class :], held_out).all()
