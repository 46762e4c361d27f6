"""HTTPS in front of the service: one thread a connection, kept alive, answers compressed when asked for."""

from __future__ import annotations

import gzip
import ssl
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pyVmomi import vmodl

from tests.vsphere_endpoint.estate import API_VERSION, Estate
from tests.vsphere_endpoint.service import Service
from tests.vsphere_endpoint.soap import parse_call, runtime_fault, write_fault, write_result
from tests.vsphere_endpoint.tls import TlsFiles

_COOKIE = "vmware_soap_session"


class Endpoint:
    """A vCenter on a port of 127.0.0.1. Stop and start it again and it keeps port and estate, but no session."""

    def __init__(
        self,
        tls: TlsFiles,
        estate: Estate | None = None,
        *,
        login: tuple[str, str] = ("reader@vsphere.local", "correct horse"),
        port: int = 0,
    ) -> None:
        self.tls = tls
        self.estate = estate or Estate()
        self.service = Service(self.estate, login)
        self.port = port
        self.raw: bytes | None = None
        """Sent instead of any answer."""
        self._server: _Server | None = None

    def start(self) -> Endpoint:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls.chain, self.tls.key)
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.endpoint, self._server.context = self, context
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.cut()
            self._server.server_close()
            self._server = None
            self.service.expire_sessions()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    endpoint: Endpoint
    context: ssl.SSLContext

    def __init__(self, *arguments: Any) -> None:
        self.sockets: set[Any] = set()
        super().__init__(*arguments)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(10)
        with self.context.wrap_socket(request, server_side=True) as secured:
            secured.settimeout(None)
            self.sockets.add(secured)
            try:
                super().finish_request(secured, client_address)
            finally:
                self.sockets.discard(secured)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, or do not trust us, are part of the tests."""

    def cut(self) -> None:
        import contextlib
        import socket

        for one in list(self.sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/sdk":
            self.send_error(404)
            return
        if endpoint.raw is not None:
            self._send(200, endpoint.raw, None)
            return
        try:
            call = parse_call(body, API_VERSION)
            result, cookie = endpoint.service.handle(call, self._session())
            answer = write_result(call, result, API_VERSION)
        except vmodl.MethodFault as fault:
            self._send(500, write_fault(fault, API_VERSION), None)
        except Exception as error:  # noqa: BLE001 - told to the client and to the test, as a server would
            endpoint.service.calls.append(f"server error: {error!r}")
            self._send(500, write_fault(runtime_fault(repr(error)), API_VERSION), None)
        else:
            self._send(200, answer, cookie)

    def _session(self) -> str | None:
        morsel = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        return None if morsel is None else morsel.value

    def _send(self, status: int, body: bytes, cookie: str | None) -> None:
        self.send_response(status)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if cookie is not None:
            self.send_header("Set-Cookie", f'{_COOKIE}="{cookie}"; Path=/; HttpOnly; Secure')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
