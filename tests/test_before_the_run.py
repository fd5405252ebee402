"""What is known before a run: what it would take, and which captions nearly repeat others."""

import random

import pytest
from build_worker import WordEditor, captions, source_of
from chat_server import MODEL, ChatServer, good, refused

from diffusers_tpo.errors import UserError
from diffusers_tpo.negatives.build import Stages
from diffusers_tpo.negatives.chat import ChatEditor
from diffusers_tpo.negatives.dataset import Source
from diffusers_tpo.negatives.estimate import Estimate, duration, estimate
from diffusers_tpo.negatives.near import near_duplicates, shingles, similarity
from diffusers_tpo.negatives.tally import Prices, Tally
from diffusers_tpo.negatives.work import Plan


WORDS = [f"w{number}" for number in range(300)]


def test_a_few_captions_say_what_all_would_take():
    """Every caption of these takes one request of 11 and 7 tokens; the price is 2 and 3 dollars a million."""
    with ChatServer(good) as server:
        stages = Stages(ChatEditor(MODEL, (server.url,), concurrency=4), Plan())
        found = estimate(source_of(captions(1000)), stages, 10, 4, Prices((2.0, 3.0)))
        assert len(server.asked) == 10
    assert found.tally.requests == 10 and found.tried == 10 and found.factor == 100
    first, second = found.lines()
    assert first.startswith("10 of 10 captions got mismatched prompts in ")
    assert "all 1,000 captions: about " in second and "1,000 requests, 18,000 tokens" in second
    assert second.endswith(f"${1000 * (2 * 11 + 3 * 7) / 1e6:.2f}")


def test_the_time_of_all_captions_counts_how_many_are_asked_at_once():
    """10 captions in 8 seconds: one after the other 1,000 take 800 seconds. 100 at once are asked in 10 rounds of 8 seconds."""

    def of(at_once: int, tried: int = 10) -> float:
        return Estimate(1000, tried, Tally(), 8.0, at_once, Prices()).all_seconds

    assert of(1) == of(10) == 800 and of(100) == 80 and of(10_000) == 8 and of(4, tried=1000) == 8


def test_without_a_model_there_are_no_requests_or_costs():
    lines = Estimate(100, 10, Tally(10, 7, 3), 1.0, 1, Prices((1.0, 1.0))).lines()
    assert lines == [
        "7 of 10 captions got mismatched prompts in 1.0 seconds (70%)",
        "all 100 captions: about 10.0 seconds",
    ]


def test_unknown_prices_and_tokens_are_said():
    tally = Tally(10, 10, 0, requests=10, prompt_tokens=5)
    assert Estimate(100, 10, tally, 1.0, 1, Prices()).lines()[-1].startswith("give --price_per_million_tokens")
    tally = Tally(10, 10, 0, requests=10)
    assert "does not count tokens" in Estimate(100, 10, tally, 1.0, 1, Prices((1.0, 1.0))).lines()[-1]


def test_a_model_without_an_answer_is_one_sentence():
    with ChatServer(lambda asked: refused(422, "no such format")) as server:
        stages = Stages(ChatEditor(MODEL, (server.url,), max_retries=0), Plan())
        with pytest.raises(UserError, match="--dry_run: row 0 got no answer: .*422"):
            estimate(source_of(captions(20)), stages, 3, 4, Prices())


def test_a_dry_run_takes_no_more_captions_than_there_are():
    found = estimate(source_of(captions(3)), Stages(WordEditor(), Plan()), 50, 1, Prices())
    assert found.tried == 3 and found.factor == 1


@pytest.mark.parametrize(
    "seconds, words", [(3, "3.0 seconds"), (200, "3.3 minutes"), (9000, "2.5 hours"), (400_000, "4.6 days")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


# ---- near duplicates


def test_similarity_is_counted_in_groups_of_three_words():
    """ "a b c d" and "a b c e" have the groups abc, bcd and abc, bce: one of three in common."""
    assert similarity(shingles("a b c d"), shingles("A b, c e")) == pytest.approx(1 / 3)
    assert shingles("a cat") == {"a cat"} and shingles("...") == {"..."}


def test_captions_that_nearly_repeat_an_earlier_one_are_found_and_no_others():
    """Of each text of 31 words, which are 29 groups, there is one with another last word: 28 / 30 is 0.93."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=31)) for _ in range(100)]
    changed = [text.rsplit(" ", 1)[0] + " other" for text in texts]
    assert near_duplicates(texts, 0.8) == []
    assert near_duplicates([*texts, *changed], 0.8) == list(range(100, 200))
    assert near_duplicates([*texts, *changed], 0.95) == []
    assert near_duplicates(["a dog", "A dog.", "a cat", ""], 0.8) == [1]


def test_the_others_keep_their_names():
    source = source_of(["a", "b", "c", "d"]).without([1, 2])
    assert source.captions(0, 2) == ["a", "d"] and source.keys(range(2)) == ["0", "3"]
    named = Source(source_of(["a", "b"]).rows.add_column("id", ["x", "y"]), "text", key_column="id").without([0])
    assert named.keys([0]) == ["y"]
