"""Batches that know their place: the order of an epoch is that of its beginning, and a stream tells when it is too short."""

import itertools

import pytest
import tiny
from accelerate import Accelerator, DataLoaderConfiguration
from conftest import reset_accelerate

from diffusers_tpo.data.dataset import as_torch_dataset
from diffusers_tpo.data.reader import RowReader
from diffusers_tpo.data.rows import Columns
from diffusers_tpo.errors import UserError
from diffusers_tpo.training.loader import Place, PlacedLoader, epochs_of


@pytest.fixture
def accelerator():
    reset_accelerate()
    yield Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    reset_accelerate()


def make_reader(**options) -> RowReader:
    return RowReader(Columns(), "tdpo", unpaired=False, seed=0, resolution=tiny.RESOLUTION, **options)


def test_the_batches_of_an_epoch_are_asked_for_after_it_has_begun():
    """Of 17 wide and 23 tall images in buckets, whose batches depend on the order of the epoch."""
    shapes = [(40, 20)] * 17 + [(16, 32)] * 23
    images = [image.resize(shape) for image, shape in zip(tiny.make_images(40), shapes, strict=True)]
    dataset = as_torch_dataset(tiny.make_dataset(40, image=images), make_reader(buckets=[(12, 24), (24, 12)]))
    batches = dataset.batches(4)
    assert len(batches) == 9
    asked = {}
    for epoch, part in epochs_of(batches, 0, 20, 1, 1):
        dataset.begin_epoch(epoch)
        asked[epoch] = list(part)
    for epoch, part in asked.items():
        dataset.begin_epoch(epoch)
        assert part == list(itertools.islice(batches, len(part)))
    assert [len(part) for part in asked.values()] == [9, 9, 2] and asked[0] != asked[1]


def test_places_follow_one_another_over_epochs(accelerator):
    loader = PlacedLoader(as_torch_dataset(tiny.make_dataset(5), make_reader()), 2, 3, accelerator)
    assert loader.steps_per_epoch == 1 and loader.rows_of_batch == 2
    whole = [(place, batch.prompts) for batch, place in itertools.islice(loader.after(Place()), 5)]
    assert [place for place, _ in whole] == [Place(0, 1), Place(0, 2), Place(1, 1), Place(1, 2), Place(2, 1)]
    for number in (1, 2, 3):
        rest = itertools.islice(loader.after(whole[number - 1][0]), 2)
        assert [(place, batch.prompts) for batch, place in rest] == whole[number : number + 2]


def test_too_few_rows_for_a_batch(accelerator):
    with pytest.raises(UserError, match="train_batch_size 8 exceeds the 5 rows; lower it"):
        PlacedLoader(as_torch_dataset(tiny.make_dataset(5), make_reader()), 8, 1, accelerator)
    stream = as_torch_dataset(tiny.make_dataset(5).to_iterable_dataset(), make_reader())
    with pytest.raises(UserError, match="--dataset_name streams fewer rows than --train_batch_size"):
        next(PlacedLoader(stream, 8, 1, accelerator).after(Place()))
