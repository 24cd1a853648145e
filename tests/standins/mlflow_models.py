"""A server of MLflow on loopback that has models, and notes each request.

It answers MLflow's own client as `mlflow server` 3 does, for versions of models with tags and
aliases. It leaves out all else: runs, artifacts, experiments, deletion, order, filters other than
`name=`. How many versions are in a page is what a test says, instead of what the client asks for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API = "/api/2.0/mlflow/"
Reply = tuple[int, dict[str, Any]]
MISSING: Reply = (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"})
NO_ALIAS: Reply = (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "alias not found"})


@dataclass
class Models:
    """The models of a server, and what it was asked: a method, a path and its fields."""

    page: int = 10_000
    url: str = ""
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, model: str, tags: dict[str, str], source: str = "s3://bucket/model") -> Reply:
        """Add a version to a model."""
        known = self.versions.setdefault(model, [])
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        number = str(len(known) + 1)
        known.append(
            {"name": model, "version": number, "source": source, "status": "READY", "tags": pairs}
        )
        return 200, {"model_version": known[-1]}

    def answer(self, method: str, path: str, fields: dict[str, Any]) -> Reply:
        """Answer a request."""
        self.requests.append((method, path, fields))
        model = fields.get("name", "")
        known = model in self.versions
        match method, path:
            case "GET", "model-versions/search":
                return self._search(fields)
            case "GET", "model-versions/get":
                return self._version(model, fields["version"])
            case "POST", "model-versions/create":
                return self.add(model, {}, fields["source"])
            case "POST", "model-versions/set-tag":
                tags = self.versions[model][int(fields["version"]) - 1]["tags"]
                tags[:] = [tag for tag in tags if tag["key"] != fields["key"]]
                tags.append({"key": fields["key"], "value": fields["value"]})
                return 200, {}
            case "GET", "registered-models/alias":
                number = self.aliases.get((model, fields["alias"]))
                return self._version(model, number) if number else NO_ALIAS
            case "POST", "registered-models/alias":
                self.aliases[model, fields["alias"]] = fields["version"]
                return 200, {}
            case "GET", "registered-models/get":
                return (200, {"registered_model": {"name": model}}) if known else MISSING
            case "POST", "registered-models/create":
                self.versions.setdefault(model, [])
                return 200, {"registered_model": {"name": model}}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": f"no {method} {path}"}

    def _version(self, model: str, number: str) -> Reply:
        known = self.versions.get(model, [])
        is_known = 0 < int(number) <= len(known)
        return (200, {"model_version": known[int(number) - 1]}) if is_known else MISSING

    def _search(self, fields: dict[str, Any]) -> Reply:
        model = fields["filter"].removeprefix("name='").removesuffix("'")
        start = int(fields.get("page_token") or 0)
        end = start + self.page
        known = self.versions.get(model, [])
        more = {"next_page_token": str(end)} if end < len(known) else {}
        return 200, {"model_versions": known[start:end]} | more


@contextmanager
def serving(models: Models) -> Iterator[Models]:
    """Serve them at a port of loopback that is free."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def reply(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fields = dict(parse_qsl(parts.query)) | json.loads(body or b"{}")
            path = parts.path.removeprefix(API)
            status, document = models.answer(self.command, path, fields)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = reply  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    models.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield models
    finally:
        server.shutdown()
        server.server_close()
