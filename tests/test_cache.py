"""The folder of tensors that runs and processes share."""

import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import tiny_families
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from diffusers_tpo import training_scheduler
from diffusers_tpo.errors import UserError
from diffusers_tpo.families import family_of
from diffusers_tpo.models.adapters import add_lora
from diffusers_tpo.training import cache as caches
from diffusers_tpo.training.cache import AHEAD, KEYS, Cache, fingerprint, read_ahead
from diffusers_tpo.training.encoding import Encoder
from diffusers_tpo.training.trained import FrozenParts


def entry(value: float) -> dict:
    return {"a": torch.full((2, 3), value), "b": torch.tensor([value], dtype=torch.bfloat16)}


def make(keys: list[str], seen: list):
    def encode(indices):
        seen.extend(keys[index] for index in indices)
        return [entry(float(index)) for index in indices]

    return encode


def test_a_cache_gives_back_what_was_put_in_and_makes_each_key_once(tmp_path):
    keys, seen = ["k0", "k1", "k0", "k3", "k4"], []
    Cache(tmp_path).fill(keys, make(keys, seen), 2, "things")
    assert seen == ["k0", "k1", "k3", "k4"]
    cache = Cache(tmp_path)
    for index in (0, 1, 3, 4):
        found = cache[keys[index]]
        assert {name: (x.dtype, x.tolist()) for name, x in found.items()} == {
            name: (x.dtype, x.tolist()) for name, x in entry(float(index)).items()
        }
    cache.fill(["k9", *keys], make(["k9", *keys], seen), 2, "things")
    assert seen[4:] == ["k9"]


def test_entries_of_several_forms_lie_in_a_shard_each_and_empty_ones_in_none(tmp_path):
    made = {"a": entry(1.0), "b": {"error": torch.tensor(0.5)}, "c": {"a": torch.ones(3)}, "d": {}, "e": entry(2.0)}
    Cache(tmp_path).fill(list(made), lambda indices: [list(made.values())[index] for index in indices], 2, "things")
    cache = Cache(tmp_path)
    assert sorted(len(load_file(path)[KEYS]) for path in tmp_path.glob("*.safetensors")) == [1, 1, 2]
    assert cache["b"]["error"].shape == () and torch.equal(cache["e"]["a"], entry(2.0)["a"])
    assert cache.lacking(["d", "a", "f", "d"]) == [0, 2, 3]
    cache["b"]["error"].zero_()  # of a copy
    assert cache["b"]["error"] == 0.5
    with pytest.raises(KeyError, match="d"):
        cache["d"]


@pytest.mark.parametrize("limit", ["SHARD_BYTES", "SHARD_SECONDS"])
def test_an_interrupted_fill_goes_on(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(f"diffusers_tpo.training.cache.{limit}", 0)  # a shard for every batch
    keys, seen = [f"k{i}" for i in range(6)], []

    def dies(indices):
        if 4 in indices:
            raise KeyboardInterrupt
        return make(keys, seen)(indices)

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).fill(keys, dies, 2, "things")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    cache = Cache(tmp_path)
    cache.fill(keys, make(keys, seen), 2, "things")
    assert seen == keys and all(key in cache for key in keys)


def test_a_damaged_shard_is_made_again(tmp_path, caplog):
    keys, seen = ["k0", "k1"], []
    Cache(tmp_path).fill(keys, make(keys, seen), 2, "things")
    (shard,) = tmp_path.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    cache = Cache(tmp_path)
    assert "is damaged" in caplog.text and "k0" not in cache
    cache.fill(keys, make(keys, seen), 2, "things")
    assert seen == keys * 2 and torch.equal(cache["k1"]["a"], entry(1.0)["a"])


@dataclass
class Values(torch.utils.data.Dataset):
    cache: Cache
    number: int

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> float:
        return self.cache[f"k{index}"]["error"].item()


def test_more_shards_are_read_than_files_may_be_open_here_and_in_data_workers(tmp_path):
    cache, number = Cache(tmp_path), 200
    for index in range(number):
        cache.add({f"k{index}": {"error": torch.tensor(float(index))}})
    cache.refresh()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number // 2, limits[1]))
    try:
        [in_worker] = DataLoader(Values(cache, number), number, num_workers=1)
        here = [cache[f"k{index}"]["error"].item() for index in range(number)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert here == in_worker.tolist() == list(range(number))


def test_large_encodings_are_announced_and_too_large_ones_refused(tmp_path, monkeypatch, caplog):
    keys = ["k0", "k1"]
    monkeypatch.setattr("diffusers_tpo.training.cache.LARGE", 10)
    Cache(tmp_path / "a").fill(keys, make(keys, []), 2, "prompts")
    assert "2 prompts of 26 bytes make 52 bytes in" in caplog.text and caplog.records[-1].levelname == "WARNING"
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UserError, match="encodings_dir .* has 10 bytes free, and 2 prompts of 26 bytes make 52 bytes"):
        Cache(tmp_path / "b").fill(keys, make(keys, []), 2, "prompts")
    assert not list((tmp_path / "b").glob("*.safetensors"))


def test_reading_ahead_keeps_the_order_and_its_bounds_and_ends_with_the_first_error():
    begun, got = [], []

    def read(number: int) -> int:
        begun.append(number)
        time.sleep(0.002 * (3 - number % 3))
        if number >= 7:
            raise UserError(f"row {number}")
        return number

    with pytest.raises(UserError, match="row 7"):
        for number in read_ahead(read, iter(range(100))):
            got.append(number)
            assert max(begun) <= number + AHEAD + 1
    assert got == list(range(7)) and len(begun) < 20


def test_what_a_tokenizer_was_last_called_with_does_not_change_its_fingerprint():
    tokenizer = tiny.make_tokenizer()
    before = fingerprint({"tokenizer": tokenizer})
    tokenizer(["a", "a cat"], padding="max_length", truncation=True, max_length=5)
    assert fingerprint({"tokenizer": tokenizer}) == before
    tokenizer.add_tokens("circle")
    assert fingerprint({"tokenizer": tokenizer}) != before


def test_adapters_do_not_change_the_fingerprint_of_what_carries_them():
    unet = tiny.make_unet()
    before = fingerprint({"unet": unet})
    add_lora(unet, ("to_q",))
    assert fingerprint({"unet": unet}) == before
    unet.conv_in.bias.data[0] += 1
    assert fingerprint({"unet": unet}) != before


def encoder_of(pipe) -> Encoder:
    family = family_of(pipe)
    return Encoder(pipe, family, FrozenParts(pipe, {family.denoiser}, torch.device("cpu")))


def folders_of(pipe) -> list[str]:
    """Where the encodings of prompts and the reference's errors are kept."""
    encoder = encoder_of(pipe)
    reference = encoder.reference_folder(Path("."), training_scheduler(pipe.scheduler))
    return [encoder._fingerprint("text_encoder", "tokenizer"), reference.name]


@pytest.mark.parametrize(("name", "template"), [("qwen_image", "prompt_template_encode"), ("flux2", "system_message")])
def test_a_prompt_template_changes_what_is_kept_of_prompts(name, template):
    pipe = tiny_families.make_pipe(name)
    before, images = folders_of(pipe), encoder_of(pipe)._fingerprint("vae")
    assert folders_of(tiny_families.make_pipe(name)) == before
    setattr(pipe, template, f"Other words. {getattr(pipe, template)}")
    assert not set(folders_of(pipe)) & set(before)
    assert encoder_of(pipe)._fingerprint("vae") == images


def test_a_setting_of_the_pipeline_itself_changes_what_is_kept_of_prompts():
    """SDXL's says what an empty prompt is."""
    pipe = tiny_families.make_pipe("sdxl")
    before, images = folders_of(pipe), encoder_of(pipe)._fingerprint("vae")
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert not set(folders_of(pipe)) & set(before)
    assert encoder_of(pipe)._fingerprint("vae") == images


@pytest.mark.parametrize("library", ["diffusers", "transformers", "ftfy", "beautifulsoup4"])
def test_a_library_that_makes_something_else_of_a_prompt_changes_what_is_kept(library, monkeypatch):
    before = folders_of(tiny.make_pipe())
    real = caches.version_of
    monkeypatch.setattr(caches, "version_of", lambda name: "0.0.1" if name == library else real(name))
    assert not set(folders_of(tiny.make_pipe())) & set(before)
