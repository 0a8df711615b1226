"""The page over HTTP on this machine alone: read only, from memory, for one Host."""

from __future__ import annotations

import mimetypes
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from peft_shop.errors import PeftShopError
from peft_shop.show.site.pages import CSP

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HOST", "PageServer", "has_screen"]

HOST: Final = "127.0.0.1"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


class _Handler(BaseHTTPRequestHandler):
    """Answers GET for the files of the page; everything else is refused."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "peft-shop"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Sends a file of the page."""
        if self.headers.get("Host", "") not in self.server.hosts:
            # a page of another site that resolves its name to this machine stays outside
            self._send(421, b"this address is served under its own name only\n")
            return
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        content = self.server.files.get(name)
        if content is None:
            self._send(404, b"there is no such file\n")
        else:
            self._send(200, content, name)

    def __getattr__(self, name: str) -> Any:
        """Refuses every other method, which the base class looks up by its name."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True
        self._send(405, b"only GET is answered\n", allow="GET")

    def _send(self, code: int, content: bytes, name: str = "", *, allow: str = "") -> None:
        self.send_response(code)
        suffix = os.path.splitext(name)[1]  # noqa: PTH122 - a name in a table, no path
        known = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "text/plain; charset=utf-8"
        self.send_header("Content-Type", known)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", f"{CSP}; frame-ancestors 'self'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keeps the terminal for what people asked."""


class PageServer(ThreadingHTTPServer):
    """Serves files from memory on 127.0.0.1.

    Attributes:
        files: contents by path.
        hosts: values of the Host header that are answered.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would share the port with others

    def __init__(self, files: Mapping[str, bytes], port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PeftShopError(f"cannot serve on port {port}: {reason}; 0 takes any") from error
        self.files = files
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"


def has_screen() -> bool:
    """Whether a browser opened from here would be seen by whoever asked."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"):
        return False
    unix = os.name == "posix" and os.uname().sysname != "Darwin"
    return not unix or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
