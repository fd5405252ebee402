"""Pushes a finished folder to the Hub, again and again while that may help. Knows nothing of what is in it."""

import json
import logging
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that the client stands on: a lost connection is one
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from ..errors import UserError
from ..privacy import without_secrets


logger = logging.getLogger(__name__)
T = TypeVar("T")
NEVER_PUSHED = ("*.partial-*", ".git/*", ".cache/*")
MODEL_IGNORED = ("checkpoint-*", "logs/*", "validation/*", *NEVER_PUSHED)
DATASET_IGNORED = ("work/*", "preview.html", *NEVER_PUSHED)
DATASET_FILES = "data/*"  # a shard there that the folder has not would be read as rows of it
PASSING = (HTTPError, ConnectionError, TimeoutError, json.JSONDecodeError)  # the last for a gateway's page
FAILURES = (HTTPError, OSError, RuntimeError, ValueError)
ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 4, 300  # seconds; the Hub counts requests in windows of five minutes


def cause_of(error: Exception) -> Exception:
    """What went wrong beneath: the client hides the failure of an upload behind a `RuntimeError`."""
    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def reason_of(error: Exception, token: str | None) -> str:
    """An error in one line: what happened, and what the client adds to a bare number, without the token that was sent."""
    cause = cause_of(error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = [line for line in lines[:2] if not line.startswith("For more information")]
    return without_secrets(" ".join(told), token, get_token()) or type(cause).__name__


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: the Hub was busy or broken, or the connection was."""
    cause = cause_of(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in (408, 429) or cause.response.status_code >= 500
    return isinstance(cause, PASSING) and not isinstance(cause, OfflineModeIsEnabled)


def seconds_asked(error: Exception) -> int:
    """How long the Hub asks to wait: by `Retry-After`, or by the rest of a used-up `RateLimit`."""
    cause = cause_of(error)
    headers = cause.response.headers if isinstance(cause, HfHubHTTPError) else {}
    found = re.fullmatch(r"(\d+)", headers.get("Retry-After", ""))
    found = found or re.search(r"\br=0;\s*t=(\d+)", headers.get("RateLimit", ""))
    return min(int(found[1]), LONGEST_WAIT) if found else 0


def persist(action: Callable[[], T], attempts: int, token: str | None) -> T:
    """Calls `action`, and again after 4, 8, 16, ... seconds, or what the Hub asks for, while its failure may pass.

    Args:
        token: that `action` sends, to be left out of what is logged.
    """
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except FAILURES as error:
            if attempt == attempts or not may_pass(error):
                raise
            seconds = max(FIRST_WAIT * 2 ** (attempt - 1), seconds_asked(error))
            logger.warning(
                f"the Hub failed ({reason_of(error, token)}); attempt {attempt + 1} of {attempts} in {seconds} s"
            )
            time.sleep(seconds)
    raise ValueError(f"attempts must be at least 1, got {attempts}")


def own_name(repo: str, token: str | None) -> str:
    """A repository's full name: under the user's account if it names none.

    Raises:
        UserError: if the Hub does not know the user, the token may only read, or there can be no such name; better at the start
            of a run than at its end.
    """
    try:
        user = persist(HfApi(token=token).whoami, ATTEMPTS, token)
        name = repo if "/" in repo else f"{user['name']}/{repo}"
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"push_to_hub cannot name a repository {repo!r} ({reason_of(error, token)})") from error
    except FAILURES as error:
        if may_pass(error) or isinstance(error, OfflineModeIsEnabled):
            raise UserError(
                f"push_to_hub does not reach the Hub ({reason_of(error, token)}); try later, or leave push_to_hub out"
            ) from error
        raise UserError(
            f"push_to_hub needs a valid token ({reason_of(error, token)}); run `hf auth login` first"
        ) from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(
            "push_to_hub needs a token that may write, and this one only reads; `hf auth login` with another"
        )
    return name


def push_command(
    folder: Path, repo: str, repo_type: str, private: bool, revision: str | None, ignored: tuple[str, ...]
) -> str:
    """The command that does what [`push_folder`] does."""
    words = ["hf", "upload", repo, str(folder)]
    words += ["--repo-type", repo_type, "--delete", DATASET_FILES] if repo_type == "dataset" else []
    words += ["--private"] if private else []
    words += ["--revision", revision] if revision else []
    return shlex.join(words + [word for pattern in ignored for word in ("--exclude", pattern)])


def commit_folder(
    api: HfApi, folder: Path, repo: str, repo_type: str, private: bool, revision: str | None, ignored: tuple[str, ...]
) -> str:
    """One attempt of [`push_folder`]."""
    url = api.create_repo(repo, exist_ok=True, repo_type=repo_type, private=private or None)
    place = {"repo_id": url.repo_id, "repo_type": repo_type}
    if private and not api.repo_info(**place).private:
        raise ValueError(f"{url.repo_id} exists and is public: make it private, or do not ask for that")
    if revision:
        api.create_branch(**place, branch=revision, exist_ok=True)
    there = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    names = list(filter_repo_objects(there, ignore_patterns=list(ignored)))
    operations = [CommitOperationAdd(name, folder / name) for name in names]
    if repo_type == "dataset":
        old = filter_repo_objects(api.list_repo_files(**place, revision=revision), allow_patterns=DATASET_FILES)
        operations += [CommitOperationDelete(name) for name in old if name not in names]
    api.create_commit(**place, operations=operations, commit_message=f"Push {len(names)} files", revision=revision)
    return str(url)


def push_folder(
    folder: Path,
    repo: str,
    token: str | None,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    ignored: tuple[str, ...] = (),
    attempts: int = ATTEMPTS,
) -> str:
    """Uploads a folder in one commit, without what only its making needed, and returns the repository's URL.

    A repository or branch that does not exist is created. Shards of a data set that an earlier push left there and that this
    folder has not are removed by the same commit.

    Trying again is safe: a repository or branch that exists by now is taken, large files are stored under the hash of their
    content and sent once, and a commit that took effect although its answer was lost leaves nothing to commit.

    Args:
        repo_type: "model" or "dataset".
        private: of a new repository; a public one is refused.
        revision: the branch; the main one by default.
        ignored: further patterns of files that stay here.
        attempts: at most so many, with growing waits, while a failure may pass.

    Raises:
        UserError: if the Hub refuses or fails in the end; the folder stays as it is, and the sentence holds the command that
            pushes it.
    """
    ignored = tuple(dict.fromkeys([*(DATASET_IGNORED if repo_type == "dataset" else MODEL_IGNORED), *ignored]))
    folder, target = Path(folder), (repo, repo_type, private, revision, ignored)
    try:
        return persist(lambda: commit_folder(HfApi(token=token), folder, *target), attempts, token)
    except FAILURES as error:
        raise UserError(
            f"push_to_hub failed ({reason_of(error, token)}), and nothing is lost: push what lies on disk with "
            f"{push_command(folder, *target)}"
        ) from error
