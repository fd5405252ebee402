"""Pushes a finished folder to the Hub, again and again while that may help. Knows nothing of what is in it."""

import json
import logging
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
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
MODEL_IGNORED = ("checkpoint-*", "logs/*", "validation/*", "dry_run/*", *NEVER_PUSHED)
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


def seconds_asked(error: Exception) -> float:
    """How long the Hub asks to wait: by `Retry-After`, or by the rest of a used-up `RateLimit`."""
    cause = cause_of(error)
    headers = cause.response.headers if isinstance(cause, HfHubHTTPError) else {}
    found = re.fullmatch(r"(\d+)", headers.get("Retry-After", ""))
    found = found or re.search(r"\br=0;\s*t=(\d+)", headers.get("RateLimit", ""))
    return min(float(found[1]), LONGEST_WAIT) if found else 0


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
        raise UserError(f"--push_to_hub cannot name a repository {repo!r} ({reason_of(error, token)})") from error
    except FAILURES as error:
        if may_pass(error) or isinstance(error, OfflineModeIsEnabled):
            raise UserError(
                f"--push_to_hub does not reach the Hub ({reason_of(error, token)}); try later, or leave it out"
            ) from error
        raise UserError(
            f"--push_to_hub needs a valid token ({reason_of(error, token)}); run `hf auth login` first"
        ) from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(
            "--push_to_hub needs a token that may write, and this one only reads; `hf auth login` with another"
        )
    return name


@dataclass(frozen=True)
class Upload:
    """A folder and the repository that it goes to.

    Attributes:
        repo_type: "model" or "dataset".
        private: of a new repository; a public one is refused.
        revision: the branch; the main one by default.
        ignored: patterns of files that stay here.
    """

    folder: Path
    repo: str
    repo_type: str
    private: bool
    revision: str | None
    ignored: tuple[str, ...]

    def command(self) -> str:
        """The command of the Hub's client that does the same."""
        words = ["hf", "upload", self.repo, str(self.folder)]
        if self.repo_type == "dataset":
            words += ["--repo-type", "dataset", "--delete", DATASET_FILES]
        if self.private:
            words.append("--private")
        if self.revision:
            words += ["--revision", self.revision]
        for pattern in self.ignored:
            words += ["--exclude", pattern]
        return shlex.join(words)

    def files(self) -> list[str]:
        """Names of the files that are pushed, relative to the folder."""
        there = [path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return list(filter_repo_objects(there, ignore_patterns=list(self.ignored)))

    def commit(self, api: HfApi) -> str:
        """Tries it once and returns the repository's URL."""
        url = api.create_repo(self.repo, exist_ok=True, repo_type=self.repo_type, private=self.private or None)
        repo = url.repo_id
        if self.private and not api.repo_info(repo, repo_type=self.repo_type).private:
            raise ValueError(f"{repo} exists and is public: make it private, or do not ask for that")
        if self.revision:
            api.create_branch(repo, repo_type=self.repo_type, branch=self.revision, exist_ok=True)
        names = self.files()
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, self.folder / name) for name in names
        ]
        if self.repo_type == "dataset":
            there = api.list_repo_files(repo, repo_type=self.repo_type, revision=self.revision)
            shards = filter_repo_objects(there, allow_patterns=DATASET_FILES)
            operations += [CommitOperationDelete(name) for name in shards if name not in names]
        api.create_commit(
            repo,
            operations,
            commit_message=f"Push {len(names)} files",
            repo_type=self.repo_type,
            revision=self.revision,
        )
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
    never = DATASET_IGNORED if repo_type == "dataset" else MODEL_IGNORED
    upload = Upload(Path(folder), repo, repo_type, private, revision, tuple(dict.fromkeys([*never, *ignored])))
    try:
        return persist(lambda: upload.commit(HfApi(token=token)), attempts, token)
    except FAILURES as error:
        raise UserError(
            f"--push_to_hub failed ({reason_of(error, token)}), and nothing is lost: push what lies on disk with "
            f"{upload.command()}"
        ) from error
