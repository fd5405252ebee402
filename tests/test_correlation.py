"""Lines and correlations agree with arithmetic by hand, with scipy, and with what resampling promises."""

import math

import numpy as np
import pytest
from scipy import stats

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.correlation import Regression, line_band, regress, within_groups


pytestmark = pytest.mark.filterwarnings("error")

X, Y = [0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 4.0]


def clustered(clusters: int, points: int, seed: int, slope: float = 0.0):
    """Scores with a part that all points of a cluster share, in x and in y."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(clusters, 1)) + 0.5 * rng.normal(size=(clusters, points))
    y = rng.normal(size=(clusters, 1)) + 0.5 * rng.normal(size=(clusters, points)) + slope * x
    return x.ravel(), y.ravel(), np.repeat(np.arange(clusters), points)


def figures(result: Regression) -> list[float]:
    intervals = [result.slope, result.pearson, result.spearman]
    flat = [value for interval in intervals for value in (interval.mean, interval.low, interval.high)]
    return [*flat, result.intercept, result.pearson_p, result.spearman_p]


def test_four_points_by_hand():
    """Sxx = Syy = 5 and Sxy = 4: slope and r are 0.8, the residual variance is (5 - 16/5) / 2 = 0.9."""
    result = regress(X, Y)
    assert (result.n, result.left_out, result.clusters) == (4, 0, None)
    half = 4.302653 * math.sqrt(0.9 / 5)
    assert [result.slope.mean, result.slope.low, result.slope.high] == pytest.approx([0.8, 0.8 - half, 0.8 + half])
    assert result.intercept == pytest.approx(2.5 - 0.8 * 1.5)
    z = math.atanh(0.8)
    fisher = [0.8, math.tanh(z - 1.959964), math.tanh(z + 1.959964)]
    assert [result.pearson.mean, result.pearson.low, result.pearson.high] == pytest.approx(fisher)
    assert result.pearson_p == pytest.approx(2 * stats.t.sf(0.8 / math.sqrt(0.36 / 2), 2))
    assert result.spearman.mean == pytest.approx(0.8)


@pytest.mark.parametrize("slope", [2.0, -0.5])
@pytest.mark.parametrize("labels", [None, [f"prompt {i % 10}" for i in range(30)]])
def test_points_on_a_line_leave_no_doubt(slope, labels):
    x = np.random.default_rng(0).normal(size=30)
    result = regress(x, 1 + slope * x, labels)
    sign = math.copysign(1, slope)
    assert figures(result)[:10] == pytest.approx([slope] * 3 + [sign] * 6 + [1])
    expected = 0 if labels is None else 2 / 2001
    assert result.pearson_p == pytest.approx(expected, abs=1e-12)
    assert result.spearman_p == pytest.approx(expected, abs=1e-12)


def test_a_curve_has_full_rank_correlation_only():
    x = np.linspace(0, 5, 20)
    result = regress(x, np.exp(x))
    assert result.spearman.mean == pytest.approx(1) and result.spearman.low == pytest.approx(1)
    assert result.pearson.high < 0.95


def test_resamples_are_those_of_whole_clusters_with_mean_ranks_for_ties():
    """The same draws, one sample at a time, with scipy."""
    x, y, labels = clustered(7, 4, seed=3, slope=0.5)
    x, y = x.round(0), y.round(1)
    members = [np.flatnonzero(labels == label) for label in range(7)]
    samples = []
    for drawn in np.random.default_rng(5).integers(7, size=(60, 7)):
        rows = np.concatenate([members[label] for label in drawn])
        line = stats.linregress(x[rows], y[rows])
        samples.append((line.slope, line.rvalue, stats.spearmanr(x[rows], y[rows]).statistic))
    low, high = np.percentile(samples, (2.5, 97.5), axis=0)
    below, above = (np.array(samples) <= 0).sum(axis=0), (np.array(samples) >= 0).sum(axis=0)
    p = np.minimum(1, 2 * (np.minimum(below, above) + 1) / 61)
    result = regress(x, y, labels, seed=5, resamples=60)
    assert [i.low for i in (result.slope, result.pearson, result.spearman)] == pytest.approx(low)
    assert [i.high for i in (result.slope, result.pearson, result.spearman)] == pytest.approx(high)
    assert [result.pearson_p, result.spearman_p] == pytest.approx(p[1:])
    assert 0.03 < p[2] < 1 and p[1] == p[0]


def test_point_estimates_are_those_of_scipy_with_ties():
    x, y, labels = clustered(12, 5, seed=1)
    x, y = x.round(0), y.round(0)
    line, rho = stats.linregress(x, y), stats.spearmanr(x, y)
    for result in (regress(x, y), regress(x, y, labels)):
        assert result.slope.mean == pytest.approx(line.slope) and result.intercept == pytest.approx(line.intercept)
        assert result.pearson.mean == pytest.approx(line.rvalue)
        assert result.spearman.mean == pytest.approx(rho.statistic)
    assert regress(x, y).pearson_p == pytest.approx(line.pvalue)
    assert regress(x, y).spearman_p == pytest.approx(rho.pvalue)


@pytest.mark.slow
def test_clustered_intervals_cover_where_independent_ones_do_not():
    runs = 250
    covered, rejected = np.zeros((2, 3)), np.zeros((2, 2))
    for run in range(runs):
        x, y, labels = clustered(25, 6, seed=run)
        for row, result in enumerate((regress(x, y, resamples=300), regress(x, y, labels, run, resamples=300))):
            intervals = (result.slope, result.pearson, result.spearman)
            covered[row] += [interval.low <= 0 <= interval.high for interval in intervals]
            rejected[row] += [result.pearson_p < 0.05, result.spearman_p < 0.05]
    naive, honest = covered / runs
    assert (naive < 0.8).all() and (honest > 0.9).all() and (honest < 0.99).all()
    assert (rejected[0] / runs > 0.2).all() and (rejected[1] / runs < 0.1).all()


@pytest.mark.slow
def test_rank_interval_of_independent_points_covers():
    """With correlation 0.6 of a normal pair, rho is 6 / pi asin(0.3)."""
    truth, covered, runs = 6 / math.pi * math.asin(0.3), 0, 200
    for run in range(runs):
        x, noise = np.random.default_rng(run).normal(size=(2, 80))
        interval = regress(x, 0.6 * x + 0.8 * noise, seed=run, resamples=300).spearman
        covered += interval.low <= truth <= interval.high
    assert 0.88 < covered / runs < 0.99


def test_a_point_said_twice_in_its_cluster_adds_nothing():
    x, y, _ = clustered(15, 1, seed=2, slope=0.3)
    labels = np.arange(15)
    once = regress(x, y, labels)
    twice = regress(np.tile(x, 2), np.tile(y, 2), np.tile(labels, 2))
    assert figures(twice) == pytest.approx(figures(once)) and (once.n, twice.n) == (15, 30)


@pytest.mark.parametrize("with_clusters", [False, True])
def test_the_order_of_points_does_not_matter(with_clusters):
    x, y, labels = clustered(10, 4, seed=4, slope=0.4)
    y[:5] = y[5:10]
    order = np.random.default_rng(0).permutation(len(x))
    results = [
        regress(x[rows], y[rows], labels[rows].tolist() if with_clusters else None) for rows in (slice(None), order)
    ]
    assert results[0] == results[1]
    assert regress(x, y, labels, seed=1) != regress(x, y, labels, seed=0)


def test_units_of_the_scores_do_not_matter():
    x, y, labels = clustered(10, 4, seed=6, slope=0.4)
    plain, scaled = regress(x, y, labels), regress(1e-5 * x + 3, 1e4 * y - 7, labels)
    assert figures(scaled)[3:9] == pytest.approx(figures(plain)[3:9], rel=1e-6)
    assert np.array(figures(scaled)[:3]) / 1e9 == pytest.approx(np.array(figures(plain)[:3]), rel=1e-6)
    turned = regress(x, -y, labels)
    assert (turned.pearson.low, turned.pearson.high) == pytest.approx((-plain.pearson.high, -plain.pearson.low))


def test_large_input_is_resampled_in_blocks(monkeypatch):
    x, y, labels = clustered(10, 4, seed=8)
    whole = regress(x, y, labels, resamples=103)
    monkeypatch.setattr("diffusers_tpo.evaluation.correlation.BLOCK", 400)
    assert regress(x, y, labels, resamples=103) == whole


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pairs_that_are_not_finite_are_left_out_and_counted(bad):
    x, y, labels = clustered(8, 3, seed=7)
    more = [np.append(x, [bad, 0.0, bad]), np.append(y, [0.0, bad, bad]), [*labels, 0, 99, 98]]
    result = regress(*more)
    assert (result.n, result.left_out, result.clusters) == (24, 3, 8)
    assert figures(result) == figures(regress(x, y, labels))


DEGENERATE = {
    "nothing": ([], []),
    "one": ([1.0], [1.0]),
    "two": ([1.0, 2.0], [1.0, 3.0]),
    "two of four finite": ([1.0, 2.0, math.nan, 4.0], [1.0, 3.0, 2.0, math.inf]),
    "constant x": ([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "constant y": ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 6),
}


@pytest.mark.parametrize("with_clusters", [False, True])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_input_gives_no_figures(case, with_clusters):
    x, y = DEGENERATE[case]
    result = regress(x, y, list(range(len(x))) if with_clusters else None)
    for interval in (result.slope, result.pearson, result.spearman):
        assert math.isnan(interval.mean) and (interval.low, interval.high) == (-math.inf, math.inf)
    assert all(map(math.isnan, (result.intercept, result.pearson_p, result.spearman_p)))
    assert np.isnan(line_band(x, y, [0.0, 1.0])).all()
    assert "nan" in str(result)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_few_clusters_give_no_interval(number):
    x, y, _ = clustered(20, 1, seed=9, slope=1)
    result = regress(x, y, np.arange(20) % number)
    assert result.clusters == number and result.slope.mean == pytest.approx(stats.linregress(x, y).slope)
    assert [(i.low, i.high) for i in (result.slope, result.pearson, result.spearman)] == [(-math.inf, math.inf)] * 3
    assert math.isnan(result.pearson_p) and math.isnan(result.spearman_p)


def test_resamples_without_variation_are_left_out():
    """Only one point of six differs in x: a resample without it has no line."""
    result = regress([0.0] * 5 + [1.0], [0.0, 1.0, 0.5, 0.2, 0.9, 3.0], range(6))
    assert all(math.isfinite(value) for value in figures(result)) and result.slope.low > 0


def test_differences_within_groups_are_told_from_those_between():
    """Over groups y rises with x; within each it falls by 2 for 1."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d", "e"], 8)
    level = np.repeat(np.arange(5.0), 8)
    x = rng.normal(size=40) * 0.2 + level
    y = 5 * level - 2 * (x - level)
    inner_x, inner_y = within_groups(x, y, groups)
    assert regress(x, y).slope.low > 0
    assert regress(inner_x, inner_y).slope.mean == pytest.approx(-2)
    for group in "abcde":
        assert inner_x[groups == group].mean() == pytest.approx(0, abs=1e-12)
    assert np.diff(inner_x[:8]) == pytest.approx(np.diff(x[:8]))


def test_groups_keep_their_places_and_only_pairs_count():
    x, y = [1.0, 3.0, math.nan, 100.0, 5.0, 7.0], [0.0, 4.0, 9.0, math.inf, 1.0, 2.0]
    inner = within_groups(x, y, ["a", "a", "a", "a", "b", "c"])
    expected = [[-1, 1, math.nan, math.nan, math.nan, math.nan], [-2, 2, math.nan, math.nan, math.nan, math.nan]]
    np.testing.assert_array_equal(inner, expected)


def test_rounding_is_no_variation():
    x, y = within_groups([0.1] * 3 + [0.7] * 3, [1.0, 2.0, 3.0, 4.0, 6.0, 5.0], [0, 0, 0, 1, 1, 1])
    assert (x == 0).all() and math.isnan(regress(x, y).pearson.mean)
    assert [len(values) for values in within_groups([], [], [])] == [0, 0]


def test_band_by_hand():
    """At the mean of x the line's variance is 0.9 / 4, at x = 3.5 it is 0.9 (1/4 + 4/5)."""
    line, low, high = line_band([*X, math.nan], [*Y, 0.0], [1.5, 3.5])
    half = 4.302653 * np.sqrt([0.9 / 4, 0.9 * (1 / 4 + 4 / 5)])
    assert line == pytest.approx([2.5, 4.1])
    assert low == pytest.approx(line - half, abs=1e-6) and high == pytest.approx(line + half, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, 2.0], [1.0]), "x and y"),
        (([[1.0, 2.0]], [[1.0, 2.0]]), "x and y"),
        ((X, Y, ["a"]), "clusters has the length 1 for 4 points"),
    ],
)
def test_wrong_lengths_are_named(arguments, words):
    with pytest.raises(UserError, match=words):
        regress(*arguments)


def test_wrong_groups_are_named():
    with pytest.raises(UserError, match="groups has the length 0 for 4 points"):
        within_groups(X, Y, [])


def test_a_result_reads_as_a_line():
    x, y, labels = clustered(10, 4, seed=0, slope=2)
    assert str(regress(x, y, labels)).endswith("n = 40 in 10 clusters") and "p < 0.001; rho = " in str(regress(x, y))
    assert "p = 0.2; rho" in str(regress(X, Y)) and str(regress(X, Y)).startswith("r = 0.8")
