"""Lets a scorer judge a folder of renders and keeps its answers, so that no image is judged twice. Renders nothing."""

import json
import math
import re
from pathlib import Path

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


def read_scores(folder: Path, scorer: str) -> dict[int, dict[str, list[float]]]:
    """The batches that some process has judged, by number; a line that was cut off or damaged counts as not there."""
    found: dict[int, dict[str, list[float]]] = {}
    own = re.compile(re.escape(_file_name(scorer)) + r"-\d+\.jsonl")
    for path in sorted(path for path in folder.glob("*.jsonl") if own.fullmatch(path.name)):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                scores = {
                    name: [math.nan if value is None else float(value) for value in values]
                    for name, values in row["scores"].items()
                }
                batch = int(row["batch"])
            except (ValueError, LookupError, TypeError, AttributeError):
                continue
            if _given(scores) >= _given(found.get(batch, {})):
                found[batch] = scores
    return found


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
    jobs = [(index, number) for index in range(len(prompts)) for number in range(images_per_prompt)]
    done = read_scores(folder, name)
    batches = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]

    def is_done(batch: int) -> bool:
        """False also where an image that is there has no score at all, for instance because an endpoint was down."""
        scores = done.get(batch)
        without = (
            []
            if scores is None
            else [
                job for place, job in enumerate(batches[batch]) if all(math.isnan(v[place]) for v in scores.values())
            ]
        )
        return scores is not None and not any(image_path(images, *job).exists() for job in without)

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
    tables: dict[str, np.ndarray] = {}
    for batch, scores in read_scores(folder, scorer).items():
        for metric, values in scores.items():
            table = tables.setdefault(metric, np.full(total, np.nan))
            table[batch * batch_size : batch * batch_size + len(values)] = values
    return {metric: mean_over_prompts(table.reshape(number_of_prompts, -1)) for metric, table in tables.items()}
