"""The other servers as processes: each with a configuration for the load, its own data directory, and one core."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.kernel import children_of
from bench.peers.protocols import Mqtt, Speaks, Xmpp
from bench.servers import pinned
from bench.settings import Settings

READY_S = 60.0
ERLANG_LIBS = "/usr/lib/x86_64-linux-gnu"

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
user root
set_tcp_nodelay true
log_dest none
"""

EJABBERD = """\
loglevel: warning
hosts: [localhost]
auth_method: internal
registration_timeout: infinity
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, access: all, shaper: none, starttls: false}}
modules:
  mod_register: {{ip_access: all, access: all, password_strength: 0}}
  mod_muc: {{max_users: 2000, default_room_options: {{max_users: 2000}}}}
"""


class NotInstalled(Exception):
    """The text says how to install it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """One of them, running.  `start` gives the command and the environment that it needs beside ours."""

    def __init__(self, speaks: Speaks, settings: Settings, prepare: Callable[[Path, int], "Command"]) -> None:
        self.name, self.speaks = speaks.name, speaks
        self.server_public = b""
        self.port = free_port()
        settings.where.mkdir(parents=True, exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=settings.where)).absolute()
        command, environment = prepare(self._directory, self.port)
        with (self._directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*pinned(settings.server_cores), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ) | environment,
                cwd=self._directory,
            )
        self._wait()

    def pids(self) -> list[int]:
        """The process and everything it started."""
        found, todo = [], [self._process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children_of(pid)
        return found

    def stop(self) -> None:
        started = self.pids()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(READY_S)
        except subprocess.TimeoutExpired:
            for pid in started:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._directory)

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.1)
        said = (self._directory / "output").read_text()[-2000:]
        if self._process.poll() is None:
            self.stop()
        raise OSError(f"{self.name} did not start:\n{said}")


Command = tuple[list[str], dict[str, str]]


def mosquitto(settings: Settings) -> Broker:
    """Raises NotInstalled, OSError."""
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        raise NotInstalled("mosquitto is not installed: apt-get install mosquitto")

    def prepare(directory: Path, port: int) -> Command:
        (directory / "mosquitto.conf").write_text(MOSQUITTO.format(port=port))
        return [path, "-c", str(directory / "mosquitto.conf")], {}

    return Broker(Mqtt(), settings, prepare)


def ejabberd(settings: Settings) -> Broker:
    """Raises NotInstalled, OSError."""
    path = shutil.which("erl")
    if path is None or not list(Path(ERLANG_LIBS).glob("ejabberd-*")):
        raise NotInstalled("ejabberd is not installed: apt-get install ejabberd")

    def prepare(directory: Path, port: int) -> Command:
        (directory / "ejabberd.yml").write_text(EJABBERD.format(port=port))
        (directory / "mnesia").mkdir()
        # The options of ejabberdctl, without a node name: then no epmd is started.
        command = [path, "-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir", f'"{directory / "mnesia"}"']
        return [*command, "-s", "ejabberd"], {
            "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
            "ERL_LIBS": ERLANG_LIBS,
            "ERL_CRASH_DUMP": str(directory / "crash"),
            "ERL_MAX_PORTS": "32000",
            "HOME": str(directory),
        }

    return Broker(Xmpp(), settings, prepare)


BROKERS: dict[str, Callable[[Settings], Broker]] = {"ejabberd": ejabberd, "mosquitto": mosquitto}
