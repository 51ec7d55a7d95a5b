import pytest
from cold_bench import Bench

from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry


@pytest.fixture
def make_bench():
    benches = []

    def make(registry=None, **more):
        benches.append(Bench(registry if registry is not None else MemoryRegistry(), **more))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture(params=["memory", "lmdb"])
def bench(request, make_bench, tmp_path):
    return make_bench(None if request.param == "memory" else LmdbRegistry(tmp_path / "registry", sync=False))
