"""A Hub on 127.0.0.1 that keeps repositories in memory: real clients create, push, list and load from it.

Its answers are those that `huggingface_hub`, `datasets` and `diffusers` rely on, with the headers they read. Start it and set
`HF_ENDPOINT` and `HF_HUB_DISABLE_XET=1` before any of them is imported. It knows nothing of models or data sets.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


LARGE = (".safetensors", ".parquet", ".bin", ".png")  # files that go to the large file storage
KINDS = {"models": "", "datasets": "datasets/"}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD /path" the pattern finds.

    Args:
        status: of the answer, in place of what was asked.
        cut: closes the connection instead: in the middle of the "upload", "before" the request takes effect, "after" it has, or
            in the middle of the "download".
    """

    pattern: str
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    cut: str | None = None


@dataclass
class Repo:
    """Branches name commits; a commit has every file by path."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **body):
        self.status, self.body = status, {"error": message} | body
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def entry(path: str, content: bytes) -> dict:
    """A file as the listings show it."""
    found = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found


class HubServer:
    """Serves while it is entered.

    Args:
        tokens: name and role ("write" or "read") of the user of each token.
    """

    def __init__(self, tokens: dict[str, tuple[str, str]]):
        self.tokens, self.faults, self.asked = tokens, [], []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.stored: dict[str, bytes] = {}  # the large file storage
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.http.shutdown()
        self.http.server_close()

    def files(self, repo: str, branch: str = "main", kind: str = "models") -> dict[str, bytes]:
        """What lies in a branch."""
        found = self.repos[kind, repo]
        return found.commits[found.branches[branch]]

    def count(self, pattern: str) -> int:
        """Requests so far whose "METHOD /path" the pattern finds."""
        return sum(re.search(pattern, asked) is not None for asked in self.asked)

    def next_fault(self, asked: str) -> Fault | None:
        with self.lock:
            self.asked.append(asked)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, asked):
                    fault.times -= 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args) -> None:
        pass

    def exchange(self) -> None:
        """Answers one request, or fails as a fault demands."""
        self.url = urlsplit(self.path)
        path, length = unquote(self.url.path), int(self.headers.get("Content-Length", 0))
        fault = self.hub.next_fault(f"{self.command} {path}")
        cut = fault.cut if fault else None
        body = self.rfile.read(length // 2 if cut == "upload" else length)
        if cut in ("upload", "before"):
            self.close_connection = True
            return
        try:
            if fault and cut is None:  # a gateway answers so
                status, headers, content = fault.status, fault.headers, b"<html>a fault was injected</html>"
            else:
                status, headers, content = self.route(path, body)
        except Refusal as refusal:
            status, headers, content = refusal.status, refusal.headers, json.dumps(refusal.body).encode()
        if cut == "after":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut == "download" else content)
        self.close_connection |= cut == "download"

    do_GET = do_HEAD = do_POST = do_PUT = exchange  # noqa: N815

    def route(self, path: str, body: bytes) -> tuple[int, dict, bytes]:
        """Status, headers and content of the answer."""
        if found := re.fullmatch(r"/storage/(\w+)", path):
            return self.storage(found[1], body)
        if path == "/api/whoami-v2":
            name, role = self.user(required=True)
            return answer({"type": "user", "name": name, "auth": {"accessToken": {"role": role}}})
        if path == "/api/validate-yaml":
            return answer({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.repo("datasets" if found[1] else "models", found[2], writes=True)
            return self.batch(json.loads(body))
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(self.repo("datasets" if found[1] else "models", found[2]), found[3], found[4])
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+))?(?:/([^/]+))?(?:/(.+))?", path):
            kind, name, action, revision, rest = found.groups()
            handle = getattr(self, f"api_{(action or 'revision').replace('-', '_')}", None)
            if handle is not None:
                repo = self.repo(kind, name, writes=action in ("preupload", "commit", "branch"))
                return answer(handle(repo, f"{KINDS[kind]}{name}", revision or "main", rest or "", body))
        raise Refusal(404, f"{self.command} {path} is not served")

    # Who may do what

    def user(self, required: bool = False) -> tuple[str, str] | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.hub.tokens:
            return self.hub.tokens[token]
        if token or required:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return None

    def repo(self, kind: str, name: str, writes: bool = False) -> Repo:
        user, repo = self.user(required=writes), self.hub.repos.get((kind, name))
        owns = user is not None and user[0] == name.split("/")[0]
        if repo is None or (repo.private and not owns):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if writes and (not owns or user[1] != "write"):
            raise Refusal(403, "This token may not write to this repository")
        return repo

    def create(self, asked: dict) -> tuple[int, dict, bytes]:
        user, role = self.user(required=True)
        kind, name = f"{asked.get('type', 'model')}s", f"{asked.get('organization') or user}/{asked['name']}"
        if role != "write" or not name.startswith(f"{user}/"):
            raise Refusal(403, f"You may not create a repository under {name.split('/')[0]}")
        url = f"{self.hub.url}/{KINDS[kind]}{name}"
        with self.hub.lock:
            if (kind, name) in self.hub.repos:
                raise Refusal(409, "You already created this repository", url=url)
            repo = self.hub.repos[kind, name] = Repo(private=asked.get("visibility") == "private")
            repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return answer({"url": url, "name": name})

    # The two ways of files into a commit

    def api_preupload(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> dict:
        files, found = self.commit_of(repo, revision)[1], []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            there = entry(path, files[path]) if path in files else {}
            oid = there.get("lfs", there).get("oid")
            mode = "lfs" if is_large(path) else "regular"
            found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": found}

    def batch(self, asked: dict) -> tuple[int, dict, bytes]:
        objects = [{"oid": item["oid"], "size": item["size"]} for item in asked["objects"]]
        for item in objects:
            if item["oid"] not in self.hub.stored:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/storage/{item['oid']}"}}
        return answer({"transfer": "basic", "objects": objects})

    def storage(self, oid: str, body: bytes) -> tuple[int, dict, bytes]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "The content is not that of its name")
        self.hub.stored[oid] = body
        return answer({})

    def api_commit(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> dict:
        parent, files = self.commit_of(repo, revision)
        files = dict(files)
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header" and value.get("parentCommit", parent) != parent:
                raise Refusal(412, "A commit has happened since")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refusal(400, f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        with self.hub.lock:
            oid = repo.commit(revision, files)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}

    # Reading

    def commit_of(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        oid = repo.branches.get(revision, revision)
        if oid not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repo.commits[oid]

    def api_revision(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> dict:
        oid, files = self.commit_of(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        return {
            "id": name.removeprefix("datasets/"),
            "sha": oid,
            "private": repo.private,
            "siblings": siblings,
            "tags": [],
        }

    def api_refs(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> dict:
        refs = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": oid} for b, oid in repo.branches.items()]
        return {"branches": refs, "converts": [], "tags": []}

    def api_branch(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> dict:
        if revision in repo.branches:
            raise Refusal(409, f"Reference already exists: {revision}")
        repo.branches[revision] = self.commit_of(repo, json.loads(body).get("startingPoint", "main"))[0]
        return {}

    def api_tree(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> list[dict]:
        _, files = self.commit_of(repo, revision)
        prefix = f"{rest}/" if rest else ""
        below = {path: content for path, content in files.items() if path.startswith(prefix)}
        if rest and not below:
            raise Refusal(404, f"{rest} does not exist", "EntryNotFound")
        deep = parse_qs(self.url.query).get("recursive", ["false"])[0].lower() == "true"
        slashes = [(path, slash.start()) for path in below for slash in re.finditer("/", path)]
        folders = {path[:end] for path, end in slashes if end > len(prefix)}
        shown = [entry(path, content) for path, content in below.items() if deep or "/" not in path[len(prefix) :]]
        shown += [folder(path) for path in folders if deep or "/" not in path[len(prefix) :]]
        return sorted(shown, key=lambda item: item["path"])

    def api_paths_info(self, repo: Repo, name: str, revision: str, rest: str, body: bytes) -> list[dict]:
        _, files = self.commit_of(repo, revision)
        paths = parse_qs(body.decode())["paths"]
        shown = [entry(path, files[path]) for path in paths if path in files]
        return shown + [folder(path) for path in paths if any(file.startswith(f"{path}/") for file in files)]

    def resolve(self, repo: Repo, revision: str, path: str) -> tuple[int, dict, bytes]:
        oid, files = self.commit_of(repo, revision)
        headers = {"X-Repo-Commit": oid}
        if path not in files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers |= headers
            raise refusal
        content, etag = files[path], git_oid(files[path])
        if is_large(path):
            etag = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        return self.content(content, headers | {"ETag": f'"{etag}"'})

    def content(self, content: bytes, headers: dict) -> tuple[int, dict, bytes]:
        """All of it, or the bytes of the request's Range."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found is None:
            return 200, headers | {"Accept-Ranges": "bytes"}, content
        first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        return 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}, content[first : last + 1]


def folder(path: str) -> dict:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def answer(content) -> tuple[int, dict, bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
