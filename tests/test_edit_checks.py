"""What the checks of edits accept and refuse, over a file of good and bad edits of every kind."""

import json
from collections import Counter
from pathlib import Path

import pytest

from diffusers_tpo.negatives.checks import check_edit, count_edits
from diffusers_tpo.negatives.language.agreement import disagreements
from diffusers_tpo.negatives.language.principle import possible_principles
from diffusers_tpo.negatives.work import CaptionWork, Plan


EDITS = [json.loads(line) for line in (Path(__file__).parent / "data" / "edits.jsonl").read_text("utf-8").splitlines()]


def verdict(edit: dict) -> str | None:
    return check_edit(edit["caption"], edit["edited"], principle=edit["principle"])


@pytest.mark.parametrize("kind", sorted({edit["kind"] for edit in EDITS}))
def test_edits_of_every_kind_are_told_apart(kind):
    edits = [edit for edit in EDITS if edit["kind"] == kind]
    wrong = [edit for edit in edits if (verdict(edit) is None) != (edit["want"] == "accept")]
    assert not wrong


def test_the_file_holds_enough_of_both():
    counts = Counter(edit["want"] for edit in EDITS)
    assert counts["reject"] >= 80 and counts["accept"] >= 56


@pytest.mark.parametrize(
    ("before", "after", "number"),
    [
        ("a man ties his shoes while he waits", "a woman ties her shoes while she waits", 1),
        ("a dog is sitting on a rug", "three dogs are sitting on a rug", 1),
        ("a red cube and a blue ball", "a blue cube and a red ball", 1),
        ("a cat beside a cat", "a dog beside a dog", 1),
        ("a man puts a tray into the oven", "a man takes a tray out of the oven", 1),
        ("a red bus and a small tree", "a blue bus and a tall tree", 2),
        ("a cup left of a plate under a shelf", "a cup right of a plate above a shelf", 2),
        ("a duck on a lake", "ducks on a lake", 1),
        ("a red cube and a green ball", "a blue cube and a red ball", 2),
    ],
)
def test_what_agrees_with_an_edit_is_none_of_its_own(before, after, number):
    assert count_edits(before, after) == number


@pytest.mark.parametrize(
    "text",
    [
        "an hour of two people",
        "a series of three photos",
        "two sheep in a row",
        "an der Wand",
        "a 2 story house",
        "eine Katze",
    ],
)
def test_agreement_is_no_matter_of_taste(text):
    assert not disagreements(text.split()) or text == "an der Wand"
    assert check_edit(f"{text} red", f"{text} blue") is None


@pytest.mark.parametrize(
    ("before", "after", "principles"),
    [
        ("a red kite above a beach", "a green kite above a beach", {"attribute"}),
        ("three boats", "five boats", {"content"}),
        ("a cat under a chair", "a cat on top of a chair", {"spatial"}),
        ("a dog in a hall", "a fox in a hall", {"content"}),
        ("a blue sky", "a gray sky", {"attribute", "contextual"}),
        ("a man in a park", "a man on the beach", None),  # a place in the words of which nothing else is said
        ("a gleeful man", "a wistful man", None),
    ],
)
def test_a_principle_is_told_where_the_lexicon_is_sure(before, after, principles):
    found = possible_principles(before, after)
    assert found is None if principles is None else found is not None and found <= principles


def test_a_row_does_not_take_an_edit_of_another_principle():
    work = CaptionWork(0, "a red cat on a mat", Plan(principles=("attribute",), max_attempts=1))
    work.receive('{"edits": [{"caption": "a red dog on a mat"}]}')
    assert work.result().rejected == ["wrong_principle"]
