"""Reference errors that are computed once are those of the live reference, and are computed once only."""

import json

import datasets
import pytest
import tiny
import torch
from PIL import Image
from torch.testing import assert_close

from diffusers_tpo.data.batch import collate
from diffusers_tpo.data.dataset import TextPreferenceDataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.training import reference
from diffusers_tpo.training.loader import epochs_of
from diffusers_tpo.training.reference import KnownReference


HELD = {"null_anchor": 0.5, "null_keep": 1, "null_share": 0.7}
STEPS = 5  # the second epoch has two more steps of rows that the table lacks at first


@pytest.fixture
def train(run_script, tmp_path):
    """Runs the script and returns its log."""

    def run(name: str, **flags) -> list[dict]:
        output = tmp_path / name
        shared = {
            "beta": 500,
            "train_batch_size": 2,
            "max_train_steps": STEPS,
            "encodings_dir": tmp_path / "encodings",
        }
        run_script(**(shared | {"output_dir": output} | flags))
        return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]

    return run


@pytest.fixture
def passes(monkeypatch):
    """The numbers of rows for which the reference has been asked."""
    seen, original = [], reference.KnownReference._answers_of

    def counted(self, uses, *rest):
        seen.append(len(uses))
        return original(self, uses, *rest)

    monkeypatch.setattr(reference.KnownReference, "_answers_of", counted)
    return seen


def assert_same(log, other):
    assert len(log) == len(other) == STEPS
    for rows in zip(log, other, strict=True):
        row, other_row = ({name: x for name, x in part.items() if name != "reward/accuracy"} for part in rows)
        assert row == pytest.approx(other_row, rel=1e-4, abs=1e-6)  # accuracy is the sign of margins, which begin at 0


@pytest.mark.parametrize(
    "flags",
    [
        {"use_lora": True, "lora_dropout": 0.3, "num_mismatched": 2, "random_flip": True},
        {"use_lora": False, "loss_type": "tkto", "gradient_accumulation_steps": 2, "learning_rate": 1e-5} | HELD,
        {"use_lora": True, "center_crop": True, "cache_latents": True, "cache_prompt_embeddings": True} | HELD,
        {"use_lora": True, "train_text_encoder": True, "use_aspect_ratio_buckets": True, "train_batch_size": 1} | HELD,
    ],
    ids=["lora", "full, unpaired", "cached", "text encoder, buckets"],
)
def test_a_precomputed_reference_is_the_live_one(train, tmp_path, flags):
    """Of TKTO with unpaired rows."""
    if flags.get("loss_type") == "tkto":
        rows = tiny.make_dataset(8, negative_prompts=None, principles=None, label=[True, False] * 4)
        rows.save_to_disk(tmp_path / "data")
        flags = flags | {"train_data_dir": tmp_path / "data"}
    assert_same(train("live", **flags), train("known", **flags, precompute_reference=True))


def test_a_sweep_computes_the_reference_once(train, passes):
    flags = {"use_lora": True, "precompute_reference": True}
    train("first", **flags)
    assert sum(passes) == 2 * 2 * STEPS  # each step has two images with two prompts
    passes.clear()
    train("other objective", **flags, loss_type="tkto", beta=50, learning_rate=1e-4, rank=2)
    assert passes == []
    train("other seed", **flags, seed=1, max_train_steps=1)
    assert sum(passes) == 2 * 2


def make_dataset(draws=None, number=8, **options) -> TextPreferenceDataset:
    reader = RowReader(Columns(), "tdpo", False, seed=0, resolution=tiny.RESOLUTION, draws=draws, **options)
    return TextPreferenceDataset(tiny.make_dataset(number), reader)


def noise_of(batch) -> torch.Tensor:
    """Something that depends on all that a reference's error depends on."""
    noise = torch.stack([torch.rand((), generator=draw.generator("noise")) for draw in batch.draws])
    pixels = batch.pixels.flatten(1).mean(dim=1)
    lengths = torch.tensor([float(len(prompt)) for prompt in batch.prompts])
    return (noise + pixels).repeat(batch.prompts_per_image) + lengths


def answer_of(batch) -> dict[str, torch.Tensor]:
    error = noise_of(batch)
    return {"error": error, "prediction": torch.stack([error, 2 * error], dim=1)}


def batches(number: int = 8, size: int = 2) -> list[list[int]]:
    return [list(range(start, start + size)) for start in range(0, number, size)]


def test_draws_come_back(tmp_path):
    dataset = make_dataset(draws=2, random_flip=True, num_mismatched=2)
    known, asked = KnownReference(tmp_path / "table", dataset), []
    for epoch in range(5):
        before = len(asked)
        known.fill([(epoch, batches())], lambda batch: asked.append(batch) or answer_of(batch), 6)
        batch = collate([dataset[index] for index in range(4)])
        assert {draw.number for draw in batch.draws} == {epoch % 2}
        assert_close(known.errors(batch, torch.device("cpu")), noise_of(batch))
    assert len(asked) == before  # two draws of every prompt are known by now


def test_a_stopped_computation_goes_on_where_it_was(tmp_path):
    dataset, calls = make_dataset(), []

    def stops(batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer_of(batch)

    with pytest.raises(KeyboardInterrupt):
        KnownReference(tmp_path / "table", dataset).fill([(0, batches())], stops, 4)
    rest = []
    known = KnownReference(tmp_path / "table", dataset)
    known.fill([(0, batches())], lambda batch: rest.append(batch) or answer_of(batch), 4)
    assert len(rest) == 2
    with pytest.raises(UserError, match="one process"):
        known.fill([(1, batches())], answer_of, 4, may_compute=False)
    known.fill([(0, batches())], answer_of, 4, may_compute=False)


def test_another_image_has_another_key(tmp_path):
    dataset, other = make_dataset(), make_dataset()
    other.rows = other.rows.select([1, 0, *range(2, 8)])
    keys, others = (KnownReference(tmp_path / "table", d).key(0, 0, "a") for d in (dataset, other))
    assert keys != others


def test_unreadable_images_are_left_to_the_rows_in_their_place(tmp_path):
    rows = tiny.make_dataset(8).cast_column("image", datasets.Image(decode=False))
    rows = rows.map(
        lambda row, row_id: {"image": {"bytes": b"no image"} if row_id == 3 else row["image"]}, with_indices=True
    )
    reader = RowReader(Columns(), "tdpo", False, seed=0, resolution=tiny.RESOLUTION, on_bad_row="skip")
    dataset = TextPreferenceDataset(rows, reader)
    known = KnownReference(tmp_path / "table", dataset)
    known.fill([(0, batches())], answer_of, 4)
    asked = {row: {known.key(row, 0, prompt) in known.cache for prompt in dataset.prompts_of(row)} for row in range(8)}
    assert asked.pop(3) == {False} and set(map(tuple, asked.values())) == {(True,)}
    batch = collate([dataset[index] for index in range(8)])
    assert_close(known.errors(batch, torch.device("cpu")), noise_of(batch))


def test_the_table_has_the_row_in_the_place_of_an_unreadable_one_that_no_batch_holds(tmp_path):
    """Of the order, a batch of two takes the first two places; in the place of the second, whose image is none, comes the third."""
    order = make_dataset(on_bad_row="skip").order.tolist()
    images = [
        {"bytes": b"no image", "path": None} if i == order[1] else image for i, image in enumerate(tiny.make_images(8))
    ]
    reader = RowReader(Columns(), "tdpo", False, seed=0, resolution=tiny.RESOLUTION, on_bad_row="skip")
    dataset = TextPreferenceDataset(tiny.make_dataset(8, image=images), reader)
    known = KnownReference(tmp_path / "table", dataset)
    known.fill([(0, [[0, 1]])], answer_of, 4)
    batch = collate([dataset[0], dataset[1]])
    assert [draw.row for draw in batch.draws] == [order[0], order[2]]
    assert_close(known.errors(batch, torch.device("cpu")), noise_of(batch))


def test_the_table_of_buckets_has_what_every_epoch_takes(tmp_path):
    """17 squares and 23 upright images in batches of 4: which rows wait in vain is another matter in every epoch."""
    images = [Image.new("RGB", (16, 16) if i < 17 else (16, 24), (i, 0, 0)) for i in range(40)]
    rows = tiny.make_dataset(40, image=images)
    reader = RowReader(Columns(), "tdpo", False, seed=0, buckets=[(16, 16), (24, 16)])
    dataset = TextPreferenceDataset(rows, reader)
    sampler = dataset.batches(4)
    known = KnownReference(tmp_path / "table", dataset)
    known.fill(epochs_of(sampler, 0, 3 * len(sampler), 1, 1), answer_of, 16)
    for epoch in range(3):
        dataset.begin_epoch(epoch)
        for positions in sampler:
            batch = collate([dataset[position] for position in positions])
            assert_close(known.errors(batch, torch.device("cpu")), noise_of(batch))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((4, 0, 3, 1, 1), [(0, 3)]),
        ((4, 0, 6, 1, 1), [(0, 4), (1, 2)]),
        ((4, 1, 6, 1, 1), [(1, 2)]),
        ((4, 0, 3, 3, 1), [(0, 4), (1, 3)]),  # an epoch of four batches has two steps: three and one
        ((5, 0, 4, 1, 2), [(0, 5), (1, 2)]),  # three steps of two processes in an epoch
        ((4, 1, 4, 1, 1), []),
    ],
)
def test_the_batches_that_a_run_takes(numbers, expected):
    number, first, steps, accumulation, processes = numbers
    sampler = torch.utils.data.BatchSampler(range(number), 1, drop_last=True)
    found = [(epoch, len(list(part))) for epoch, part in epochs_of(sampler, first, steps, accumulation, processes)]
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"loss_type": "sft"}, "needs a reference"),
        ({"streaming": True}, "cannot with --streaming"),
        ({"loss_type": "tkto", "tkto_baseline": "shuffled"}, "use batch_mean"),
        ({"reference_device": "cpu", "use_lora": False}, "leave them out"),
        ({"reference_draws": 0}, "reference_draws must be at least 1"),
    ],
)
def test_what_a_precomputed_reference_does_not_go_with(refused, flags, words):
    assert words in refused(**({"precompute_reference": True} | flags))


def test_the_table_has_the_predictions_of_the_empty_prompt_that_batches_take(tmp_path):
    dataset = make_dataset(draws=2)
    known = KnownReference(tmp_path / "table", dataset, empty_share=0.6)
    known.fill([(epoch, batches(size=4)) for epoch in range(4)], answer_of, 4)
    for epoch in range(4):
        dataset.begin_epoch(epoch)
        for positions in batches(size=4):
            batch = collate([dataset[position] for position in positions], empty_share=0.6)
            assert batch.num_empty in (2, 3)
            error = noise_of(batch)[:4] - torch.tensor([float(len(prompt)) for prompt in batch.prompts[:4]])
            expected = torch.stack([error, 2 * error], dim=1)[: batch.num_empty]
            assert_close(known.empty_predictions(batch, torch.device("cpu")), expected)
            assert_close(known.errors(batch, torch.device("cpu")), noise_of(batch))


def test_no_prediction_is_asked_for_where_no_image_has_the_empty_prompt(tmp_path):
    dataset = make_dataset()
    known = KnownReference(tmp_path / "table", dataset)
    known.fill([(0, batches())], answer_of, 4)
    batch = collate([dataset[0], dataset[1]])
    assert known.empty_predictions(batch, torch.device("cpu")) is None
    assert not any("prediction" in known.cache[key] for key in [known.key(0, 0, p) for p in dataset.prompts_of(0)])
