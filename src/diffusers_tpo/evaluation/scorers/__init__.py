"""Scorers by name, and the check that each gives one number per image. Knows no model: every scorer is imported when it is loaded."""

import hashlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import UserError
from .protocol import Scorer, first_line


def _clip(**options: Any) -> Scorer:
    from .clip import ClipScore

    return ClipScore(**options)


def _pickscore(**options: Any) -> Scorer:
    from .clip import PickScore

    return PickScore(**options)


def _packaged(name: str, **options: Any) -> Scorer:
    from . import packaged

    return getattr(packaged, name)(**options)


def _shapes(**options: Any) -> Scorer:
    from .shapes import ShapesScorer

    return ShapesScorer(**options)


SCORERS: dict[str, Callable[..., Scorer]] = {
    "clip": _clip,
    "pickscore": _pickscore,
    "hpsv2": partial(_packaged, "hpsv2"),
    "hpsv3": partial(_packaged, "hpsv3"),
    "imagereward": partial(_packaged, "imagereward"),
    "aesthetic": partial(_packaged, "aesthetic"),
    "shapes": _shapes,
}


def load_scorer(
    name: str, device: str = "cpu", cache_dir: str | Path | None = None, token: str | None = None
) -> Scorer:
    """Loads a scorer by its name, or a user's own function, and checks every answer it gives.

    Args:
        name: a name of [`SCORERS`], or `"my_package.module:function"`. The function takes `(images, prompts)` and returns a list
            with a number per image, the metric then has the function's name, or a dict of such lists by metric. Modules of the
            current folder can be imported too. A user's metrics count as "adherence"; `kinds` names them from the first call on.
        device: where the model of a named scorer runs.
        cache_dir: folder for its download.
        token: for the Hub.

    Returns:
        The scorer. Calling it raises [`UserError`] unless it gives one number per image; `None` becomes nan.

    Raises:
        UserError: if there is no such scorer or function, or a model or package is missing.
    """
    if name in SCORERS:
        return CheckedScorer(name, SCORERS[name](device=device, cache_dir=cache_dir, token=token))
    return CheckedScorer(name, OwnScorer(name))


def scorer_identity(scorer: Scorer) -> dict[str, object]:
    """What the answers of a scorer depend on besides its name: of a user's own function the content of its module."""
    own = scorer.scorer if isinstance(scorer, CheckedScorer) else scorer
    module = inspect.getmodule(inspect.unwrap(own.function)) if isinstance(own, OwnScorer) else None
    file = getattr(module, "__file__", None)
    return {} if file is None else {"content of its module": hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}


class CheckedScorer:
    """Passes on the answers of a scorer that are one finite number or nan per image."""

    def __init__(self, name: str, scorer: Scorer):
        self.name, self.scorer = name, scorer

    @property
    def kinds(self) -> dict[str, str]:
        return self.scorer.kinds

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        scores = self.scorer(images, prompts)
        return {metric: self._numbers(metric, column, len(images)) for metric, column in scores.items()}

    def _numbers(self, metric: str, column: Any, number: int) -> list[float]:
        column = column.tolist() if isinstance(column, np.ndarray | torch.Tensor) else column
        wanted = f"scorer {self.name!r} must give a list of {number} numbers for {metric!r}, one per image"
        if not isinstance(column, list | tuple):
            raise UserError(f"{wanted}, got {type(column).__name__}")
        if len(column) != number:
            raise UserError(f"{wanted}, got {len(column)} of them")
        for index, value in enumerate(column):
            if value is not None and not isinstance(value, Real):
                raise UserError(f"{wanted}, got {type(value).__name__} for image {index}")
            if value is not None and math.isinf(value):
                raise UserError(f"{wanted}, got {value} for image {index}; use nan where there is no score")
        return [math.nan if value is None else float(value) for value in column]


class OwnScorer:
    """A user's function as a scorer; `kinds` is empty until its first answer names the metrics."""

    def __init__(self, name: str):
        self.name = name
        self.kinds: dict[str, str] = {}
        self.function = import_function(name)

    def __call__(self, images: list[Image.Image], prompts: list[str]) -> dict[str, list[float]]:
        scores = self.function(images, prompts)
        if not isinstance(scores, dict):
            scores = {self.name.partition(":")[2]: scores}
        if not scores or not all(isinstance(metric, str) for metric in scores):
            raise UserError(f"scorer {self.name!r} must name its metrics by strings, got the keys {list(scores)}")
        kinds = dict.fromkeys(scores, "adherence")
        if self.kinds and kinds != self.kinds:
            raise UserError(
                f"scorer {self.name!r} must give the same metrics in every call, got {', '.join(kinds)} "
                f"after {', '.join(self.kinds)}"
            )
        self.kinds = kinds
        return scores


def import_function(name: str) -> Callable:
    """Imports `"package.module:function"`, from the current folder too.

    Raises:
        UserError: if the name has another form, or there is nothing to call behind it.
    """
    module_name, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function)):
        raise UserError(
            f"scorer must be one of {', '.join(SCORERS)}, or your own function as 'my_package.module:function', "
            f"got {name!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # it stays there: the function may import its neighbours when it is called
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"module {module_name!r} of scorer {name!r} cannot be imported ({first_line(error)}); "
            f"install what is missing, or start in the module's folder"
        ) from error
    if not hasattr(module, function):
        raise UserError(
            f"scorer {name!r} names no function of {module_name!r}; define {function!r} in {module.__file__}"
        )
    if not callable(getattr(module, function)):
        raise UserError(
            f"scorer {name!r} must be a function that takes (images, prompts), got {type(getattr(module, function)).__name__}"
        )
    return getattr(module, function)
