"""Computes lists in batches that fit into memory: one that does not is halved. Knows nothing of what is computed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from .errors import UserError


logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class FittingBatches:
    """Computes lists in batches of `size`, halved for good as often as one runs out of memory.

    The system may kill a process that runs out of the main memory instead, so on a CPU `size` must fit.

    Attributes:
        what: is computed, for the log.
        may_halve: `False` lets the first error out, for processes that compute in step.
    """

    what: str
    size: int
    may_halve: bool = True

    def map(self, function: Callable[[list[T]], list[R]], items: list[T]) -> list[R]:
        """One result for each item.

        Args:
            function: of a batch, to one result for each of its items.

        Raises:
            UserError: if a single item does not fit.
        """
        results: list[R] = []
        is_halved = False
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.size]
            done = self._try(function, batch)
            if done is None:
                self.size, is_halved = len(batch) // 2, True
                clear_device_cache(garbage_collection=True)
                continue
            results.extend(done)
            if is_halved:
                logger.warning("%s: %d at once fit into memory", self.what, self.size)
                is_halved = False
        return results

    def _try(self, function: Callable[[list[T]], list[R]], batch: list[T]) -> list[R] | None:
        """`None` if memory ran out; what the failed call held is free again only after this has returned."""
        try:
            return function(batch)
        except RuntimeError as error:
            if not (self.may_halve and should_reduce_batch_size(error)):
                raise
            if len(batch) == 1:
                raise UserError(
                    f"{self.what}: not even one fits into memory; use a smaller resolution or a lower precision"
                ) from error
        return None
