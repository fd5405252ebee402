"""Lets a scorer judge a folder of renders and keeps its answers, so that no image is judged twice. Renders nothing."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from tqdm.auto import tqdm

from .compare import mean_over_prompts
from .renders import image_path, read_image
from .scorers.protocol import Scorer


def _file_name(scorer: str) -> str:
    return scorer.replace(":", ".")


def _given(scores: dict[str, list[float]]) -> int:
    """How many scores are there."""
    return sum(not math.isnan(value) for values in scores.values() for value in values)


def batches_of(number_of_prompts: int, images_per_prompt: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Prompt and number of the images that are judged together."""
    jobs = [(index, number) for index in range(number_of_prompts) for number in range(images_per_prompt)]
    return [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]


def read_scores(folder: Path, scorer: str, sizes: list[int]) -> dict[int, dict[str, list[float]]]:
    """The batches that some process has judged, by number.

    A line that was cut off or damaged, or has not one finite number or none for each image, counts as not there.

    Args:
        sizes: how many images each batch has.
    """
    found: dict[int, dict[str, list[float]]] = {}
    own = re.compile(re.escape(_file_name(scorer)) + r"-\d+\.jsonl")
    for path in sorted(path for path in folder.glob("*.jsonl") if own.fullmatch(path.name)):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                batch = int(row["batch"])
                scores = {name: list(map(_number, values)) for name, values in row["scores"].items()}
                is_whole = batch >= 0 and all(len(values) == sizes[batch] for values in scores.values())
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
                continue
            if is_whole and _given(scores) >= _given(found.get(batch, {})):
                found[batch] = scores
    return found


def _number(value: Any) -> float:
    """A score, nan for none."""
    number = math.nan if value is None else float(value)
    if math.isinf(number):
        raise ValueError(value)
    return number


def score_missing(
    scorer: Scorer,
    name: str,
    prompts: list[str],
    images: Path,
    folder: Path,
    images_per_prompt: int,
    batch_size: int,
    progress: str | None = None,
) -> None:
    """Judges the renders in `images` that have no score in `folder` yet; every process takes its share.

    A missing or broken image has no score. Answers are written after every batch.
    """
    state = PartialState()
    folder.mkdir(parents=True, exist_ok=True)
    batches = batches_of(len(prompts), images_per_prompt, batch_size)
    done = read_scores(folder, name, list(map(len, batches)))

    def is_done(batch: int) -> bool:
        """False also where an image that is there has no score at all, for instance because an endpoint was down."""
        if batch not in done:
            return False
        columns = done[batch].values()
        without = [
            job for place, job in enumerate(batches[batch]) if all(math.isnan(column[place]) for column in columns)
        ]
        return not any(image_path(images, *job).exists() for job in without)

    open_batches = [batch for batch in range(len(batches)) if not is_done(batch)]
    mine = [batch for batch in open_batches if batch % state.num_processes == state.process_index]
    hidden = progress is None or not state.is_local_main_process
    with (folder / f"{_file_name(name)}-{state.process_index}.jsonl").open("a", encoding="utf-8") as file:
        for batch in tqdm(mine, desc=progress, disable=hidden or not mine):
            part = batches[batch]
            loaded = [read_image(image_path(images, *job)) for job in part]
            there = {place: image for place, image in enumerate(loaded) if image is not None}
            judged = scorer(list(there.values()), [prompts[part[place][0]] for place in there]) if there else {}
            scores: dict[str, list[float | None]] = {metric: [None] * len(part) for metric in scorer.kinds}
            for metric, values in judged.items():
                scores.setdefault(metric, [None] * len(part))
                for place, value in zip(there, values, strict=True):
                    scores[metric][place] = None if math.isnan(value) else float(value)
            file.write("\n" * (file.tell() > 0) + json.dumps({"batch": batch, "scores": scores}) + "\n")
            file.flush()


def score_table(
    folder: Path, scorer: str, number_of_prompts: int, images_per_prompt: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Scores by metric: `(number_of_prompts,)`, the mean over the images that have one; nan where none has."""
    total = number_of_prompts * images_per_prompt
    sizes = list(map(len, batches_of(number_of_prompts, images_per_prompt, batch_size)))
    tables: dict[str, np.ndarray] = {}
    for batch, scores in read_scores(folder, scorer, sizes).items():
        for metric, values in scores.items():
            table = tables.setdefault(metric, np.full(total, np.nan))
            table[batch * batch_size : batch * batch_size + len(values)] = values
    return {metric: mean_over_prompts(table.reshape(number_of_prompts, -1)) for metric, table in tables.items()}
