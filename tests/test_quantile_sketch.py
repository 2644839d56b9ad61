"""Claims about quantiles in bounded memory: exact when few, within the stated bound when many, in any order."""

import time

import numpy as np
import pytest

from instructvla.training.data.quantile_sketch import QuantileSketch, ordered_keys, values_of

FRACTIONS = np.array([0, 0.001, 0.01, 0.3, 0.5, 0.99, 0.9999, 1])


def sketch_of(values, max_bins=1 << 12, chunk=5000):
    sketch = QuantileSketch(max_bins)
    for start in range(0, len(values), chunk):
        sketch.add(values[start : start + chunk])
    return sketch


def draws(kind, count=60_000, seed=0):
    random = np.random.default_rng(seed)
    values = {
        "normal": lambda: random.normal(size=count),
        "cauchy": lambda: random.standard_cauchy(count),
        "far from 0": lambda: random.normal(1e4, 1, count),
        "negative": lambda: -random.exponential(1e-3, count),
        "every magnitude": lambda: 10.0 ** random.uniform(-37, 37, count) * random.choice([-1, 1], count),
        "mostly 0": lambda: random.normal(size=count) * (random.random(count) < 0.1),
    }[kind]()
    return values.astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 100, 4096])
def test_few_values_give_the_quantiles_of_numpy(count):
    values = draws("normal", count)
    sketch = sketch_of(values)
    assert sketch.relative_error == 0 and sketch.count == count
    np.testing.assert_allclose(sketch.quantiles(FRACTIONS), np.quantile(values.astype(float), FRACTIONS), rtol=1e-12)


@pytest.mark.parametrize("kind", ["normal", "cauchy", "far from 0", "negative", "every magnitude", "mostly 0"])
def test_ranked_values_are_within_the_stated_error(kind):
    values = draws(kind)
    sketch, ranks = sketch_of(values, max_bins=1 << 10), np.arange(0, len(values), 97)
    exact, fractions = np.sort(values.astype(np.float64))[ranks], ranks / (len(values) - 1)
    found = sketch.quantiles(fractions)
    # interpolation between ranks rounds; the neighbours' bins bound it as well
    assert 0 < sketch.relative_error <= 2**-2
    assert (np.abs(found - exact) <= sketch.relative_error * np.abs(exact) * (1 + 1e-5) + 1e-38).all()


def test_the_worst_case_of_the_default_size_is_a_fifth_of_a_percent():
    keys = np.arange(0, 1 << 32, 1 << 12, dtype=np.uint64).astype(np.uint32)  # spread over all of float32
    values = values_of(keys)
    sketch = QuantileSketch()
    sketch.add(values[np.isfinite(values)])
    assert 0 < sketch.relative_error <= 2**-9


def test_gripper_values_stay_exact_beside_any_number_of_others():
    values = np.repeat(np.float32([0, 1]), 50_000)
    assert sketch_of(values).quantiles([0.01, 0.99]).tolist() == [0, 1]


def test_order_and_sharding_change_nothing():
    values = draws("normal")
    whole, merged = sketch_of(values), sketch_of(values[:100])
    for shard in (values[40_000:], values[100:40_000][::-1]):
        merged.merge(sketch_of(shard, chunk=777))
    assert whole.level > 0 and merged.level == whole.level
    np.testing.assert_array_equal(merged.bins, whole.bins)
    np.testing.assert_array_equal(merged.counts, whole.counts)


def test_a_coarse_sketch_merges_with_a_fine_one_either_way():
    values = draws("normal")
    results = []
    for first, second in ((values[:200], values[200:]), (values[200:], values[:200])):
        sketch = sketch_of(first)
        sketch.merge(sketch_of(second))
        results.append(sketch.quantiles(FRACTIONS))
    np.testing.assert_array_equal(*results)


def test_memory_is_bounded():
    sketch = sketch_of(draws("every magnitude", 200_000), max_bins=1 << 10)
    assert len(sketch.bins) == len(sketch.counts) <= 1 << 10
    assert sketch.count == 200_000


def test_keys_are_in_the_order_of_the_values_and_lead_back_to_them():
    values = np.sort(np.concatenate([draws("every magnitude", 5000), np.float32([0, 1e-45, -1e-45, 3.4e38])]))
    keys = ordered_keys(values)
    assert (np.diff(keys.astype(np.int64)) >= 0).all()
    np.testing.assert_array_equal(values_of(keys), values)
    assert ordered_keys(np.float32([-0.0])) == ordered_keys(np.float32([0.0]))


def test_a_million_values_take_less_than_a_second_of_processor_time():
    values = draws("normal", 1_000_000)
    start = time.process_time()
    sketch_of(values, max_bins=1 << 17, chunk=1 << 16)
    assert time.process_time() - start < 1


def test_what_is_no_number_is_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"finite values, got {bad}"):
            QuantileSketch().add(np.float32([0, bad]))


def test_what_has_no_quantile_is_refused():
    with pytest.raises(ValueError, match="of 0 values"):
        QuantileSketch().quantiles([0.5])
    with pytest.raises(ValueError, match="no quantiles"):
        sketch_of(draws("normal", 10)).quantiles([1.5])
    with pytest.raises(ValueError, match="can't be merged"):
        QuantileSketch(1024).merge(QuantileSketch(2048))
    with pytest.raises(ValueError, match="max_bins is 100"):
        QuantileSketch(100)
