"""A Hugging Face Hub in memory on 127.0.0.1, for the real client: HF_ENDPOINT points a child process at it.

Implements the HTTP routes that `huggingface_hub` and `transformers` call to create, fill, list and read repositories of
models and datasets. It never offers Xet for downloads; for uploads the client does not ask the server: where hf_xet is
installed it sends large files to Xet unless HF_HUB_DISABLE_XET is set, so `run_with_endpoint` sets it.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SIZE = 10 * 1024**2  # bytes; the Hub keeps no larger file in git itself
LFS_SUFFIXES = (".arrow", ".bin", ".h5", ".mp4", ".npy", ".npz", ".parquet", ".pt", ".safetensors", ".tar", ".zip")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


class Request(NamedTuple):
    """One answered request; `path` is unquoted and has no query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Response:
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


class HubError(Exception):
    """An error answer; the client maps `code` (header X-Error-Code) to its exception classes."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        headers |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = Response(json.dumps({"error": message}).encode(), headers, status)


class Blob:
    """The content of one file version, kept in git itself or (as a pointer in git) in LFS storage."""

    def __init__(self, content: bytes, lfs: bool = False):
        self.content, self.lfs = content, lfs
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.pointer = LFS_POINTER % (self.sha256.encode(), len(content))
        stored = self.pointer if lfs else content
        self.git_id = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
        self.etag = self.sha256 if lfs else self.git_id

    def describe(self, path: str) -> dict[str, Any]:
        """The file as the tree and paths-info routes name its fields, and as the `siblings` of a repository do."""
        facts = {"type": "file", "path": path, "size": len(self.content), "oid": self.git_id}
        lfs = {"oid": self.sha256, "sha256": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return facts | {"rfilename": path, "blobId": self.git_id} | ({"lfs": lfs} if self.lfs else {})


class Commit(NamedTuple):
    sha: str
    files: dict[str, Blob]

    def describe_folder(self, path: str) -> dict[str, Any] | None:
        """The folder as the tree and paths-info routes describe it, or None if no file lies in it."""
        content = sorted((name, blob.git_id) for name, blob in self.files.items() if name.startswith(f"{path}/"))
        tree_id = hashlib.sha1(repr(content).encode()).hexdigest()
        return {"type": "directory", "path": path, "size": 0, "oid": tree_id} if content else None


class Repo:
    """One repository: commits by hash, branches and tags by name. As on the Hub, it starts with .gitattributes."""

    def __init__(self, kind: str, name: str, private: bool):
        self.name, self.private = name, private
        self.path = f"/datasets/{name}" if kind == "datasets" else f"/{name}"
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit("main", {".gitattributes": Blob(GITATTRIBUTES.encode())})

    def commit(self, branch: str, files: dict[str, Blob]) -> Commit:
        """Makes `files` the whole content of the branch, in a commit whose hash depends on the history only."""
        history = (self.path, len(self.commits), self.branches.get(branch), [(p, b.git_id) for p, b in files.items()])
        sha = hashlib.sha1(repr(history).encode()).hexdigest()
        self.commits[sha] = Commit(sha, files)
        self.branches[branch] = sha
        return self.commits[sha]

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a full hash names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]


class HubServer(ThreadingHTTPServer):
    """Context manager that serves while its block runs, and raises at the end if a handler failed.

    Without `token` everybody may do everything. With it, writing and reading private repositories need this bearer
    token, and every other token is refused. `requests` lists the answered requests in order. `interrupt_after = n`
    breaks the connection after n bytes of the next download that is longer than n.
    """

    daemon_threads = False  # leaving the block waits for the handlers

    def __init__(self, token: str | None = None, user: str = "tester"):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.endpoint, self.token, self.user = f"http://127.0.0.1:{self.server_port}", token, user
        self.repos: dict[tuple[str, str], Repo] = {}  # by ("models" or "datasets", "namespace/name")
        self.lfs_objects: dict[str, bytes] = {}  # by sha256
        self.lfs_expected: dict[str, int] = {}  # size by sha256, of announced objects
        self.requests: list[Request] = []
        self.failures: list[BaseException | None] = []
        self.lock = threading.Lock()
        self.interrupt_after: int | None = None
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def find(self, method: str, path: str) -> list[Request]:
        """The answered requests of one method whose path contains `path`."""
        return [request for request in self.requests if request.method == method and path in request.path]

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()
        if self.failures:
            raise BaseExceptionGroup("the hub server failed", [*self.failures, *([error] if error else [])])

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(error := sys.exception(), ConnectionError):  # a client may leave at any time
            self.failures.append(error)


class HubHandler(BaseHTTPRequestHandler):
    """One request per connection: finds its route in ROUTES, checks the token, calls the method of the route's name.

    These methods run under the server's lock and return a Response, or a value to send as JSON.
    """

    disable_nagle_algorithm = True  # headers and body are two writes; Nagle may delay the second by 40 ms
    timeout = 30  # seconds without data from the client
    server: HubServer

    def answer(self) -> None:
        url = urlsplit(self.path)
        if "Transfer-Encoding" in self.headers:
            raise NotImplementedError("a request body without Content-Length")
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.query = parse_qs(url.query)
        try:
            with self.server.lock:
                result = self.dispatch(url.path)
        except HubError as error:
            result = error.response
        if not isinstance(result, Response):
            result = Response(json.dumps(result).encode(), {"Content-Type": "application/json"})
        self.server.requests.append(Request(self.command, unquote(url.path), result.status))
        self.send(result)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def dispatch(self, path: str) -> Any:
        for methods, pattern, name, access in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                self.fields = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                self.authorize(access)
                return getattr(self, name)()
        raise HubError(501, f"route not implemented: {self.command} {path}")

    def authorize(self, access: str) -> None:
        given = self.headers.get("Authorization")
        if self.server.token is None or access == "open":
            return
        if given is None and access == "write":
            raise HubError(401, "Invalid username or password.")
        if given is None and self.repo.private:
            raise HubError(401, "Repository not found", "RepoNotFound")
        if given not in (None, f"Bearer {self.server.token}"):
            raise HubError(401, "Invalid credentials in Authorization header")

    def send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        end = None
        if self.command == "GET" and len(response.body) > (self.server.interrupt_after or len(response.body)):
            end, self.server.interrupt_after = self.server.interrupt_after, None
        if self.command != "HEAD":
            self.wfile.write(response.body[:end])

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: `HubServer.requests` is the log."""

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def repo(self) -> Repo:
        try:
            return self.server.repos[self.fields.get("kind", "models"), self.fields["repo"]]
        except KeyError:
            raise HubError(404, "Repository not found", "RepoNotFound") from None

    @property
    def commit(self) -> Commit:
        return self.repo.resolve(self.fields.get("revision", "main"))

    def whoami(self) -> Any:
        return {"type": "user", "id": "0", "name": self.server.user, "orgs": [], "auth": {"type": "access_token"}}

    def validate_card(self) -> Any:
        return {"errors": [], "warnings": []}

    def create_repo(self) -> Any:
        kind = f"{self.json.get('type') or 'model'}s"
        if kind not in ("models", "datasets"):
            raise HubError(400, f"repositories of {kind} are not implemented")
        name = f"{self.json.get('organization') or self.server.user}/{self.json['name']}"
        private = self.json.get("visibility") == "private" or self.json.get("private", False)
        known = (kind, name) in self.server.repos
        repo = self.server.repos.setdefault((kind, name), Repo(kind, name, private))
        answer = {"url": self.server.endpoint + repo.path, "name": name, "id": name}
        return Response(json.dumps(answer).encode(), status=409) if known else answer  # the client reads url from both

    def info(self) -> Any:
        repo, commit = self.repo, self.commit
        facts = {"id": repo.name, "author": repo.name.split("/")[0], "sha": commit.sha, "private": repo.private}
        return facts | {"tags": [], "siblings": [blob.describe(path) for path, blob in sorted(commit.files.items())]}

    def tree(self) -> Any:
        commit, folder = self.commit, self.fields.get("path", "")
        if folder and commit.describe_folder(folder) is None:
            raise HubError(404, f"{folder} does not exist on {commit.sha}", "EntryNotFound")
        found, start = {}, len(folder) + 1 if folder else 0
        for path, blob in commit.files.items():
            if not folder or path.startswith(f"{folder}/"):
                parents = [path[: start + slash.start()] for slash in re.finditer("/", path[start:])]
                found |= {parent: commit.describe_folder(parent) for parent in parents} | {path: blob.describe(path)}
        recursive = self.query.get("recursive") == ["true"]
        return [entry for path, entry in sorted(found.items()) if recursive or "/" not in path[start:]]

    def paths_info(self) -> Any:
        commit, paths = self.commit, [path.strip("/") for path in parse_qs(self.body.decode()).get("paths", [])]
        entries = (commit.files[p].describe(p) if p in commit.files else commit.describe_folder(p) for p in paths)
        return [entry for entry in entries if entry is not None]

    def refs(self) -> Any:
        branches, tags = (
            [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in refs.items()]
            for kind, refs in (("heads", self.repo.branches), ("tags", self.repo.tags))
        )
        return {"branches": branches, "tags": tags, "converts": [], "pullRequests": []}

    def create_ref(self) -> Any:
        refs, name, revision = self.repo.branches, self.fields["name"], self.json.get("startingPoint", "main")
        if self.fields["ref"] == "tag":
            refs, name, revision = self.repo.tags, self.json["tag"], name
        if name in refs:
            raise HubError(409, f"Reference already exists: {name}")
        refs[name] = self.repo.resolve(revision).sha
        return {}

    def preupload(self) -> Any:
        answers, known = [], {path: blob.etag for path, blob in self.commit.files.items()}
        for path, size in ((file["path"], file["size"]) for file in self.json["files"]):
            mode = "lfs" if size > LFS_SIZE or path.endswith(LFS_SUFFIXES) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known.get(path)})
        return {"files": answers}

    def lfs_batch(self) -> Any:
        _, answers = self.repo, self.json["objects"]  # `repo` refuses an unknown one
        for answer in answers:
            if answer["oid"] not in self.server.lfs_objects:
                self.server.lfs_expected[answer["oid"]] = answer["size"]
                href = f"{self.server.endpoint}/lfs-storage/{answer['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return {"transfer": "basic", "objects": answers}

    def lfs_upload(self) -> Any:
        oid = self.fields["oid"]
        if hashlib.sha256(self.body).hexdigest() != oid or self.server.lfs_expected.get(oid) != len(self.body):
            raise HubError(400, "the uploaded bytes are not an announced object")
        self.server.lfs_objects[oid] = self.body
        return Response()

    def lfs_verify(self) -> Any:
        if len(self.server.lfs_objects.get(self.fields["oid"], b"")) != self.json["size"]:
            raise HubError(400, "the object was not uploaded")
        return {}

    def create_commit(self) -> Any:
        repo, branch = self.repo, self.fields["revision"]
        if "create_pr" in self.query:
            raise HubError(400, "pull requests are not implemented")
        if branch not in repo.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        if header["value"].get("parentCommit", repo.branches[branch]) != repo.branches[branch]:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.commit.files)
        for operation in operations:
            self.apply(files, operation["key"], operation["value"])
        commit = repo.commit(branch, files)
        url = f"{self.server.endpoint}{repo.path}/commit/{commit.sha}"
        return {"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""}

    def apply(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        """Applies one operation of a commit to `files`."""
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"], validate=True))
        elif key == "lfsFile" and value["oid"] in self.server.lfs_objects:
            files[path] = Blob(self.server.lfs_objects[value["oid"]], lfs=True)
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[name]
        else:
            raise HubError(404, f"{key}: A file with this name doesn't exist: {path}", "EntryNotFound")

    def resolve(self) -> Response:
        commit, blob = self.commit, self.commit.files.get(self.fields["path"])
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.sha})
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": f'"{blob.etag}"'}
        size, wanted = len(blob.content), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return Response(blob.content, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
        if first > last:
            raise HubError(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Response(blob.content[first : last + 1], headers, 206)


REPO = "(?P<repo>[^/]+/[^/]+|[^/]+)"
API = "/api/(?P<kind>models|datasets)/" + REPO
WEB = "/(?:(?P<kind>datasets)/)?" + REPO
REVISION = "/(?P<revision>[^/]+)"  # a slash inside arrives quoted
ROUTES = (  # methods, path, method of HubHandler, who may: "open" all, "read" token if private, "write" token
    ("GET", "/api/whoami-v2", "whoami", "write"),
    ("POST", "/api/validate-yaml", "validate_card", "open"),
    ("POST", "/api/repos/create", "create_repo", "write"),
    ("GET", API + "/tree" + REVISION + "(?:/(?P<path>.+))?", "tree", "read"),
    ("POST", API + "/paths-info" + REVISION, "paths_info", "read"),
    ("GET", API + "/refs", "refs", "read"),
    ("POST", API + "/(?P<ref>branch|tag)/(?P<name>[^/]+)", "create_ref", "write"),
    ("POST", API + "/preupload" + REVISION, "preupload", "write"),
    ("POST", API + "/commit" + REVISION, "create_commit", "write"),
    ("GET", API + "(?:/revision" + REVISION + ")?", "info", "read"),
    ("POST", WEB + r"\.git/info/lfs/objects/batch", "lfs_batch", "write"),
    ("PUT", "/lfs-storage/(?P<oid>[0-9a-f]{64})", "lfs_upload", "open"),  # clients send no token to storage
    ("POST", "/lfs-storage/(?P<oid>[0-9a-f]{64})/verify", "lfs_verify", "write"),
    ("GET HEAD", WEB + "/resolve" + REVISION + "/(?P<path>.+)", "resolve", "read"),
)


def run_with_endpoint(
    server: HubServer, code: str, tmp_path: Path, extra_env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs `code` (dedented) with this interpreter in `tmp_path`, where it has its own cache; `server` is its Hub.

    The child gets the server's token, no proxy, and no Hugging Face setting of this process; `extra_env` wins over all.
    Raises AssertionError with the child's output if it fails, subprocess.TimeoutExpired after `timeout` seconds.
    """
    foreign = re.compile("(HF_|HUGGING|TRANSFORMERS_).*|.*_proxy", re.IGNORECASE)
    env = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
    env |= {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env |= ({"HF_TOKEN": server.token} if server.token else {}) | dict(extra_env or {})
    command = [sys.executable, "-c", textwrap.dedent(code)]
    child = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=timeout)
    if child.returncode != 0:
        raise AssertionError(f"the child exited with {child.returncode}\n{child.stdout}\n{child.stderr}")
    return child
