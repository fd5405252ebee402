"""Comparisons and the choice of a checkpoint, by arithmetic."""

import numpy as np
import pytest

from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.choose import choose_best
from diffusers_tpo.evaluation.compare import at_own_best, best_scale, compare, mean_over_prompts


def test_win_rate_with_ties_by_hand():
    """Gains 1, 1, 0, -1: two wins, one tie and one loss make (2 + 1/2) / 4."""
    found = compare([1, 1, 1, 0, np.nan], [0, 0, 1, 1, 1])
    assert found.win_rate.mean == 0.625 and found.ties == 0.25 and found.prompts == 4
    assert found.difference.mean == pytest.approx(0.25)


def test_a_constant_scorer_says_that_nothing_differs():
    found = compare([0.5] * 20, [0.5] * 20)
    assert (found.difference.mean, found.difference.low, found.difference.high) == (0, 0, 0)
    assert found.win_rate.mean == 0.5 and found.ties == 1


def test_one_prompt_has_no_interval_and_none_has_no_mean():
    one = compare([1.0], [0.5])
    assert one.difference.mean == 0.5 and one.difference.low == -np.inf and not one.difference.excludes_zero()
    none = compare([np.nan], [0.5])
    assert none.prompts == 0 and np.isnan(none.difference.mean) and np.isnan(none.ties)


def test_means_leave_nan_out():
    assert mean_over_prompts([[1, np.nan, 3], [np.nan] * 3]).tolist()[0] == 2
    assert np.isnan(mean_over_prompts([np.nan, np.nan]))


def test_the_best_scale_is_chosen_on_the_other_prompts():
    """Even prompts like scale 0, odd prompts like scale 1: with two folds each half is judged at the other's choice."""
    values = np.array([[1.0, 0.0, 1.0, 0.0], [0.4, 0.6, 0.4, 0.6]])
    assert at_own_best(values, folds=2).tolist() == [0.4, 0.0, 0.4, 0.0]
    clear = np.array([[0.1] * 30, [0.3] * 30])
    assert at_own_best(clear).tolist() == [0.3] * 30


def test_the_choice_of_the_scale_does_not_flatter():
    """Ten scales without any difference: the best of them looks better than it is, the cross-fitted one does not."""
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(10, 40)) for _ in range(300)]
    assert np.mean([values[best_scale(values)].mean() for values in draws]) > 0.2
    assert np.mean([at_own_best(values).mean() for values in draws]) < 0.03


def test_the_own_best_of_one_prompt_and_of_nothing():
    assert at_own_best([[1.0], [2.0]]).tolist() == [2.0]
    assert np.isnan(at_own_best([[np.nan, np.nan]])).all()


def table(score, error=1.0, quality=0.5, spread=0.01) -> dict[str, np.ndarray]:
    noise = spread * np.linspace(-1, 1, 50)
    return {"score": score + noise, "error/matched": error + noise, "clean": quality + noise}


BASE = table(0.5)


def test_the_best_by_a_metric_and_by_one_where_lower_is_better():
    values = {"a": table(0.6, error=0.9), "b": table(0.8, error=1.2), "c": table(0.7, error=0.8)}
    choice = choose_best(values, "score")
    assert choice.best == "b" and choice.against_last.mean == pytest.approx(0.1)
    assert "last checkpoint is not the best" in choice.sentence()
    lowest = choose_best(values, "error/matched")
    assert lowest.best == "c" and lowest.against_last is None and "last" not in lowest.sentence()


def test_the_rule_leaves_out_what_pays_for_alignment_elsewhere():
    values = {
        "good": table(0.6),
        "wrecked": table(0.9, error=1.3),
        "ugly": table(0.8, quality=0.4),
        "worse": table(0.4),
    }
    choice = choose_best(values, "rule", BASE, alignment="score", quality=("clean",))
    assert choice.best == "good" and set(choice.refused) == {"wrecked", "ugly", "worse"}
    assert "matched error" in choice.refused["wrecked"] and "clean" in choice.refused["ugly"]
    assert "not above" in choice.refused["worse"]
    assert choose_best(values, "rule", BASE, alignment="score").best == "ugly"


def test_the_rule_may_find_nothing():
    choice = choose_best({"a": table(0.4), "b": table(0.3)}, "rule", BASE, alignment="score")
    assert choice.best is None and "No checkpoint is admitted (a: score is not above" in choice.sentence()


def test_a_difference_within_chance_is_no_harm():
    noisy = {"a": table(0.6, error=1.001, spread=0.5)}
    rng = np.random.default_rng(0)
    noisy["a"]["error/matched"] = BASE["error/matched"] + rng.normal(0.001, 0.1, 50)
    assert choose_best(noisy, "rule", BASE, alignment="score").best == "a"


def test_an_unknown_metric_names_those_that_there_are():
    with pytest.raises(
        UserError, match="'nonsense' was not measured; measured are clean, error/matched, score, or rule"
    ):
        choose_best({"a": table(0.5)}, "nonsense")
    with pytest.raises(UserError, match="base was not measured"):
        choose_best({"a": table(0.5)}, "rule", None, alignment="score")


def test_what_is_not_a_number_is_never_the_best():
    """In every metric, also where lower is better, and by the rule in each of its three conditions."""
    nothing = np.full(50, np.nan)
    values = {"a": table(0.6), "broken": table(0.9) | {"score": nothing}, "b": table(0.7)}
    choice = choose_best(values, "score")
    assert choice.best == "b" and choice.refused == {"broken": "score is not a number"}
    assert "Left out: broken: score is not a number" in choice.sentence()
    low = {
        "broken": table(0.5) | {"error/matched": nothing},
        "endless": table(0.5) | {"error/matched": nothing + np.inf},
    }
    low["endless"]["error/matched"][:] = np.inf
    assert choose_best(low, "error/matched").best is None
    for name in ("score", "error/matched", "clean"):
        found = choose_best({"a": table(0.6) | {name: nothing}}, "rule", BASE, alignment="score", quality=("clean",))
        assert found.best is None and "not a number" in found.refused["a"], name
    only = choose_best({"a": table(0.6), "b": table(0.8)}, "score", broken={"b": "3 of 4 images are not numbers"})
    assert only.best == "a" and only.refused == {"b": "3 of 4 images are not numbers"}


def test_equal_candidates_give_the_earliest():
    assert choose_best({"a": table(0.5), "b": table(0.5)}, "score").best == "a"
