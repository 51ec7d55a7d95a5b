import pytest
from services_bench import Bench

from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry


@pytest.fixture(params=["memory", "lmdb"])
def bench(request, tmp_path):
    registry = (
        MemoryRegistry() if request.param == "memory" else LmdbRegistry(tmp_path / "registry", sync=False)
    )
    yield Bench(registry)
    registry.close()
