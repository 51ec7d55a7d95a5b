"""The devices, their keys and the message streams of one run, made before anything is forked."""

from bench.addresses import Devices, key_pool
from bench.streams import Streams


class Crowd:
    """devices: how many are registered; workers: of the server; streams: how many the scenario will take."""

    def __init__(self, *, devices: int, workers: int, streams: int) -> None:
        self.pool = key_pool()
        self.devices = Devices(devices, workers)
        self.streams = Streams(streams)
