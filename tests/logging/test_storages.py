# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage and Azure Blob Storage keep the same promises as the other storages."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import pytest
from store_contract import LOG, StoreContract

from tradewind.logging.exceptions import StorageError
from tradewind.logging.store import Store, open_store

# A supervisor that has recorded a log forks, and what it forks records another one, as prefork workers do.
FORKING = """
import json, os, sys, structlog
from pathlib import Path
from tradewind.logging.config import LogSettings
from tradewind.logging.remote import TradewindRemoteLogIO
base = Path(sys.argv[2])
options = json.loads(sys.argv[3])
io = TradewindRemoteLogIO(LogSettings(remote_base=sys.argv[1], local_base=base, storage_options=options))
def record(log):
    path = base / log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        last = lambda _logger, _name, event: json.dumps(event).encode()
        structlog.wrap_logger(structlog.BytesLogger(file), processors=[*io.processors, last]).info(log)
        io.upload(log)
    return path.stat().st_size
left = record("dag_id=a/attempt=1.log")
child = os.fork()
if not child:
    os._exit(3 if record("dag_id=a/attempt=2.log") else 0)
_, status = os.waitpid(child, 0)
left += record("dag_id=a/attempt=3.log")
print(left, os.waitstatus_to_exitcode(status), flush=True)
"""


class CloudContract(StoreContract):
    """What matters only where an upload has several requests, and threads."""

    @pytest.fixture
    def store(self, url, options) -> Store:
        return open_store(url, options)

    def test_a_forked_process_records_its_own_log(self, store, tmp_path, url, options):
        command = [sys.executable, "-c", FORKING, url, str(tmp_path / "local"), json.dumps(options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout == "0 0\n", done.stderr[-3000:]
        assert sorted(store.list("dag_id=a/")) == [f"dag_id=a/attempt={n}.log" for n in (1, 2, 3)]

    def test_a_large_upload_takes_bounded_memory(self, store, tmp_path):
        file = tmp_path / "local.log"
        file.write_bytes(bytes(48 << 20))
        store.put(LOG, b"warm")
        tracemalloc.start()
        try:
            store.put_file(LOG, file)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert store.list(LOG) == {LOG: 48 << 20}
        assert peak < 32 << 20

    def test_a_missing_bucket_is_a_storage_error(self, store, tmp_path):
        file = tmp_path / "local.log"
        file.write_bytes(b"text")
        gone = Store(store.filesystem, "no-such-bucket-here/logs", store.backend)
        for work in (lambda: gone.create(LOG, b"1"), lambda: gone.put(LOG, b"1"), lambda: gone.put_file(LOG, file)):
            with pytest.raises(StorageError, match=r"attempt=1\.log"):
                work()


@pytest.mark.cloud
class TestGoogle(CloudContract):
    """Google Cloud Storage."""

    @pytest.fixture
    def url(self, gcs_bucket) -> str:
        return f"gs://{gcs_bucket}/logs"

    @pytest.fixture
    def options(self, gcs) -> dict[str, str]:
        return {"token": "anon", "endpoint_url": gcs.url}


@pytest.mark.azurite
class TestAzure(CloudContract):
    """Azure Blob Storage."""

    @pytest.fixture
    def url(self, azure_container) -> str:
        return f"abfs://{azure_container}/logs"

    @pytest.fixture
    def options(self, azurite) -> dict[str, str]:
        return {"connection_string": azurite.connection_string}
