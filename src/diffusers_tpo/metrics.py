"""Says how a batch went: which of its rows are matched, and the metrics of their rewards. Knows nothing of models."""

from dataclasses import dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Which rows of a batch are matched, known without waiting for the device.

    Attributes:
        is_matched: `(N,)`, boolean.
        matched, mismatched: the numbers of the rows of each class.
        in_blocks: whether a block of matched rows comes first and is followed by whole blocks of mismatched rows.
    """

    is_matched: Tensor
    matched: Tensor
    mismatched: Tensor
    in_blocks: bool

    @classmethod
    def of(cls, is_matched: Tensor, device: torch.device) -> "Layout":
        flags = is_matched.tolist()
        numbers = [[row for row, flag in enumerate(flags) if flag is wanted] for wanted in (True, False)]
        images, others = map(len, numbers)
        in_blocks = images > 0 and others > 0 and others % images == 0 and all(flags[:images])
        matched, mismatched = (torch.tensor(part, dtype=torch.long).to(device, non_blocking=True) for part in numbers)
        return cls(is_matched.to(device, non_blocking=True), matched, mismatched, in_blocks)


def share(chosen: Tensor, among: Tensor) -> Tensor:
    """Share of `among` that is chosen; 0 where there is none."""
    return chosen.sum() / among.sum().clamp(min=1)


def reward_metrics(
    reward: Tensor, error: Tensor, rows: Layout, ref_error: Tensor, share_image: bool
) -> dict[str, Tensor]:
    """The metrics that need no configuration. A class that the batch lacks has no entry, so averages stay honest.

    Margin and accuracy compare prompts of one image: rows in blocks, if they `share_image`.
    """
    metrics, images = {}, len(rows.matched)
    if images:
        metrics["error/matched"] = error[rows.matched].mean()
        metrics["reward/matched"] = reward[rows.matched].mean()
        metrics["reward/matched_relative"] = metrics["reward/matched"] / ref_error[rows.matched].mean()
    if len(rows.mismatched):
        metrics["reward/mismatched"] = reward[rows.mismatched].mean()
    if rows.in_blocks and share_image:
        margin = reward[:images] - reward[images:].unflatten(0, (-1, images))
        metrics["reward/margin"] = margin.mean()
        metrics["reward/accuracy"] = (margin > 0).float().mean()
    return metrics


def read(rows: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """The same metrics as numbers; the host waits for the device once."""
    values = [value.detach() for row in rows for value in row.values()]
    device = next((value.device for value in values if value.device.type != "cpu"), torch.device("cpu"))
    numbers = iter(torch.stack([value.to(device, torch.float32, non_blocking=True) for value in values]).tolist())
    return [{name: next(numbers) for name in row} for row in rows]


def mean_over_processes(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of the metrics of several forward passes on all processes; a metric may be missing in some."""
    gathered = gather_object(rows)
    names = dict.fromkeys(name for row in gathered for name in row)
    means = {name: [row[name] for row in gathered if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in means.items()}
