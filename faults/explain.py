"""The story of one message: what its sender, its recipients and (where it traced) the server recorded of it."""

from pathlib import Path

from faults.history import Device, History, Row
from wa.client.events import State
from wa.errors import LocalError
from wa.runtime.trace import Step, steps


def story(history: History, token: str, ring_dirs: list[Path]) -> list[str]:
    """Lines for people; no text of the message beyond its token."""
    found = _written(history, token)
    if found is None:
        return [f"  nobody wrote {token!r}"]
    sender, message = found
    lines = [f"  {token} is message {message.id:x} of {sender.name}, {len(message.text)} characters to {message.peer}"]
    for envelope in sender.envelopes:
        if envelope.message == message.row:
            to = history.devices.get(envelope.recipient)
            name = to.name if to is not None else f"{envelope.recipient:x}"
            state = envelope.state.name.lower()
            lines.append(f"  envelope {envelope.seq} id {envelope.id:x} to {name}: {state} {envelope.reason or ''}")
    lines += [f"  {sender.name}'s life {life} was told {state.name.lower()}" for life, state in _told(sender, message)]
    for device in history.devices.values():
        lines += [f"  {device.name} has it in row {row.row}" for row in device.shown_by_token.get(token, ())]
        for told in device.told:
            if told.fields.get("token") == token:
                lines.append(f"  {device.name}'s life {told.life} was given it ({told.what}, entry {told.at})")
    ids = {envelope.id for envelope in sender.envelopes if envelope.message == message.row}
    lines += [_step(step, history) for step in traced(ring_dirs, ids)]
    return lines


def _written(history: History, token: str) -> tuple[Device, Row] | None:
    for device in history.devices.values():
        for row in device.sent.values():
            if row.token == token:
                return device, row
    return None


def _told(sender: Device, message: Row) -> list[tuple[int, State]]:
    return list(sender.told_states.get(message.id, ()))


def traced(ring_dirs: list[Path], ids: set[int]) -> list[Step]:
    """The recorded stages of these envelopes, over all lives of the workers."""
    found: list[Step] = []
    for directory in ring_dirs:
        try:
            for id_ in ids:
                found += steps(directory, id_)
        except LocalError:
            continue  # that life was not traced
    return sorted(found)


def _step(step: Step, history: History) -> str:
    to = history.devices.get(step.recipient)
    where = to.name if to is not None else f"{step.recipient:x}"
    return f"  {step.time_us / 1e6:.6f} worker {step.worker}, for {where}: {step.stage} {step.detail}"
