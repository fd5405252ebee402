"""What a model gives that is no number: noted, never scored, never the best, said in one sentence."""

import numpy as np
import pytest
import tiny
import torch
from test_suite import Brightness, as_trained, make_suite

from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.evaluation.heldout import held_out_pairs
from diffusers_tpo.evaluation.renders import image_path, marker_path, sample_jobs
from diffusers_tpo.evaluation.summary import build_report
from diffusers_tpo.training.watch import CheckpointWatch


@pytest.fixture(scope="module")
def pairs():
    return held_out_pairs(tiny.make_dataset(4), Columns(), tiny.RESOLUTION, None)


@pytest.fixture(scope="module")
def broken():
    """A pipeline that gives nan for a prompt that ends with a word 1, and numbers for the others."""
    pipe = tiny.make_pipe()
    one = pipe.tokenizer("cat 1").input_ids[-2]

    def poison(encoder, args, kwargs, output):
        tokens = args[0] if args else kwargs["input_ids"]
        output.last_hidden_state[(tokens == one).any(dim=1)] = torch.nan
        return output

    pipe.text_encoder.register_forward_hook(poison, with_kwargs=True)
    return pipe


def test_an_image_with_a_pixel_that_is_no_number_is_none(broken):
    options = {"guidance_scale": 1.0, "num_inference_steps": 1}
    images = sample_jobs(broken, [("cat 0", 0), ("cat 1", 0)], 0, **options)
    assert images[0] is not None and images[1] is None
    whole = sample_jobs(tiny.make_pipe(), [("cat 0", 0), ("cat 1", 0)], 0, **options)
    assert np.array_equal(np.asarray(images[0]), np.asarray(whole[0])) and whole[1] is not None


def test_what_is_no_number_is_kept_counted_and_not_scored(tmp_path, pairs, broken):
    suite = make_suite(tmp_path, pairs, guidance_scales=(1.0,), images_per_prompt=1, retrieval_size=0)
    suite.ask("base", as_trained(tiny.make_pipe()), progress=False)
    suite.ask("broken", as_trained(broken), progress=False)
    folder = suite.images("broken", 1.0)
    assert marker_path(folder, 1, 0).exists() and not image_path(folder, 1, 0).exists()
    assert suite.is_answered("broken")  # it is not rendered again
    assert suite.fault("base") is None
    scorer = Brightness()
    for _ in range(2):
        suite.score(["base", "broken"], "mine", scorer, progress=False)
    assert scorer.judged == 4 + 3
    results = suite.results(["base", "broken"], {"mine": Brightness.kinds})
    assert np.isnan(results.scores["bright"][1, 0]).tolist() == [False, True, False, False]
    # of the row "cat 1" all three prompts hold a 1 ("dog 1", "1 red cats"), at 2 strata
    assert results.faults == {"broken": "1 of 4 images and 6 of 24 denoising errors of it are not finite numbers"}
    assert np.isnan(results.preference["broken"]["error/matched"]).tolist() == [False, True, False, False]
    report = build_report(suite, results, "title", {}, None)
    assert report.warnings[0].startswith("broken: 1 of 4 images and 6 of 24 denoising errors")


def test_a_checkpoint_with_something_that_is_no_number_does_not_end_the_training_and_is_not_chosen(
    tmp_path, pairs, broken
):
    suite = make_suite(tmp_path, pairs, guidance_scales=(1.0,), images_per_prompt=1, retrieval_size=0)
    watch = CheckpointWatch(suite, {"mine": Brightness()}, metric="error/matched", dataset="user/rows", split="test")
    watch.begin(as_trained(tiny.make_pipe()), step=0, identity={})
    watch.judge("checkpoint-1", as_trained(tiny.make_pipe(seed=3)))
    means = watch.judge("checkpoint-2", as_trained(broken))
    assert np.isfinite(list(means.values())).all()
    choice = watch.choose()
    assert choice.best == "checkpoint-1" and "not finite numbers" in choice.refused["checkpoint-2"]
    card = watch.conclude(load_best=False)[2].text()
    assert (
        "1 of 4 images and 6 of 24 denoising errors of it are not finite numbers; the figures speak of the rest"
        in card
    )


def test_a_base_with_something_that_is_no_number_is_refused_before_the_training(tmp_path, pairs, broken):
    watch = CheckpointWatch(make_suite(tmp_path, pairs, guidance_scales=(1.0,), retrieval_size=0))
    with pytest.raises(UserError, match="--pretrained_model_name_or_path cannot be judged: 2 of 8 images and 6 of 24"):
        watch.begin(as_trained(broken), step=0, identity={})
