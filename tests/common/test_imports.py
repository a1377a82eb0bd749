import gc

import pytest

from tiny_imagenet.common.imports import without_garbage_collection


def test_no_garbage_is_collected_in_the_block_and_again_after_it():
    with without_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_collected_again_after_an_error():
    with pytest.raises(ImportError), without_garbage_collection():
        raise ImportError
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off():
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
