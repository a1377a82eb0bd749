"""Formats of values."""

import math

import pandas as pd
import pytest

from tiny_imagenet.reporting import formats


@pytest.mark.parametrize(
    ("value", "shown"), [(0.3861, "38.61"), (1.0, "100.00"), (0.0, "0.00"), (None, "-"), (math.nan, "-"), (pd.NA, "-")]
)
def test_percent_has_two_decimals_or_a_dash(value, shown):
    assert formats.percent(value) == shown


def test_values_are_formatted_for_readers():
    assert (formats.points(-0.0792), formats.points(0.0792)) == ("-7.92", "+7.92")
    assert (formats.limits(0.3766, 0.3957), formats.limits(math.nan, 0.4)) == ("37.7-39.6", "")
    assert (formats.count(13_070_472), formats.count(425.8), formats.count(None)) == ("13,070,472", "426", "-")
    assert (formats.probability(1e-20), formats.probability(0.05)) == ("< 0.0001", "0.0500")
    assert (formats.quantity(1234, "parameters"), formats.quantity(0.5, "training accuracy")) == ("1,234", "50.00")
