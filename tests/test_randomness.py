"""Numbers that belong to a draw, not to a generator."""

from hypothesis import given
from hypothesis import strategies as st

from workbench.randomness import uniform


@given(st.integers(), st.integers(), st.integers())
def test_every_number_lies_in_the_half_open_unit_interval(seed, index, stream):
    assert 0.0 <= uniform(seed, index, stream) < 1.0


def test_numbers_are_the_same_on_every_machine_and_in_every_version():
    assert uniform(0, 0) == 0.8866834708621406
    assert uniform(0, 1) == 0.7157110061977974
    assert uniform(7, 3, 1) == 0.7545258773393809


def test_each_of_seed_index_and_stream_matters():
    numbers = {uniform(*triple) for triple in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (12, 3, 0), (1, 23, 0), (-1, 2, 3), (1, 2, 0)]}
    assert len(numbers) == 7


def test_numbers_fill_the_interval_evenly():
    """Chi-squared over 100 bins of 50,000 numbers: a fair generator exceeds 181 in 1 of 1,000,000 seeds."""
    counts = [0] * 100
    for index in range(50_000):
        counts[int(uniform(5, index) * 100)] += 1
    assert sum((count - 500) ** 2 / 500 for count in counts) < 181


def test_successive_numbers_and_streams_are_independent():
    """Chi-squared over a grid of 10 by 10 for neighbours in index, stream and seed: 181 as above, 3 in 1,000,000."""
    for neighbour in (lambda i: uniform(9, i + 1), lambda i: uniform(9, i, 1), lambda i: uniform(10, i)):
        counts = [0] * 100
        for index in range(20_000):
            counts[int(uniform(9, index) * 10) * 10 + int(neighbour(index) * 10)] += 1
        assert sum((count - 200) ** 2 / 200 for count in counts) < 181
