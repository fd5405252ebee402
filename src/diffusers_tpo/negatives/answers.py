"""Reads what a language model answered, however badly, into candidate captions. Nothing here is trusted or checked."""

import re
from typing import Any, Literal

from ..chat import json_values, spoken
from ..principles import PRINCIPLES
from .asking import Wanted


BULLET = re.compile(r"\A(?:[-*•]|\(?\d{1,3}[.):])\s+")
LABEL = re.compile(
    rf"\A\**(?:(?:the|edited|new|modified)\s+)*(?:caption|prompt|edit|answer|{'|'.join(PRINCIPLES)})\s*\d*\**:\**\s*",
    re.IGNORECASE,
)
QUOTED = re.compile(r'"([^"\n]{3,})"|“([^“”\n]{3,})”')
QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`", "«": "»"}
TEXT_KEYS = ("caption", "edited_caption", "prompt", "text", "edit")
EDITS_KEYS = ("edits", "captions", "negative_prompts")
NOTHING = ("null", "none", "n/a")  # `None`, as some models write it


def _caption(item: object) -> str | None | Literal[False]:
    """The caption in one element of an answer, `None` where the model says there is none, `False` if it is no element."""
    if item is None or isinstance(item, str):
        return item
    if isinstance(item, dict):
        for key in TEXT_KEYS:
            if key in item:
                return item[key] if item[key] is None or isinstance(item[key], str) else False
    return False


def _from_json(value: Any, wanted: tuple[Wanted, ...]) -> list[str | None] | None:
    """Captions in the order asked for, or `None` if the value is no answer."""
    asked = [w.principle for w in wanted]
    value = _edits(value, asked)
    read = [_caption(item) for item in value]
    captions = [caption for caption in read if caption is not False]
    if not len(read) == len(captions) == len(wanted):
        return None
    named: list[Any] = [item.get("principle") if isinstance(item, dict) else None for item in value]
    if named == asked or any(name not in list(PRINCIPLES) for name in named):
        return captions
    if sorted(named) != sorted(asked):
        return None  # edits of other principles than asked for
    order = sorted(range(len(asked)), key=asked.__getitem__)
    places = dict(zip(order, sorted(range(len(named)), key=named.__getitem__), strict=True))
    return [captions[places[number]] for number in range(len(asked))]


def _edits(value: Any, asked: list[str]) -> list:
    """The list of edits inside a JSON value, however it is wrapped."""
    while isinstance(value, dict):
        if all(principle in value for principle in asked):
            return [value[principle] for principle in asked]
        inner = next((value[key] for key in EDITS_KEYS if key in value), None)
        if inner is None and len(value) == 1 and isinstance(only := next(iter(value.values())), (dict, list)):
            inner = only
        if inner is None:
            break
        value = inner
    return value if isinstance(value, list) else [value]


def _unquoted(line: str) -> str:
    line = BULLET.sub("", line).strip()
    line = LABEL.sub("", line).strip("*").strip()
    if len(line) > 1 and QUOTES.get(line[0]) == line[-1]:
        return line[1:-1].strip()
    return line


def _from_prose(text: str, wanted: tuple[Wanted, ...]) -> list[str | None] | None:
    """Captions from lines of text: quoted ones if there are as many as wanted, else as many lines as wanted."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    content = [line for line in lines if not line.endswith(":")]
    quoted = QUOTED.findall(text)
    if len(content) == len(wanted):
        if len(wanted) == 1 and len(quoted) == 1 and content[0][-1] in '."”':  # Here it is: "a caption".
            return ["".join(quoted[0]).strip()]
        return [_unquoted(line) for line in content]
    if len(quoted) == len(wanted):
        return ["".join(pair).strip() for pair in quoted]
    return None


def read_answer(text: str, wanted: tuple[Wanted, ...]) -> list[str | None] | None:
    """Finds the edited captions in a model's answer: JSON, JSON inside prose or a code fence, or plain lines.

    Args:
        text: anything.
        wanted: what was asked for.

    Returns:
        One candidate for each wanted edit, `None` where the model found nothing to edit; or `None` if the answer cannot
        be understood. Candidates still have to pass [`check_edit`].
    """
    text = spoken(text)
    values = list(json_values(text))
    captions = next(filter(None, (_from_json(value, wanted) for value in [*values, values])), None)
    if captions is None and text and text[0] not in "{[" and '"edits"' not in text:  # broken JSON is no prose
        captions = _from_prose(text, wanted)
    if captions is None:
        return None
    captions = [caption.strip() if caption is not None else None for caption in captions]
    return [None if caption is not None and caption.casefold() in NOTHING else caption for caption in captions]
