"""Where a model or a data set was read from: its commit on the Hub and its licence. Knows nothing of what is in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}")
LINK = re.compile(r"[A-Za-z0-9:/.~%?=&#+_@,-]{1,500}")  # nothing that Markdown or HTML would take for its own
LICENCE = ("license", "license_name", "license_link")
SAFE = {"license": NAME, "license_name": NAME, "license_link": LINK}


@dataclass(frozen=True)
class Origin:
    """A model or a data set as it was read.

    Attributes:
        name: a Hub id or a local path.
        revision: that was asked for; `None` for the newest.
        commit: that was read; `None` where that is not known, as for a local path.
        licence: `license`, `license_name` and `license_link` as its card has them; empty where that is not known.
        others: further names on the Hub of what it comes from.
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    licence: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def called(self, names: Sequence[str]) -> "Origin":
        """The same under names on the Hub that its user gives, as for a folder; nothing else is known of those.

        Args:
            names: the first is what a card tells to load, and what the Hub shows first; none leaves it as it is.
        """
        if not names:
            return self
        first, *others = names
        return replace(self, name=first, revision=None, commit=None, others=tuple(others))


def model_origin(
    name: str, revision: str | None = None, cache_dir: str | None = None, token: str | None = None
) -> Origin:
    """Of a pipeline that has just been loaded. Its card is downloaded, unless there is no connection."""
    if Path(name).exists():
        return Origin(name, licence=read_licence(Path(name) / "README.md", None))
    commit = _commit(name, "model_index.json", "model", revision, cache_dir)
    try:
        card = hf_hub_download(name, "README.md", revision=commit or revision, cache_dir=cache_dir, token=token)
    except OSError:  # no card, or no connection
        return Origin(name, revision, commit)
    page = f"https://huggingface.co/{name}/blob/{commit or revision or 'main'}"
    return Origin(name, revision, commit, read_licence(Path(card), page))


def dataset_origin(name: str, revision: str | None = None) -> Origin:
    """Of a data set that `datasets` has just loaded; it looks a commit up by the card of the data set."""
    if Path(name).exists():
        return Origin(name)
    return Origin(name, revision, _commit(name, "README.md", "dataset", revision))


def _commit(name: str, file: str, repo_type: str, revision: str | None, cache_dir: str | None = None) -> str | None:
    """The newest commit of a revision that the cache holds `file` of."""
    path = try_to_load_from_cache(name, file, cache_dir, revision, repo_type)
    return Path(path).parent.name if isinstance(path, str) else None


def read_licence(card: Path, page: str | None) -> dict[str, str]:
    """The licence that the card of a model names; empty if there is none.

    The card is a stranger's and its words stand in ours: what is no plain name or https link is left out.

    Args:
        page: where the files beside the card can be read; without it a link to such a file is left out.
    """
    try:
        data = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):  # no card, or none that can be read
        return {}
    plain = {key: data[key] for key in LICENCE if isinstance(data.get(key), str) and SAFE[key].fullmatch(data[key])}
    if "license" not in plain or (plain["license"] == "other" and "license_name" not in plain):
        return {}
    link = plain.pop("license_link", None)
    if link and link.startswith("https://"):
        plain["license_link"] = link
    elif link and page and ":" not in link:
        plain["license_link"] = f"{page}/{link}"
    return plain
