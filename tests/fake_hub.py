"""A hub on this machine: it answers what the hub's own client asks when models are fetched, and no more."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "a token"  # noqa: S105 (of nobody)


class Hub(ThreadingHTTPServer):
    """Models by OWNER/NAME.

    Attributes:
        models: commits of each, by their hash, the last one being what `main` stands for; each is a folder.
        gated: models that want a token.
        asked: paths that were asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.models: dict[str, dict[str, Path]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, folder: Path, commit: str) -> None:
        """Push a commit."""
        self.models.setdefault(name, {})[commit] = folder


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:  # as http.server spells it
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        parts = path.split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2 * api :]
        model = f"{owner}/{name}"
        commits = self.server.models.get(model)
        if commits is None:
            return self._fail(401 if api else 404, "RepoNotFound", body=body)
        if model in self.server.gated and self.headers.get("authorization") != f"Bearer {TOKEN}" and not api:
            return self._fail(403, "GatedRepo", body=body)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return self._fail(404, "RevisionNotFound", body=body)
        folder = commits[commit]
        if api:
            files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
            said: object = {
                "id": model,
                "modelId": model,
                "sha": commit,
                "tags": [],
                "siblings": [{"rfilename": f.relative_to(folder).as_posix()} for f in files],
            }
            if rest[:1] == ["tree"]:
                said = [
                    {
                        "type": "file",
                        "path": f.relative_to(folder).as_posix(),
                        "size": f.stat().st_size,
                        "oid": "",
                    }
                    for f in files
                ]
            return self._send(json.dumps(said).encode(), {"content-type": "application/json"}, body=body)
        file = folder.joinpath(*rest[2:])
        if not file.is_file():
            return self._fail(404, "EntryNotFound", body=body, commit=commit)
        data = file.read_bytes()
        headers = {"x-repo-commit": commit, "etag": f'"{hashlib.sha256(data).hexdigest()}"'}
        return self._send(data, headers, body=body)

    def _send(self, data: bytes, headers: dict[str, str], *, body: bool, status: int = 200) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _fail(self, status: int, code: str, *, body: bool, commit: str = "") -> None:
        more = {"x-repo-commit": commit} if commit else {}
        self._send(
            b"{}", {"x-error-code": code, "content-type": "application/json"} | more, body=body, status=status
        )


@contextmanager
def running():
    """A hub, until the end."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
