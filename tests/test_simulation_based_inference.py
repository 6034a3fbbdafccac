"""The scores of the example of simulation-based inference; what needs BayesFlow is elsewhere."""

import numpy as np
import pytest

from examples.simulation_based_inference import evaluate
from tests.conftest import once

pytestmark = once


# Fewer ranks than bins; not equally many ranks in every bin; nearly so.
@pytest.mark.parametrize("count", [5, 30, 1000])
def test_uniform_ranks_are_found_uniform(rng, count):
    places = rng.integers(0, count + 1, (200, 1000)) / count
    p = np.array([evaluate.uniformity(place, count) for place in places])
    assert np.mean(p < 0.05) < 0.12 and 0.4 < p.mean() < 0.6
    narrow = rng.integers(0, count + 1, 1000) / count * 0.8
    assert evaluate.uniformity(np.rint(narrow * count) / count, count) < 1e-6
