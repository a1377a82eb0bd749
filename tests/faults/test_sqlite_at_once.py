"""Five processes that meet at an MLflow store which does not exist yet, again and again: no run loses anything."""

import pytest
from at_once import assert_nothing_is_lost, write_at_once

ROUNDS = 20
NAMES = [f"model_{number}" for number in range(1, 6)]
pytestmark = pytest.mark.faults


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_five_runs_that_start_at_once_are_complete(tmp_path, round_):
    write_at_once(tmp_path, NAMES)
    assert_nothing_is_lost(tmp_path, NAMES)
