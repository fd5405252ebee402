"""What a stranger's input does, tried kind by kind: no fault, and no fewer trials than SECURITY.md tells."""

import pytest
import trials

from diffusers_tpo.tables import read_tables


TOLD = {row[0]: row[1:] for row in read_tables(trials.KEPT)["kinds"].rows}


def test_the_outcomes_are_told_apart():
    def refuse(sentence):
        raise trials.UserError(sentence)

    assert trials.outcome(lambda: True, bool) == "right"
    assert trials.outcome(lambda: refuse("--rank must be 1"), trials.names_a_flag) == "clear error"
    for trial in (lambda: False, lambda: refuse("rank must be 1"), lambda: refuse(""), lambda: 1 / 0):
        assert trials.outcome(trial, trials.names_a_flag).startswith("fault")


def test_the_table_tells_every_kind():
    assert set(TOLD) == set(trials.KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", trials.KINDS)
def test_no_trial_is_a_fault(kind):
    found = trials.run(kind)
    assert not sorted({one for one in found if one.startswith("fault")})
    tried, _, _, faults = map(int, TOLD[kind])
    assert len(found) >= tried and faults == 0, "run python tests/trials.py and python docs/tables.py"
