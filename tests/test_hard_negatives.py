"""Of each row's mismatched prompts those are kept that the reference confuses most, and those that may be true are set aside."""

import json

import pytest
import tiny
import torch

from diffusers_tpo.data.dataset import TextPreferenceDataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.noising import Draw
from diffusers_tpo.training.hard_negatives import gaps, keep_hardest
from diffusers_tpo.training.reference import KnownReference


EXCESS = {"far": 3.0, "near": 0.5, "true": -2.0}  # of the error of each kind of edit, above that of the prompt


def make_dataset(edits: list[list[str]], on_bad_row: str = "skip") -> TextPreferenceDataset:
    rows = tiny.make_dataset(
        len(edits),
        negative_prompts=[[f"{kind} {i}" for kind in of_row] for i, of_row in enumerate(edits)],
        principles=None,
    )
    reader = RowReader(Columns(), "tdpo", False, 0, tiny.RESOLUTION, draws=6, on_bad_row=on_bad_row)
    return TextPreferenceDataset(rows, reader)


def answer_of(batch) -> dict[str, torch.Tensor]:
    """Noise that all prompts of a draw share, a little of each prompt's own, and the excess of its kind."""
    shared = torch.stack([10 * torch.rand((), generator=draw.generator("noise")) for draw in batch.draws])
    own = torch.stack(
        [
            0.2 * torch.rand((), generator=Draw(0, prompt, draw.number).generator("own"))
            for draw, prompt in zip(batch.draws * batch.prompts_per_image, batch.prompts, strict=True)
        ]
    )
    excess = torch.tensor([EXCESS.get(prompt.split()[0], 0.0) for prompt in batch.prompts])
    error = shared.repeat(batch.prompts_per_image) + own + excess
    return {"error": error, "prediction": error[:, None]}


def known_of(dataset, folder) -> KnownReference:
    known = KnownReference(folder, dataset)
    known.fill_all(answer_of, 8)
    return known


def test_gaps_by_hand():
    """Differences 1, 3 and -1, -1.2 at two draws: means 2 and -1.1, t intervals with one degree of freedom."""
    first, second = gaps(torch.tensor([[1.0, 5.0], [2.0, 8.0], [0.0, 3.8]]))
    assert (first.index, second.index) == (1, 0)
    assert first.excess.mean == pytest.approx(-1.1) and second.excess.mean == pytest.approx(2.0)
    assert second.excess.high == pytest.approx(2 + 12.7062, abs=1e-3)
    assert first.excess.high == pytest.approx(-1.1 + 1.27062, abs=1e-3) and not first.may_be_true


def test_the_most_confused_are_drawn_and_what_may_be_true_is_set_aside(tmp_path):
    dataset = make_dataset([["far", "near", "true"], ["near", "far"], ["far"]])
    aside = keep_hardest(dataset, known_of(dataset, tmp_path), 1)
    assert [(one["row"], one["mismatched"]) for one in aside] == [(0, "true 0")]
    assert aside[0]["low"] < aside[0]["mean"] < aside[0]["high"] < 0
    for epoch in range(8):
        dataset.begin_epoch(epoch)
        drawn = [dataset.prompts_of(row)[1] for row in range(3)]
        assert drawn == ["near 0", "near 1", "far 2"]


def test_two_are_kept_in_the_place_of_one(tmp_path):
    dataset = make_dataset([["far", "near", "true", "far away"]])
    keep_hardest(dataset, known_of(dataset, tmp_path), 2)
    drawn = set()
    for epoch in range(30):
        dataset.begin_epoch(epoch)
        drawn.add(dataset.prompts_of(0)[1])
    assert len(drawn) == 2 and "near 0" in drawn and "true 0" not in drawn


def test_a_row_all_of_whose_edits_may_be_true_is_left_out(tmp_path, caplog):
    dataset = make_dataset([["true"], ["far"]])
    keep_hardest(dataset, known_of(dataset, tmp_path), 3)
    assert dataset.usable.tolist() == [1] and "row 0: every mismatched prompt may be true of its image" in caplog.text
    alone = make_dataset([["true"]])
    with pytest.raises(UserError, match="no row that can be used"):
        keep_hardest(alone, known_of(alone, tmp_path / "alone"), 1)


def test_an_error_that_is_not_finite_chooses_nothing(tmp_path, caplog):
    found = gaps(torch.tensor([[1.0, 1.0], [float("nan"), 2.5], [float("inf"), float("inf")], [2.0, 2.0]]))
    assert [(gap.index, gap.is_known) for gap in found] == [(2, True), (0, True), (1, False)]
    dataset = make_dataset([["broken", "far"], ["broken"]])

    def overflows(batch):
        answer = answer_of(batch)
        is_broken = torch.tensor([prompt.startswith("broken") for prompt in batch.prompts])
        return answer | {"error": answer["error"].masked_fill(is_broken, float("inf"))}

    known = KnownReference(tmp_path, dataset)
    known.fill_all(overflows, 8)
    assert keep_hardest(dataset, known, 1) == []
    assert dataset.prompts_of(0)[1] == "far 0" and dataset.usable.tolist() == [0]
    assert "row 1: every mismatched prompt has no finite error" in caplog.text


def test_through_the_script(run_script, tmp_path):
    flags = {"use_lora": True, "precompute_reference": True, "reference_draws": 2, "hard_negatives": 1}
    run_script(**flags, output_dir=tmp_path / "out", encodings_dir=tmp_path / "kept", max_train_steps=2)
    lines = (tmp_path / "out" / "set_aside.jsonl").read_text().splitlines()
    assert all(json.loads(line)["high"] < 0 for line in lines)
    log = [json.loads(line) for line in (tmp_path / "out" / "training_log.jsonl").read_text().splitlines()]
    assert len(log) == 2 and log[0]["preference_loss"] == pytest.approx(0.6931, abs=1e-3)


def test_a_rehearsal_asks_the_reference_nothing_and_keeps_nothing(run_script, tmp_path):
    flags = {"precompute_reference": True, "hard_negatives": 1, "center_crop": True, "cache_latents": True}
    run_script(
        use_lora=True, cache_prompt_embeddings=True, **flags, dry_run=True, output_dir=tmp_path / "out",
        encodings_dir=tmp_path / "kept", max_train_steps=2,
    )  # fmt: skip
    assert not list((tmp_path / "kept").rglob("*.safetensors")) and not (tmp_path / "out" / "set_aside.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"hard_negatives": 1}, "add --precompute_reference"),
        ({"hard_negatives": 0, "precompute_reference": True}, "--hard_negatives must be at least 1"),
        (
            {"hard_negatives": 1, "precompute_reference": True, "reference_draws": 1},
            "--reference_draws of at least 2, got 1",
        ),
    ],
)
def test_what_it_needs_is_said(refused, flags, words):
    assert words in refused(use_lora=True, **flags)
