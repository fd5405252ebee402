"""The number of processes and the accumulation steps change nothing but the place where rows are computed."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from conftest import SCRIPT, as_flags
from processes import FSDP, finish, said, start
from safetensors.torch import load_file


LORA = "pytorch_lora_weights.safetensors"
STEPS = 4
HELD = {"null_anchor": 0.05, "null_keep": 0.1, "null_share": 1}  # of every image, so that any split asks the same
SIGNS = ("reward/matched_relative", "reward/accuracy")  # of numbers that are 0 at first, to float tolerance


@pytest.fixture
def launch(tmp_path_factory, small_flags, run_script):
    """Runs the script on one or several CPU processes and returns its log, its final weights and its folder."""

    def run(processes: int, script: Path = SCRIPT, **flags) -> tuple[list[dict], dict, Path]:
        flags = {"use_lora": True, "beta": 500, "max_train_steps": STEPS} | flags
        output = flags.setdefault("output_dir", tmp_path_factory.mktemp("distributed"))
        if processes == 1:
            run_script(**flags)
        else:
            codes = finish(start(processes, as_flags(small_flags | flags), output, script))
            assert codes == [0] * processes, said(output)
        log = [json.loads(line) for line in (output / "training_log.jsonl").read_text().splitlines()]
        weights = LORA if flags["use_lora"] else "unet/diffusion_pytorch_model.safetensors"
        return log, load_file(output / weights), Path(output)

    return run


def assert_same_run(run, other, but: tuple[str, ...] = ()):
    """Every logged number and the final weights agree to float tolerance."""
    (log, weights, _), (other_log, other_weights, _) = run, other
    assert len(log) == len(other_log) == STEPS
    for row, other_row in zip(log, other_log, strict=True):
        names = row.keys() - set(but)
        assert names == other_row.keys() - set(but)
        for name in names:
            assert row[name] == pytest.approx(other_row[name], rel=1e-3, abs=2e-5), (row["step"], name)
    for name, value in weights.items():
        torch.testing.assert_close(value, other_weights[name], rtol=1e-2, atol=1e-4)


def assert_identical(run, other):
    """Every logged number and the final weights are the same to the last bit."""
    assert run[0] == other[0] and run[1].keys() == other[1].keys()
    assert all(torch.equal(value, other[1][name]) for name, value in run[1].items())


def test_one_process_two_processes_and_accumulation_are_the_same_tdpo_run(launch):
    flags = {"loss_type": "tdpo", "num_mismatched": 2} | HELD
    whole = launch(1, **flags, train_batch_size=4)
    assert whole[0][0]["preference_loss"] == pytest.approx(math.log(2))
    assert whole[0][-1]["preference_loss"] < 0.99 * math.log(2)  # the runs that are compared do learn
    two = launch(2, **flags, train_batch_size=2)
    assert two[0][0]["preference_loss"] == pytest.approx(math.log(2))  # the reference inside the wrapper is the base
    relative = ("reward/matched_relative",)  # a ratio of means
    assert_same_run(whole, two, but=relative)
    assert_same_run(whole, launch(1, **flags, train_batch_size=2, gradient_accumulation_steps=2), but=relative)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["batch_mean", "class_mean"])
def test_the_baseline_of_tkto_is_that_of_all_processes(launch, tmp_path_factory, baseline):
    """Unpaired rows, so that the processes hold different shares of the classes."""
    folder = tmp_path_factory.mktemp("data") / "unpaired"
    labels = [True, False, False, True, True, True, False, True]
    tiny.make_dataset(8, negative_prompts=None, principles=None, label=labels).save_to_disk(folder)
    flags = {"loss_type": "tkto", "tkto_baseline": baseline, "anchor_weight": 0, "train_data_dir": str(folder)}
    whole, two = (launch(processes, **flags, train_batch_size=4 // processes) for processes in (1, 2))
    assert any(row["baseline"] != 0 for row in whole[0])
    assert whole[0][0]["loss"] == two[0][0]["loss"] == pytest.approx(0.5)
    by_class = ("reward/matched", "reward/matched_relative", "reward/mismatched", "error/matched", "clipped_fraction")
    assert_same_run(whole, two, but=by_class)  # a process may lack a class


@pytest.mark.slow
def test_trained_text_encoders_see_the_gradients_of_all_processes(launch):
    flags = {"train_text_encoder": True, "loss_type": "sft"}
    whole, two = (launch(processes, **flags, train_batch_size=4 // processes) for processes in (1, 2))
    assert_same_run(whole, two)
    assert len(two[1]) == len(whole[1]) and any("text_" in name for name in two[1])


@pytest.mark.slow
@pytest.mark.parametrize("use_lora", [True, False], ids=["lora", "full"])
def test_fsdp2_is_the_same_run_and_leaves_whole_weights(launch, use_lora, tmp_path):
    """Validation images are rendered by all processes together; a table of reference errors is filled by one."""
    flags = {"use_lora": use_lora, "loss_type": "tdpo", "use_ema": True, "learning_rate": 1e-4} | HELD
    flags |= {"precompute_reference": not use_lora, "encodings_dir": tmp_path}
    whole = launch(1, **flags, train_batch_size=4)
    shown = {"validation_prompt": "cat", "validation_steps": 4, "num_validation_images": 1} if use_lora else {}
    split = launch(2, FSDP, **flags, **shown, train_batch_size=2, checkpointing_steps=2)
    assert_same_run(whole, split, but=SIGNS)
    assert whole[1].keys() == split[1].keys()
    if use_lora:
        flags |= {"output_dir": split[2], "resume_from_checkpoint": "checkpoint-2"}
        assert_identical(split, launch(2, FSDP, **flags, train_batch_size=2))


@pytest.mark.slow
def test_two_processes_train_judge_render_and_resume_a_full_model(launch, tmp_path):
    flags = {"use_lora": False, "loss_type": "tdpo", "use_ema": True, "learning_rate": 1e-4, "checkpointing_steps": 2}
    flags["encodings_dir"] = tmp_path
    judged = {"eval_steps": 2, "eval_split": "train", "max_eval_samples": 3}
    shown = {"validation_prompt": "cat", "validation_steps": 2, "num_validation_images": 1}
    whole = launch(1, **flags, **judged, train_batch_size=4)
    flags["precompute_reference"] = True
    two = launch(2, **flags, **judged, **shown, train_batch_size=2)
    without_copy = tuple(name for row in whole[0] for name in row if name.startswith("eval/guidance/"))
    assert without_copy and not any(name in row for row in two[0] for name in without_copy)
    assert_same_run(whole, two, but=SIGNS + without_copy)
    assert any(name.startswith("eval/") for name in two[0][1])
    assert {path.parent.name for path in two[2].glob("validation/*/0-0.png")} == {"step-0", "step-2", "step-4"}
    flags |= {"output_dir": two[2], "resume_from_checkpoint": "checkpoint-2"}
    assert_identical(two, launch(2, **flags, **judged, train_batch_size=2))


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_do_not_fill_the_last_batch_of_all_processes_hang_nobody(launch, tmp_path, streaming):
    """Seven rows for two processes with two each, four times over."""
    tiny.make_dataset(7).save_to_disk(tmp_path / "uneven")
    flags = {"loss_type": "tdpo", "train_data_dir": tmp_path / "uneven", "streaming": streaming}
    log, _, _ = launch(2, **flags, train_batch_size=2, num_train_epochs=STEPS)
    assert [row["step"] for row in log] == list(range(1, STEPS + 1))


def test_an_error_in_one_process_ends_all(tmp_path, small_flags):
    """Only one process comes to the row whose image is broken."""
    images = [{"bytes": b"no image", "path": None}, *tiny.make_rows(7)["image"]]
    tiny.make_dataset(8, image=images).save_to_disk(tmp_path / "broken")
    flags = small_flags | {"use_lora": True, "train_data_dir": tmp_path / "broken", "train_batch_size": 1}
    started = start(
        2, as_flags(flags | {"max_train_steps": 8, "num_train_epochs": 8, "output_dir": tmp_path}), tmp_path
    )
    codes = finish(started)
    assert 2 in codes and 0 not in codes and None not in codes
    assert "error: row 0" in said(tmp_path)


@pytest.mark.slow
def test_processes_share_the_work_of_encoding_and_read_the_same(launch, tmp_path):
    flags = {"loss_type": "tdpo", "center_crop": True, "random_flip": True}
    kept = {"cache_latents": True, "cache_prompt_embeddings": True, "encodings_dir": tmp_path}
    kept["precompute_reference"] = True
    whole = launch(1, **flags, train_batch_size=4)
    assert_same_run(whole, launch(2, **flags, **kept, train_batch_size=2), but=SIGNS)
    written = [len(list(tmp_path.glob(f"{kind}-*/*.safetensors"))) for kind in ("images", "prompts", "reference")]
    assert written == [2, 2, 4]  # one file of each process, and in each of two epochs
