"""Chooses the mismatched prompts that the reference confuses most with their prompt. Knows nothing of losses or of training."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.dataset import TextPreferenceDataset
from ..files import write_whole
from ..intervals import Interval, mean_interval
from ..show import harmless
from .reference import KnownReference


logger = logging.getLogger(__name__)
SET_ASIDE = "set_aside.jsonl"


@dataclass(frozen=True)
class Gap:
    """By how much the reference's error with one mismatched prompt exceeds that with the prompt, over draws of noise.

    Attributes:
        index: of the mismatched prompt among those of its row.
        excess: mean with its 95 % interval.
    """

    index: int
    excess: Interval

    @property
    def is_known(self) -> bool:
        """Whether the reference's errors are finite: half precision may overflow."""
        return math.isfinite(self.excess.mean)

    @property
    def may_be_true(self) -> bool:
        """Whether the reference finds the image more likely with this prompt, by more than the noise of its draws."""
        return self.excess.high < 0


def gaps(errors: Tensor) -> list[Gap]:
    """The gaps of one row, those that are confused most first, and those without a finite error last.

    Args:
        errors: of the reference, `(1 + C, D)`: of the prompt and its `C` mismatched prompts, at the same `D` draws.
    """
    excess = (errors[1:] - errors[:1]).double().numpy()
    excess[~np.isfinite(excess)] = np.nan  # such a draw says nothing
    found = [Gap(index, mean_interval(values)) for index, values in enumerate(excess)]
    return sorted(found, key=lambda gap: gap.excess.mean if gap.is_known else math.inf)


def keep_hardest(dataset: TextPreferenceDataset, known: KnownReference, number: int) -> list[dict]:
    """Lets a data set draw only from the `number` mismatched prompts of each row that the reference confuses most.

    A prompt whose error lies below that of the row's own prompt, by more than the noise of its draws, may be true of the
    image: it is set aside, and a row that has no other is left out.

    Args:
        known: has the error of every mismatched prompt, see [`KnownReference.fill_all`].

    Returns:
        What is set aside, one row each: `row`, `prompt`, `mismatched`, and the interval of the gap.

    Raises:
        UserError: if no row is left.
    """
    chosen: dict[int, list[int]] = {}
    aside: list[dict] = []
    lost: dict[int, str] = {}
    for row_id in dataset.usable.tolist():
        prompt, *mismatched = dataset.candidates(row_id)
        errors = known.errors_of(row_id, [prompt, *mismatched])
        if errors is None:
            continue  # its image cannot be read, and another row takes its place
        found = gaps(errors)
        for gap in found:
            if gap.may_be_true:
                told = {"row": row_id, "prompt": prompt, "mismatched": mismatched[gap.index]}
                aside.append(told | asdict(gap.excess))
        chosen[row_id] = [gap.index for gap in found if gap.is_known and not gap.may_be_true][:number]
        if not chosen[row_id]:
            why = "may be true of its image" if any(gap.is_known for gap in found) else "has no finite error"
            lost[row_id] = f"row {row_id}: every mismatched prompt {why}, by the reference"
    dataset.reader.hardest = chosen
    dataset.leave_out(lost)
    return aside


def list_set_aside(aside: list[dict], path: Path) -> None:
    """Writes what was set aside, and says where."""
    write_whole(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in aside))
    if aside:
        first = aside[0]
        logger.warning(
            harmless(
                f"{len(aside)} mismatched prompts may be true of their images and are set aside, the first "
                f"{first['mismatched']!r} of row {first['row']}; {path} lists them"
            )
        )
