"""Says what a build would take, from a few captions that are really edited. Leaves nothing behind."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .build import Stages, split
from .dataset import Source
from .tally import Prices, Tally


@dataclass(frozen=True)
class Estimate:
    """What some captions took.

    Args:
        captions: of the whole source.
        tried: that were edited to know.
        tally: of these.
        seconds: that these took.
        at_once: requests that were, or could be, under way together; 1 for an editor of this process.
        prices: of tokens.
    """

    captions: int
    tried: int
    tally: Tally
    seconds: float
    at_once: int
    prices: Prices

    @property
    def factor(self) -> float:
        return self.captions / self.tried

    @property
    def all_seconds(self) -> float:
        """A few captions do not keep an endpoint busy; all of them will, as far as `at_once` goes."""
        return self.seconds * max(1.0, self.factor * min(1.0, self.tried / self.at_once))

    def lines(self) -> list[str]:
        """What was found, and what it means for all captions."""
        tally = self.tally
        edited = f"{tally.kept} of {self.tried} captions got mismatched prompts in {duration(self.seconds)}"
        if tally.kept < self.tried:
            edited += f" ({tally.kept / self.tried:.0%})"
        wanted = [f"all {self.captions:,} captions: about {duration(self.all_seconds)}"]
        requests = tally.requests + tally.judge_requests
        if requests:
            wanted.append(f"{round(requests * self.factor):,} requests")
            wanted.append(f"{round(tally.tokens * self.factor):,} tokens")
        if self.prices.are_known and requests:
            wanted.append(f"${self.prices.cost(tally) * self.factor:.2f}")
        lines = [edited, ", ".join(wanted)]
        if requests and not tally.tokens:
            lines.append("the endpoint does not count tokens, so their number and price are not known")
        elif requests and not self.prices.are_known:
            lines.append("give --price_per_million_tokens to see what that costs")
        return lines


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def estimate(source: Source, stages: Stages, number: int, at_once: int, prices: Prices) -> Estimate:
    """Edits, and has judged, so many captions at even distances; answers and edits are thrown away.

    Raises:
        UserError: if the editor or a judge gives no answer.
    """
    step = max(1, len(source.rows) // number)
    rows = range(0, len(source.rows), step)[:number]
    captions = dict(zip(rows, source.sample(number), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        (shard,) = split(Path(folder), 1, 1)
        started = time.monotonic()
        found, tally = stages.work_through(captions, shard, lambda tally: None)
        seconds = time.monotonic() - started
    for result, _ in found:
        if result.unanswered:
            raise UserError(
                f"--dry_run: row {result.row} got no answer: {result.reason}; mend the cause and try again"
            )
    return Estimate(len(source.rows), len(captions), tally, seconds, at_once, prices)
