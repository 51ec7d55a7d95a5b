"""A supervisor over small workers, run by test_supervisor.py as a process:  supervised.py <behaviour> <log>"""

import gc
import signal
import sys

from wa import limits
from wa.errors import LocalError
from wa.log import Log
from wa.runtime.helpers import Helper
from wa.runtime.supervisor import GO, STARTED, Supervisor


def serve(worker, channel):
    """Serves until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    channel.setblocking(True)
    channel.send(STARTED)
    assert channel.recv(len(GO)) == GO
    channel.send(b'{"connections": 3}')
    signal.sigwait({signal.SIGTERM})


def frozen(worker, channel):
    """Serves when what it was forked with is out of the collector's reach."""
    assert gc.get_freeze_count() > len(gc.get_objects())
    serve(worker, channel)


def deaf(worker, channel):
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.setblocking(True)
    channel.send(STARTED)
    assert channel.recv(len(GO)) == GO
    channel.send(b"{}")
    while True:
        signal.pause()


def late(worker, channel):
    """Never says that it started."""
    signal.pause()


def help_out(channel):
    """A helper that serves until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    channel.send(b'{"push_sent": 5}')
    signal.sigwait({signal.SIGTERM})


def fail(channel):
    raise ValueError("no help")


def linger_on(channel):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.send(b"{}")
    while True:
        signal.pause()


HELPERS = {"helped": help_out, "unhelped": fail, "deaf_help": linger_on}


def helped(worker, channel):
    """Stops later than a helper would be started again."""
    serve(worker, channel)
    signal.sigtimedwait([], 0.05)


unhelped = deaf_help = serve


def broken(worker, channel):
    if worker == 1:
        raise ValueError("number +15551230001 is not for logs")
    serve(worker, channel)


def main():
    behaviour, log_path = sys.argv[1:]
    limits.STOP_MS_MAX = 200
    limits.START_MS_MAX = 30_000 if behaviour != "late" else 200
    limits.HELPER_PAUSE_MS_MIN = 1
    limits.HELPER_PAUSE_MS_MAX = 4
    helpers = [Helper("push", HELPERS[behaviour])] if behaviour in HELPERS else []

    def on_ready():
        print("ready", *(child.pid for child in supervisor.children.values()), flush=True)

    with open(log_path, "w", encoding="utf-8") as stream:
        supervisor = Supervisor(
            2, globals()[behaviour], helpers=helpers, on_ready=on_ready, log=Log("supervisor", stream=stream)
        )
        try:
            supervisor.run()
        except LocalError as error:
            print(error)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
