"""Mixup and CutMix: partners, shares, and that pictures and labels agree."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tiny_imagenet.config.recipe import PRESETS, Augmentation
from tiny_imagenet.input_pipeline.mixing import Mixes, class_shares, draw_mixes, mix_images, mix_labels

MIXUP, CUTMIX, BOTH = Augmentation(mixup=0.2), Augmentation(cutmix=1.0), Augmentation(mixup=0.2, cutmix=1.0)
NUM_DRAWS = 20_000


def mixes_of(chosen: Augmentation, **changes: Any) -> Mixes:
    defaults = {"seed": 7, "epoch": 2, "num_images": NUM_DRAWS, "height": 64, "width": 64}
    partners = np.arange(changes.get("num_images", NUM_DRAWS))
    return draw_mixes(chosen, **defaults | {"partners": partners} | changes)


def areas(mixes: Mixes) -> np.ndarray:
    top, bottom, left, right = mixes.box.T
    return (bottom - top) * (right - left)


class TestDraws:
    def test_all_images_are_equally_likely_partners(self):
        partner = mixes_of(BOTH).partner
        assert stats.chisquare(np.histogram(partner, 50, (0, NUM_DRAWS))[0]).pvalue > 0.01
        assert abs(np.corrcoef(partner, np.arange(NUM_DRAWS))[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)

    def test_partners_are_the_allowed_ones(self):
        allowed = np.array([3, 17, 400])
        values, counts = np.unique(mixes_of(BOTH, partners=allowed).partner, return_counts=True)
        assert values.tolist() == allowed.tolist()
        assert stats.chisquare(counts).pvalue > 0.01

    @pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
    def test_shares_of_mixup_follow_the_beta_distribution(self, alpha):
        mixes = mixes_of(Augmentation(mixup=alpha))
        assert not mixes.cut.any()
        assert stats.kstest(mixes.share, stats.beta(alpha, alpha).cdf).pvalue > 0.01

    def test_shares_of_cutmix_are_the_remaining_areas(self):
        mixes = mixes_of(CUTMIX, height=48)
        assert mixes.cut.all()
        assert (mixes.share == 1 - areas(mixes) / (48 * 64)).all()

    def test_sides_of_the_rectangle_follow_the_beta_distribution(self):
        # Unless the border cuts it: sides of sqrt(1 - share) of the picture's, with share uniform for an alpha of 1.
        top, bottom, left, right = mixes_of(CUTMIX, height=3_000, width=4_000).box.T
        whole = (top > 0) & (bottom < 3_000) & (left > 0) & (right < 4_000)
        tall, wide = (bottom - top)[whole] / 3_000, (right - left)[whole] / 4_000
        assert np.abs(tall - wide).max() < 0.001
        # A side s fits with chance (1 - s)^2, and its density is 2 s before that: 12 s (1 - s)^2 after it.
        assert stats.kstest(tall, stats.beta(2, 3).cdf).pvalue > 0.01

    def test_rectangles_are_anywhere_within_the_picture(self):
        top, bottom, left, right = mixes_of(CUTMIX, height=48).box.T
        assert ((top >= 0) & (top <= bottom) & (bottom <= 48)).all()
        assert ((left >= 0) & (left <= right) & (right <= 64)).all()
        covered = np.zeros((48, 64))
        for box in np.stack([top, bottom, left, right], -1):
            covered[box[0] : box[1], box[2] : box[3]] += 1
        assert covered.min() > 0.1 * NUM_DRAWS
        for mirrored in (covered[::-1], covered[:, ::-1]):
            assert np.abs(covered - mirrored).max() < 0.03 * NUM_DRAWS

    def test_with_both_each_image_gets_one_with_equal_probability(self):
        mixes = mixes_of(BOTH)
        assert stats.binomtest(int(mixes.cut.sum()), NUM_DRAWS).pvalue > 0.01
        assert abs(np.corrcoef(mixes.cut, mixes.partner)[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)

    def test_of_one_kind_do_not_change_when_the_other_is_on(self):
        both, mixup, cutmix = mixes_of(BOTH), mixes_of(MIXUP), mixes_of(CUTMIX)
        assert (both.partner == mixup.partner).all()
        assert (both.partner == cutmix.partner).all()
        assert (both.share == np.where(both.cut, cutmix.share, mixup.share)).all()
        assert (both.box == cutmix.box).all()

    @pytest.mark.parametrize("num_images", [1, 2, 999])
    def test_of_an_image_do_not_depend_on_the_number_of_images(self, num_images):
        partners = np.arange(5)
        fewer = mixes_of(BOTH, num_images=num_images, partners=partners)
        more = mixes_of(BOTH, partners=partners)[np.arange(num_images)]
        for name in ("partner", "share", "box", "cut"):
            assert (getattr(fewer, name) == getattr(more, name)).all()

    @pytest.mark.parametrize(("seed", "epoch"), [(8, 2), (7, 3), (2, 7)])
    def test_differ_between_seeds_and_epochs(self, seed, epoch):
        mixes, others = mixes_of(BOTH), mixes_of(BOTH, seed=seed, epoch=epoch)
        assert (mixes.partner != others.partner).mean() > 0.99
        assert (mixes.share != others.share).mean() > 0.99

    @pytest.mark.parametrize(
        "drawn",
        [
            lambda **key: mixes_of(MIXUP, **key).partner,
            lambda **key: mixes_of(BOTH, **key).cut,
            lambda **key: mixes_of(MIXUP, **key).share,
            lambda **key: np.subtract(*mixes_of(CUTMIX, height=3_000, **key).box.T[:2]),  # how tall
            lambda **key: np.add(*mixes_of(CUTMIX, height=3_000, **key).box.T[:2]),  # and how far up
        ],
        ids=["partner", "mixup or cutmix", "share of mixup", "height of the rectangle", "place of the rectangle"],
    )
    def test_each_changes_with_seed_epoch_and_index(self, drawn):
        first = drawn()
        for other in (drawn(epoch=3), drawn(seed=8), np.roll(first, 1)):
            assert abs(np.corrcoef(first, other)[0, 1]) < 4.5 / np.sqrt(NUM_DRAWS)


@pytest.fixture(scope="module")
def pictures(make_pictures):
    return make_pictures(200, seed=1)


class TestImages:
    def test_of_mixup_are_the_weighted_mean_rounded_to_nearest(self, pictures):
        mixes = mixes_of(Augmentation(mixup=1), num_images=200)
        others = pictures[mixes.partner]
        share = mixes.share[:, np.newaxis, np.newaxis, np.newaxis]
        exact = share * pictures + (1 - share) * others
        mixed = mix_images(pictures, others, mixes)
        assert mixed.dtype == np.uint8
        assert np.abs(mixed - exact).max() <= 0.5 + 1e-4  # OpenCV multiplies in single precision

    def test_of_cutmix_show_the_partner_only_inside_the_rectangle(self, pictures):
        mixes = mixes_of(CUTMIX, num_images=200)
        others = pictures[mixes.partner]
        mixed = mix_images(pictures, others, mixes)
        for image, other, ours, (top, bottom, left, right) in zip(pictures, others, mixed, mixes.box, strict=True):
            inside = np.zeros((64, 64, 1), bool)
            inside[top:bottom, left:right] = True
            assert (ours == np.where(inside, other, image)).all()

    def test_of_cutmix_show_each_picture_by_its_share(self):
        mixes = mixes_of(CUTMIX, num_images=300)
        white, black = np.full((300, 64, 64, 3), 255, np.uint8), np.zeros((300, 64, 64, 3), np.uint8)
        shown = (mix_images(white, black, mixes) == 255).mean(axis=(1, 2, 3))
        assert (shown == mixes.share).all()

    def test_that_are_mixed_do_not_change(self, pictures):
        mixes = mixes_of(BOTH, num_images=200)
        images, others = pictures.copy(), pictures[mixes.partner]
        images.flags.writeable = others.flags.writeable = False
        mix_images(images, others, mixes)
        assert (images == pictures).all()


class TestLabels:
    def test_contain_the_share_of_each_class(self):
        mixes = mixes_of(BOTH, num_images=100)
        labels = np.arange(100, dtype=np.int32) % 7
        others = (labels + 1) % 7
        shares = mix_labels(labels, others, mixes, 7)
        assert (shares.dtype, shares.shape) == (np.float32, (100, 7))
        assert (shares[np.arange(100), labels] == mixes.share.astype(np.float32)).all()
        assert np.allclose(shares[np.arange(100), others], 1 - mixes.share, atol=1e-7)
        assert np.allclose(shares.sum(1), 1, atol=1e-6)
        assert (np.count_nonzero(shares, axis=1) <= 2).all()

    def test_of_two_pictures_of_a_class_are_that_class(self):
        labels = np.arange(100, dtype=np.int32) % 7
        shares = mix_labels(labels, labels, mixes_of(BOTH, num_images=100), 7)
        assert np.allclose(shares, class_shares(labels, 7), atol=1e-6)

    def test_unmixed_are_one_for_the_images_class(self):
        shares = class_shares(np.array([2, 0], np.int32), 3)
        assert shares.dtype == np.float32
        assert shares.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_mixes_is_true_only_for_presets_that_mix():
    assert [name for name, preset in PRESETS.items() if preset.mixes] == ["modern"]
