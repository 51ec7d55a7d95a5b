"""The story of one message, in order of time: what its sender, its recipients and the server's trace recorded."""

from pathlib import Path

from faults.history import Device, History, Row
from wa.client.events import State
from wa.errors import LocalError
from wa.runtime.trace import Step, steps

Line = tuple[int, str]  # Unix microseconds, 0 for what has no time


def story(history: History, token: str, ring_dirs: list[Path]) -> list[str]:
    """Lines for people; of the message's text only the token."""
    found = _written(history, token)
    if found is None:
        return [f"  no client wrote {token!r}"]
    sender, message = found
    envelopes = [envelope for envelope in sender.envelopes if envelope.message == message.row]
    head = [f"  {token} is message {message.id:x} of {sender.name}, {len(message.text)} characters to {message.peer}"]
    for envelope in envelopes:
        state = envelope.state.name.lower()
        name = _name(history, envelope.recipient)
        head.append(f"    envelope {envelope.seq}, id {envelope.id:x}, to {name}: {state} {envelope.reason or ''}")
    for device in history.devices.values():
        head += [f"    {device.name} has it in row {row.row}" for row in device.shown_by_token.get(token, ())]
    lines = [_step(step, history) for step in traced(ring_dirs, {envelope.id for envelope in envelopes})]
    lines += [line for device in history.devices.values() for line in _told(device, sender, message)]
    return head + [f"    {at_us / 1e6:.6f} {text}" for at_us, text in sorted(lines)]


def _name(history: History, address: int) -> str:
    device = history.devices.get(address)
    return device.name if device is not None else f"{address:x}"


def _written(history: History, token: str) -> tuple[Device, Row] | None:
    for device in history.devices.values():
        for row in device.sent.values():
            if row.token == token:
                return device, row
    return None


def _told(device: Device, sender: Device, message: Row) -> list[Line]:
    """What the device was told of the message, and around it: its lives and connections."""
    about = [
        told
        for told in device.told
        if told.fields.get("token") == message.token
        or (device is sender and told.what == "receipt" and told.fields["id"] == message.id)
    ]
    if not about:
        return []
    begin, end = about[0].at_us - 3_000_000, about[-1].at_us + 500_000
    lines = []
    for told in device.told:
        if told in about:
            what = told.what if told.what != "receipt" else State(told.fields["state"]).name.lower()
            lines.append((told.at_us, f"{device.name} was told {what}"))
        elif told.what in ("born", "connected", "disconnected") and begin < told.at_us < end:
            lines.append((told.at_us, f"{device.name} {told.what} {told.fields}"))
    return lines


def traced(ring_dirs: list[Path], ids: set[int]) -> list[Step]:
    """The recorded stages of these envelopes, over all lives of the workers."""
    found: dict[tuple[int, int, str, int, int], Step] = {}  # a ring is kept under several names, read at several times
    for directory in ring_dirs:
        try:
            of_directory = [step for id_ in ids for step in steps(directory, id_)]
        except LocalError:
            continue  # nothing was traced there
        for step in of_directory:
            found.setdefault((step.worker, step.serial, step.stage, step.sender, step.recipient), step)
    return sorted(found.values())


def _step(step: Step, history: History) -> Line:
    detail = f" ({step.detail})" if step.detail else ""
    return step.time_us, f"worker {step.worker}: {step.stage}{detail}, for {_name(history, step.recipient)}"
