"""What can go wrong end to end, one class per cause, so that a client can act on it.

These errors have no `Code`: the server cannot read messages, so none of them crosses the wire.  An `E2EError` comes
from the peer, from the server that delivered the bytes, or from the state of the two devices.  Misuse by our own side
is `wa.errors.LocalError`.
"""

from wa.errors import LocalError


class E2EError(Exception):
    """Base of every end-to-end error that is not our own misuse."""


class InvalidMessage(E2EError):
    """The body is malformed or does not authenticate.  Nothing was changed."""


class InvalidKey(InvalidMessage):
    """A public key is not canonical, of low order, or not on the curve."""


class TooManySkipped(InvalidMessage):
    """The message lies further ahead in its chain than `limits.RATCHET_SKIP_MAX`."""


class DuplicateMessage(E2EError):
    """This message was decrypted before, or is so late that its key was discarded by count or age.

    Only its header says so, and that does not prove who sent the bytes: drop them.
    """


class NoSession(E2EError):
    """There is no session with this peer: fetch its prekey bundle and start one."""


class InvalidBundle(E2EError):
    """A prekey bundle whose signature does not verify, or whose keys are refused."""


class UnknownPreKey(E2EError):
    """An initial message names a prekey that this device no longer has (used, retired or lost)."""


class ReplayedBaseKey(E2EError):
    """An initial message without one-time prekey repeats the base key of an earlier one."""


class IdentityChanged(E2EError):
    """The peer presents another identity key than the trusted one.

    Show both safety numbers to the user, then call `Sessions.acknowledge_identity(peer)`; until then nothing
    is encrypted to the peer and nothing of it is decrypted.
    """

    def __init__(self, peer: int, trusted: bytes, presented: bytes) -> None:
        self.peer = peer
        self.trusted = trusted
        self.presented = presented
        super().__init__("the identity key of the peer changed and is not acknowledged yet")


class InvalidState(E2EError):
    """A stored record is damaged, of an unknown version, or was wrapped under another key."""


class WrongPassphrase(E2EError):
    """The passphrase does not open this store."""


class NoIdentity(LocalError):
    """`Sessions.create_identity()` has not been called on this store."""
