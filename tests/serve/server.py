"""A running `sdpoint serve`, and a proxy that records what clients send to it."""

import contextlib
import socket
import subprocess
import threading
import time
import urllib.request


class Server:
    """The command as a process, on ports that are free."""

    def __init__(self, command, *arguments):
        self.process = subprocess.Popen(
            [command, "serve", "--listen", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rest, self.grpc, self.metrics = (
            self.process.stdout.readline().split()[1].removeprefix("http://").removesuffix("/metrics")
            for _ in range(3)
        )
        for _ in range(600):
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://{self.rest}/v2/health/ready").status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError("the server is not ready after a minute")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0


class Recorder:
    """A proxy before an address, which keeps what one client sends."""

    def __init__(self, address):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.sent = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection((self.host, self.port))
            threading.Thread(target=self._copy, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()

    def _copy(self, source, target, record):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if record:
                    self.sent += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
