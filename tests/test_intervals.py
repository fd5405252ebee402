"""Intervals against arithmetic and against simulation."""

import numpy as np
import pytest

from diffusers_tpo.intervals import (
    Interval,
    SeedSpread,
    bootstrap_interval,
    crossed_interval,
    in_one_column,
    mean_interval,
    paired_difference,
    seed_spread,
    share_interval,
)


def test_the_interval_by_hand():
    """Mean 3, standard error sqrt(2.5 / 5) = 0.7071, t(0.975, 4) = 2.7764."""
    interval = mean_interval([1, 2, 3, 4, 5])
    assert (interval.mean, interval.low, interval.high) == pytest.approx((3, 3 - 1.9632, 3 + 1.9632), abs=1e-4)
    assert interval.excludes_zero() and not mean_interval([-1, 2]).excludes_zero()
    assert mean_interval([-3, -3.1, -2.9]).excludes_zero()
    assert str(interval) == "3.0 [1.0, 5.0]"


def test_seeds_of_one_prompt_are_averaged_first():
    """Three copies of the same prompts are no new evidence."""
    values = [0.0, 1.0, 0.5, 0.2]
    assert mean_interval([values] * 3) == mean_interval(values)
    assert mean_interval([[0.0, 2.0], [2.0, 4.0]]) == mean_interval([1.0, 3.0])


@pytest.mark.parametrize("draw", [lambda rng: rng.normal(3, 2, 12), lambda rng: rng.random(200) < 0.4])
def test_the_interval_holds_the_truth_95_times_in_100(draw):
    rng = np.random.default_rng(0)
    truth = 3 if draw(np.random.default_rng(1)).dtype == float else 0.4
    intervals = [mean_interval(draw(rng)) for _ in range(1000)]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.97


def test_the_paired_difference_holds_the_truth_and_is_narrower_than_the_unpaired():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        difficulty = rng.normal(0, 5, 40)
        ours, theirs = difficulty + 0.5 + rng.normal(0, 0.5, 40), difficulty + rng.normal(0, 0.5, 40)
        interval = paired_difference(ours, theirs)
        covered.append(interval.low <= 0.5 <= interval.high)
    assert 0.93 <= np.mean(covered) <= 0.97
    single = mean_interval(ours)
    assert interval.high - interval.low < 0.5 * (single.high - single.low)
    assert interval.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


def test_one_value_has_an_infinite_interval():
    for values in ([0.5], [[0.5], [0.5]]):
        interval = mean_interval(values)
        assert (interval.mean, interval.low, interval.high) == (0.5, -np.inf, np.inf)
        assert not interval.excludes_zero()
    assert not paired_difference([1.0], [0.0]).excludes_zero()


def differences_of_shares(rng: np.random.Generator, seeds: int, prompts: int, between_seeds: float) -> np.ndarray:
    """Better, equal or worse, `(S, N)`: what a model gains over another, each right or wrong, with a true mean of zero."""
    gain = 0.2 * rng.normal(size=prompts) + between_seeds * rng.normal(size=(seeds, 1))
    differ = 0.3
    drawn = rng.random((seeds, prompts))
    return np.where(drawn < (differ + gain) / 2, 1.0, np.where(drawn < differ, -1.0, 0.0))


@pytest.mark.parametrize("between_seeds", [0.0, 0.02, 0.08])
def test_the_crossed_interval_holds_the_truth_for_other_prompts_and_other_seeds(between_seeds):
    """Four models of two seeds, as in a study: the interval of one of them, with the spread that all four have."""
    rng = np.random.default_rng(0)
    crossed, over_prompts = [], []
    for _ in range(250):
        models = [differences_of_shares(rng, 2, 100, between_seeds) for _ in range(4)]
        found = crossed_interval(models[0], seed_spread(models))
        crossed.append(found.low <= 0 <= found.high)
        alone = mean_interval(models[0])
        over_prompts.append(alone.low <= 0 <= alone.high)
    assert 0.91 <= np.mean(crossed) <= 0.985
    if between_seeds == 0.08:
        assert np.mean(over_prompts) < 0.88  # what intervals over prompts alone would claim


def test_the_spread_between_seeds_by_hand():
    """Seeds' means 1 and 2 have the variance 1/2; the cells leave 2 * 0.5 ** 2 * 2 / 1 = 1, so 1/2 of the mean of two prompts."""
    assert seed_spread([[[1.5, 0.5], [1.5, 2.5]]]) == SeedSpread(0.0, 1)
    assert seed_spread([[[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]]) == SeedSpread(0.5, 1)


def test_the_spread_is_without_bias_and_shared():
    rng = np.random.default_rng(0)
    models = [rng.normal(size=(2, 50)) + 0.3 * rng.normal(size=(2, 1)) + rng.normal(size=50) for _ in range(2000)]
    found = seed_spread(models)
    assert found.degrees == 2000 and found.variance == pytest.approx(0.09, rel=0.1)
    doubled = seed_spread([np.stack([model, model]) for model in models])
    assert doubled.degrees == 2000 and doubled.variance == pytest.approx(found.variance)


def test_one_seed_says_nothing_of_the_spread_and_others_may():
    one = np.array([[0.0, 1.0, 1.0, 0.0]])
    assert seed_spread([one]) == seed_spread([]) == SeedSpread()
    assert crossed_interval(one, SeedSpread()) == mean_interval(one)
    wide = crossed_interval(one, SeedSpread(0.25, 4))
    assert wide.high - wide.mean == pytest.approx(np.hypot(mean_interval(one).high - 0.5, 2.7764 * 0.5), rel=1e-4)


def test_the_bootstrap_holds_the_truth_of_skewed_differences_95_times_in_100():
    rng = np.random.default_rng(0)
    found = [bootstrap_interval(rng.exponential(2, 60) - 1, resamples=400) for _ in range(400)]
    assert 0.91 <= np.mean([i.low <= 1 <= i.high for i in found]) <= 0.98
    assert all(i.low < i.mean < i.high for i in found)


def test_the_bootstrap_is_seeded_and_leaves_nan_out():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values) == bootstrap_interval([*values, np.nan])
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_the_bootstrap_of_nothing_of_one_value_and_of_a_constant():
    assert np.isnan(bootstrap_interval([np.nan]).mean)
    assert bootstrap_interval([2.0]) == Interval(2.0, -np.inf, np.inf)
    assert bootstrap_interval([0.5] * 10) == Interval(0.5, 0.5, 0.5)


def test_the_share_interval_by_hand_and_at_the_bounds():
    """Wilson for 8 of 10: centre (0.8 + 3.8415 / 20) / 1.38415 = 0.7167."""
    found = share_interval([1] * 8 + [0] * 2)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    full = share_interval([1.0] * 10 + [np.nan])
    assert full.mean == 1 and full.high == pytest.approx(1) and full.low == pytest.approx(0.7225, abs=1e-4)
    assert np.isnan(share_interval([]).mean)


def test_the_share_interval_holds_the_truth():
    rng = np.random.default_rng(0)
    found = [share_interval(rng.random(50) < 0.9) for _ in range(2000)]
    assert 0.93 <= np.mean([i.low <= 0.9 <= i.high for i in found]) <= 0.98


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.12345, 0.1, 0.14), "0.123 [0.100, 0.140]"),
        (Interval(123.456, 100, 140), "123 [100, 140]"),
        (Interval(0.5, 0.5, 0.5), "0.500 [0.500, 0.500]"),
        (Interval(2.0, -np.inf, np.inf), "2"),
        (Interval(np.nan, -np.inf, np.inf), "-"),
        (Interval(1.2346e-7, 1e-7, 1.4e-7), "1.235e-07 [1e-07, 1.4e-07]"),
    ],
)
def test_an_interval_is_written_with_two_digits_of_its_width(interval, text):
    assert str(interval) == text


def test_intervals_of_one_column_have_as_many_decimals():
    column = [Interval(1.0, 0.5, 1.5), Interval(0.25, 0.24, 0.26), Interval(2.0, -np.inf, np.inf), Interval(1, 1, 1)]
    assert in_one_column(column) == ["1.000 [0.500, 1.500]", "0.250 [0.240, 0.260]", "2.000", "1.000 [1.000, 1.000]"]
    assert in_one_column([Interval(np.nan, -np.inf, np.inf), Interval(2.0, -np.inf, np.inf)]) == ["-", "2"]
    assert in_one_column([]) == []


def test_an_interval_is_cut_at_its_bounds():
    assert Interval(0.98, 0.9, 1.06).inside(0, 1) == Interval(0.98, 0.9, 1)
    assert Interval(1.02, 0.95, 1.1).inside(0, 1) == Interval(1, 0.95, 1)
    assert np.isnan(Interval(np.nan, -np.inf, np.inf).inside(0, 1).mean)
