"""The training script in a folder of its own: what is the same run goes on, what is another is refused, nothing is lost."""

import json
import shutil

import pytest
import tiny
import yaml
from conftest import SCRIPT, run_program


FLAGS = {"use_lora": True, "train_batch_size": 2, "checkpointing_steps": 2}


def read_log(output) -> list[dict]:
    return [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]


def test_a_moved_data_set_and_base_are_the_same_run_and_changed_ones_are_not(run_script, refused, tmp_path, pipe_dir):
    data, base, output = tmp_path / "data", tmp_path / "base", tmp_path / "run"
    tiny.make_dataset(8).save_to_disk(data)
    shutil.copytree(pipe_dir, base)
    output.mkdir()
    (output / "README.md").write_text("my notes")
    flags = FLAGS | {"output_dir": output}
    run_script(**flags, train_data_dir=data, pretrained_model_name_or_path=base, max_train_steps=2)
    sources = {"train_data_dir": tmp_path / "rows", "pretrained_model_name_or_path": tmp_path / "model"}
    data.rename(sources["train_data_dir"]), base.rename(sources["pretrained_model_name_or_path"])
    flags |= {"resume_from_checkpoint": "latest", "max_train_steps": 4}
    run_script(**flags, **sources)
    assert [row["step"] for row in read_log(output)] == [1, 2, 3, 4]
    log = (output / "training_log.jsonl").read_text()

    flags |= {"max_train_steps": 6}
    tiny.make_dataset(8, prompt=["cat"] * 8).save_to_disk(tmp_path / "others")
    message = refused(**flags, **sources | {"train_data_dir": tmp_path / "others"})
    assert "checkpoint-4 was written by another run: the captions of the data set changed; use what" in message
    tiny.make_pipe(seed=1).save_pretrained(tmp_path / "changed")
    message = refused(**flags, **sources | {"pretrained_model_name_or_path": tmp_path / "changed"})
    assert "another run: the weights of --pretrained_model_name_or_path changed; use what" in message
    assert (output / "training_log.jsonl").read_text() == log
    card = (output / "README.md").read_text()
    assert "text-preference-optimization" in card and str(tmp_path) not in card
    assert (output / "README.before-1.md").read_text() == "my notes"  # a foreign card is kept


def test_a_run_is_repeated_from_the_config_that_it_wrote_and_none_begins_in_its_folder(run_script, refused, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_script(**FLAGS, principles=["content"], beta=300, max_train_steps=2, output_dir=first)
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["beta"] == 300 and config["principles"] == ["content"] and "seed" not in config
    run_program(SCRIPT, {"config": first / "config.yaml", "output_dir": second})
    assert read_log(second) == read_log(first)
    log = (first / "training_log.jsonl").read_text()
    message = refused(**FLAGS, output_dir=first)
    assert "holds checkpoint-2 of a run; go on with --resume_from_checkpoint latest, or choose another" in message
    assert (first / "training_log.jsonl").read_text() == log


HOSTILE = [
    ("output_dir", "/dev/zero", {}),
    ("output_dir", "/proc/nothing", {}),
    ("output_dir", " ", {}),
    ("logging_dir", "/dev/zero", {}),
    ("logging_dir", "../logs", {}),
    ("logging_dir", "", {}),
    ("train_data_dir", "/dev/zero", {}),
    ("train_data_dir", "", {}),
    ("dataset_split", "nothing", {}),
    ("image_column", "", {}),
    ("pretrained_model_name_or_path", "/dev/zero", {}),
    ("pretrained_model_name_or_path", "", {}),
    ("pretrained_vae_model_name_or_path", "/dev/zero", {}),
    ("encodings_dir", "/dev/zero", {"cache_latents": True, "center_crop": True}),
    ("encodings_dir", "/proc/nothing", {"cache_prompt_embeddings": True}),
    ("bnb_quantization_config_path", "/dev/zero", {}),
    ("bnb_quantization_config_path", "", {}),
    ("resume_from_checkpoint", "/dev/zero", {}),
    ("resume_from_checkpoint", "", {}),
    ("reference_device", "nonsense", {"use_lora": False}),
    ("reference_device", "cuda:99", {"use_lora": False}),
    ("torch_compile_backend", "", {}),
    ("report_to", "", {}),
    ("lora_layers", "(", {}),
    ("lora_layers", ",", {}),
    ("aspect_ratio_buckets", "0,0", {"use_aspect_ratio_buckets": True}),
    ("aspect_ratio_buckets", "-16,16", {"use_aspect_ratio_buckets": True}),
    ("aspect_ratio_buckets", "", {"use_aspect_ratio_buckets": True}),
    ("lr_warmup_steps", "1000", {}),
    ("lr_warmup_steps", "1", {"lr_scheduler": "constant", "max_train_steps": 2}),
    ("min_timestep", "0.9999", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value", "besides"), HOSTILE)
def test_a_hostile_text_is_one_sentence_that_names_its_flag(refused, tmp_path, name, value, besides):
    message = refused(**{"output_dir": tmp_path / "model"} | besides | {name: value})
    assert name in message or f"split {value!r}" in message  # of which data set is said too
