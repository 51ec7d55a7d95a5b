from sim._native.memory_store import MemoryMailDisk, MemoryMailStore
from sim._native.net import SimNet
from wa._fastpath.mailbox.contract import MailStoreBase

CONTROLS: tuple[str, ...]

class SimMailStore(MailStoreBase):
    """A MemoryMailStore whose commits take virtual time: each submit wakes `target` when the disk is done.

    control: "none", or the promise that it breaks: "early" says done before the disk has it, "forgetful" deletes
    what is read, "no_dedup" stores an identity again.  sync=False: no fsync.
    """

    latency_ns: int
    jitter_ns: int
    read_errors: int
    """So many reads to come fail."""
    @property
    def inner(self) -> MemoryMailStore: ...
    def __init__(
        self, net: SimNet, target: int, disk: MemoryMailDisk, *, sync: bool = True, control: str = "none"
    ) -> None: ...
    def step(self) -> int: ...
    def kill(self) -> None: ...
    def power_loss(self) -> None: ...
