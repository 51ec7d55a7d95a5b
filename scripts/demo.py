"""Two phones talk through a real server that is killed and restarted.

The left column is what people saw, the right one what the server saw.  Exit code 0 only if all of it happened:
registration by code; messages both ways with ✓, ✓✓ and blue ✓✓; five messages to an offline phone; `kill -9` of every
worker and the supervisor; a restart; the mailbox drained, nothing lost, nothing doubled.  Each person is a process, and
so are the supervisor and its two workers.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from wa._fastpath.mailbox.store import LmdbMailStore
from wa.errors import LocalError
from wa.ids import format_number, is_device_address, number_of
from wa.runtime.operator_socket import NAME, ask
from wa.wire.methods import PRIORITY, Kind

WAIT_S = 20.0
ALICE, BOB = "+15551230001", "+15551230002"
ROOT = Path(__file__).parent.parent
TICKS = {
    "pending": ("…", "dim"),
    "accepted": ("✓", "dim"),
    "delivered": ("✓✓", "dim"),
    "read": ("✓✓", "bold blue"),
    "failed": ("✗", "bold red"),
}
console = Console(highlight=False, width=max(120, min(Console().width, 150)))


class Failed(Exception):
    """The demo did not do what it promises."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def print_row(person: Text | str, server: Text | str) -> None:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(person, server)
    console.print(table)


class Server:
    """`wa serve` with two workers on loopback."""

    def __init__(self, base: Path) -> None:
        self.data_dir = base / "server"
        self.codes = base / "codes"
        self.log = base / "server.log"
        self.port = free_port()
        self.root_key = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "wa.cli.main", "serve", "--data-dir", str(self.data_dir)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--workers", "2", "--code-transport", f"file:{self.codes}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.data_dir.parent)
        self.wait(lambda: bool(self.workers()), "the server did not get ready")
        self.root_key = (self.data_dir / "keys" / "root.pub").read_text().strip()

    def workers(self) -> list[int]:
        """Process ids, once all of them serve."""
        try:
            status = ask(self.data_dir / "run" / NAME, "status")
        except LocalError as error:
            if self.process is not None and self.process.poll() is not None:
                raise Failed("the server ended") from error
            return []
        return [worker["pid"] for worker in status["workers"]] if status["ready"] else []

    def wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise Failed(otherwise)
            time.sleep(0.05)

    def code_for(self, number: str) -> str:
        lines = self.codes.read_text().splitlines() if self.codes.exists() else []
        return next(line.split()[1] for line in reversed(lines) if line.startswith(number))

    def kill_everything(self) -> list[int]:
        """kill -9 of both workers and the supervisor.  The process ids, all gone."""
        assert self.process is not None
        pids = [*self.workers(), self.process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(WAIT_S)
        self.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "a worker outlived kill -9")
        return pids

    def mailboxes(self) -> list[Any]:
        """All stored envelopes, read from the dead server's disk."""
        rows = []
        for path in sorted(self.data_dir.glob("g*/w*/mail")):
            store = LmdbMailStore(path)
            for recipient in sorted({key[0] for key in store.census()}):
                assert is_device_address(recipient)
                for priority in sorted({PRIORITY[kind] for kind in Kind}, reverse=True):
                    rows += store.read(recipient, priority)
            store.close()
        return rows

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(WAIT_S)


class Person:
    """A client process."""

    def __init__(self, name: str, number: str, base: Path, transcript: "Transcript") -> None:
        self.name, self.number = name, number
        self.directory = base / name.lower()
        self.transcript = transcript
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.messages: list[tuple[int, str]] = []
        self.states: dict[int, list[str]] = {}
        self.texts: dict[int, str] = {}
        self.process: subprocess.Popen[str] | None = None
        self.last: dict[str, Any] = {}

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "scripts" / "demo_person.py"), str(self.directory)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = process
        threading.Thread(target=self.listen, args=(process,), daemon=True).start()

    def listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.events.put(json.loads(line))

    def do(self, what: str, **fields: str) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what} | fields) + "\n")
        self.process.stdin.flush()

    def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            try:
                event = self.events.get(timeout=0.05)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise Failed(f"{self.name}: {otherwise}") from None
                if self.process is not None and self.process.poll() not in (None, -signal.SIGKILL):
                    raise Failed(f"{self.name}'s process ended with {self.process.poll()}") from None
                continue
            self.take(event)

    def take(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "message":
            self.messages.append((event["id"], event["text"]))
        elif kind == "receipt":
            self.states.setdefault(event["id"], []).append(event["state"])
        elif kind == "written":
            self.texts[event["id"]] = event["text"]
        self.transcript.show(self, event)
        self.last = event

    def expect(self, **wanted: str) -> None:
        self.last = {}

        def came() -> bool:
            return all(self.last.get(key) == value for key, value in wanted.items())

        self.until(came, f"{wanted} did not come within {WAIT_S:g} s")

    def register(self, server: Server) -> None:
        endpoint = f"127.0.0.1:{server.port}"
        self.do("register", number=self.number, server=endpoint, root_key=server.root_key)
        self.expect(need="code")
        code = server.code_for(self.number)
        print_row(f"{self.name} registers {self.number} and types the code {code}", "stores a salted hash of the code")
        self.do("code", code=code)
        self.expect(event="registered")

    def online(self) -> None:
        self.do("start")
        self.expect(event="connected")

    def send(self, to: "Person", text: str) -> None:
        self.do("send", to=to.number, text=text)
        self.expect(event="written")

    def id_of(self, text: str) -> int:
        return next(id_ for id_, known in self.texts.items() if known == text)

    def reached(self, text: str, state: str) -> None:
        id_ = self.id_of(text)
        self.until(lambda: state in self.states.get(id_, []), f"{text!r} never became {state}")

    def got(self, n: int) -> None:
        self.until(lambda: len(self.messages) >= n, f"{len(self.messages)} of {n} messages arrived")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(WAIT_S)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.do("stop")
            self.process.wait(WAIT_S)


class Transcript:
    """Two columns: what people saw, and what the server saw."""

    def show(self, person: Person, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "sealed":
            body = bytes.fromhex(event["ciphertext"])
            print_row("", Text(f"envelope {event['id']:x} for {event['to']}, {opaque(body)}", style="yellow"))
        elif kind == "written":
            print_row(Text(f"{person.name} writes: {event['text']}", style="bold"), "")
        elif kind == "message":
            print_row(Text(f"{'':14}{person.name} reads: {event['text']}", style="green"), "")
        elif kind == "receipt":
            tick, style = TICKS[event["state"]]
            text = Text(f"{person.name}'s “{person.texts[event['id']]}” ")
            text.append(tick, style=style)
            print_row(text, Text(f"receipt {event['state']} for {event['id']:x}", style="dim"))
        elif kind == "connected":
            waiting = f", {event['queued']} waiting" if event["queued"] else ""
            print_row(Text(f"{person.name} is connected{waiting}", style="cyan"), "")
        elif kind == "disconnected" and person.last.get("event") != "disconnected":
            print_row(Text(f"{person.name} lost the connection and reconnects", style="red"), "")


def opaque(body: bytes) -> str:
    """Size and last bytes; the first ones, version and ratchet key, look alike for a while."""
    return f"{len(body)} bytes …{body[-12:].hex()}"


def chapter(title: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{title}", align="left"))


def chat(alice: Person, bob: Person) -> None:
    for writer, reader, text in (
        (alice, bob, "Hi Bob! Are you there?"),
        (bob, alice, "Here I am. Nobody in between can read this."),
        (alice, bob, "Not even the server. Off to the mountains?"),
    ):
        before = len(reader.messages)
        writer.send(reader, text)
        reader.got(before + 1)
        writer.reached(text, "delivered")
        reader.do("read", **{"from": writer.number})
        writer.reached(text, "read")


def show_disk(server: Server, texts: list[str], n: int) -> None:
    rows = server.mailboxes()
    for row in rows:
        line = f"{Kind(row.kind).name.lower()} {format_number(number_of(row.sender))} → "
        line += f"{format_number(number_of(row.recipient))}, envelope {row.id:x}, {opaque(row.body)}"
        print_row("", Text(line, style="yellow"))
    if len(rows) != n:
        raise Failed(f"the dead server's disk has {len(rows)} envelopes instead of {n}")
    for path in server.data_dir.rglob("*"):
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts):
            raise Failed(f"{path} has a message in the clear")
    print_row("", f"none of the {len(texts)} messages is readable in any file of the server")


def play(base: Path) -> None:
    transcript = Transcript()
    server = Server(base)
    alice, bob = Person("Alice", ALICE, base, transcript), Person("Bob", BOB, base, transcript)
    people = (alice, bob)
    console.print()
    print_row(Text("What people saw", style="bold underline"), Text("What the server saw", style="bold underline"))
    try:
        chapter("A server with two workers; two numbers register")
        server.start()
        print_row("", f"ready on 127.0.0.1:{server.port}, workers {server.workers()}")
        for person in people:
            person.start()
            person.register(server)
        chapter("They talk: ✓ the server has it safe, ✓✓ the phone has it, blue ✓✓ it was read")
        for person in people:
            person.online()
        chat(alice, bob)
        chapter("Bob's phone dies (kill -9); Alice keeps writing")
        bob.kill()
        notes = [f"Note {i} for when you are back" for i in range(1, 6)]
        for note in notes:
            alice.send(bob, note)
        for note in notes:
            alice.reached(note, "accepted")
        chapter("kill -9 of both workers and the supervisor; the dead server's disk has this")
        print_row("", f"killed {server.kill_everything()}")
        show_disk(server, [*notes, *alice.texts.values(), *bob.texts.values()], len(notes))
        chapter("The server starts again; Bob's phone comes back")
        server.start()
        print_row("", f"ready again, workers {server.workers()}")
        before = len(bob.messages)
        bob.start()
        bob.online()
        bob.got(before + len(notes))
        for note in notes:
            alice.reached(note, "delivered")
        bob.do("read", **{"from": ALICE})
        for note in notes:
            alice.reached(note, "read")
        chapter("The result")
        settle(server, people, [text for _, text in bob.messages[before:]], notes)
    finally:
        for person in people:
            person.stop()
        server.stop()


def settle(server: Server, people: tuple[Person, Person], drained: list[str], notes: list[str]) -> None:
    alice, bob = people
    if drained != notes:
        raise Failed(f"Bob got {drained} instead of {notes}")
    for writer, reader in ((alice, bob), (bob, alice)):
        if [text for _, text in reader.messages] != list(writer.texts.values()):
            raise Failed(f"{reader.name} got {reader.messages}, {writer.name} wrote {writer.texts}")
        order = list(TICKS)
        for id_, states in writer.states.items():
            if states != sorted(states, key=order.index) or states[-1] != "read":
                raise Failed(f"the ticks of {writer.texts[id_]!r} went {states}")
    for person in people:
        person.stop()
    server.stop()
    left = len(server.mailboxes())
    if left:
        raise Failed(f"the server still has {left} envelopes after their delivery")
    sent = sum(len(person.texts) for person in people)
    print_row(f"{sent} messages written, {sent} read, none lost, none doubled", "its mailboxes are empty")


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wa-demo-") as base:
        try:
            play(Path(base))
        except Failed as failure:
            console.print(f"\n[bold red]The demo failed:[/] {failure}")
            log = Path(base) / "server.log"
            if log.exists():
                console.print(f"The server's log ends with:\n{log.read_text()[-3000:]}", markup=False)
            return 1
    console.print(f"\n[bold green]All of it happened[/], in {time.monotonic() - started:.1f} s. Next: make run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
