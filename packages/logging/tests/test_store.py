# SPDX-License-Identifier: Apache-2.0
"""The same promises on every storage: memory, a folder, and S3 as a real local server."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tradewind.logging.exceptions import LogSettingsError, StorageError
from tradewind.logging.store import Store, open_store

LOG = "dag_id=a/run_id=b/attempt=1.log"
SECRET = "Sup3rS3cretValue"  # noqa: S105 - of a local server


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)
        else:
            return


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class S3:
    """A local S3 server with a new bucket."""

    def __init__(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port)
        self.bucket = f"logs-{secrets.token_hex(4)}"
        import boto3

        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **self.credentials)
        self.client.create_bucket(Bucket=self.bucket)

    credentials = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET}  # noqa: RUF012 - constant

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, object]:
        region = {"region_name": "us-east-1"}
        config = {"retries": {"max_attempts": 1}, "connect_timeout": 2, "read_timeout": 5}
        return {
            "key": "key",
            "secret": SECRET,
            "endpoint_url": self.url,
            "client_kwargs": region,
            "config_kwargs": config,
        }

    def store(self) -> Store:
        return open_store(f"s3://{self.bucket}/{secrets.token_hex(4)}", {**self.options, "skip_instance_cache": True})

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def s3():
    server = S3()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def store(request, tmp_path) -> Store:
    if request.param == "memory":
        return open_store(f"memory://{secrets.token_hex(4)}/logs")
    if request.param == "file":
        return open_store(f"file://{tmp_path}/remote")
    found: Store = request.getfixturevalue("s3").store()
    return found


def test_creating_an_object_that_exists_changes_nothing(store):
    assert store.create(LOG, b"first")
    assert not store.create(LOG, b"second")
    assert store.read(LOG) == b"first"


def test_one_of_many_creators_wins(store):
    start = threading.Barrier(6)
    winners = []

    def create(number: int) -> None:
        start.wait()
        if store.create(LOG, b"%d" % number):
            winners.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.read(LOG) == b"%d" % winners[0]
    assert store.list(LOG) == {LOG: 1}


def test_put_replaces_the_whole_object(store):
    store.put(LOG, b"a longer first text")
    store.put(LOG, b"short")
    assert store.read(LOG) == b"short"
    assert store.list(LOG) == {LOG: 5}


def test_a_reader_never_sees_a_half_written_object(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    texts = [bytes([65 + i]) * 300_000 for i in range(2)]
    store.put(LOG, texts[0])
    over = threading.Event()

    def write() -> None:
        for number in range(100):
            store.put(LOG, texts[number % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert store.read(LOG) in texts
    writer.join()


def test_put_file_takes_the_bytes_between_start_and_end(store, tmp_path):
    file = tmp_path / "local.log"
    file.write_bytes(b"0123456789")
    for start, end, expected in ((0, None, b"0123456789"), (3, 7, b"3456"), (8, None, b"89"), (0, 99, b"0123456789")):
        store.put_file(LOG, file, start, end)
        assert store.read(LOG) == expected


def test_put_file_sends_a_file_of_many_blocks_and_tells_its_progress(store, tmp_path):
    file = tmp_path / "local.log"
    block = os.urandom(1 << 20)
    file.write_bytes(block * 18)
    told: list[int] = []
    store.put_file(LOG, file, 5, (18 << 20) - 5, progress=told.append)
    assert store.list(LOG) == {LOG: (18 << 20) - 10}
    assert store.read(LOG, (9 << 20) - 5, 1 << 20) == block
    assert told == sorted(told)
    assert told[-1] == (18 << 20) - 10


def test_a_source_that_is_missing_leaves_the_old_object(store, tmp_path):
    store.put(LOG, b"old")
    with pytest.raises(StorageError):
        store.put_file(LOG, tmp_path / "gone.log")
    assert store.read(LOG) == b"old"


@pytest.mark.parametrize("blocks", [0, 2])
def test_a_source_that_fails_midway_leaves_the_old_object(store, tmp_path, blocks):
    store.put(LOG, b"old")
    file = tmp_path / "local.log"
    file.write_bytes(bytes(18 << 20))

    def refuse(done: int) -> None:
        if done > blocks * (8 << 20):
            raise OSError(5, "the disk is broken")

    with pytest.raises(StorageError):
        store.put_file(LOG, file, progress=refuse)
    assert store.read(LOG) == b"old"
    assert store.list(f"{LOG}") == {LOG: 3}


def test_an_interrupted_put_file_stays_an_interrupt_and_leaves_the_old_object(store, tmp_path):
    store.put(LOG, b"old")
    file = tmp_path / "local.log"
    file.write_bytes(bytes(9 << 20))

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_file(LOG, file, progress=interrupt)
    assert store.read(LOG) == b"old"


def test_a_list_has_the_objects_of_the_prefix_and_no_others(store):
    keys = [LOG, f"{LOG}.part.000000000000005", f"{LOG}.1700000000000-ab.log"]
    others = [
        "dag_id=a/run_id=b/attempt=10.log",
        "dag_id=a/run_id=b/attempt=2.log",
        f"{LOG}.d/x.log",
        "dag_id=a/run_id=bb/attempt=1.log",
    ]
    for key in keys + others:
        store.put(key, b"12345")
    assert store.list(LOG) == dict.fromkeys(keys, 5)
    assert store.list("dag_id=a/run_id=b/attempt=3") == {}
    assert store.list("dag_id=nothing/attempt=1.log") == {}


def test_a_walk_has_every_object_with_size_and_time(store):
    before = time.time() - 5
    for key in (LOG, "dag_id=c/attempt=1.log", "top.log"):
        store.put(key, key.encode())
    found = list(store.walk())
    assert {entry.key: entry.size for entry in found} == {
        key: len(key) for key in (LOG, "dag_id=c/attempt=1.log", "top.log")
    }
    assert all(before < entry.modified < time.time() + 5 for entry in found)
    assert [entry.key for entry in store.walk("dag_id=c")] == ["dag_id=c/attempt=1.log"]
    assert list(store.walk("dag_id=nothing")) == []


def test_a_range_is_read_without_the_rest(store):
    store.put(LOG, b"0123456789")
    assert store.read(LOG, 3) == b"3456789"
    assert store.read(LOG, 3, 4) == b"3456"
    assert store.read(LOG, 8, 99) == b"89"


def test_an_empty_object_is_read_as_no_bytes(store):
    store.put(LOG, b"")
    assert store.read(LOG) == b""


def test_reading_what_is_not_there_says_so(store):
    store.put(LOG, b"1")
    with pytest.raises(FileNotFoundError):
        store.read("dag_id=a/run_id=b/attempt=7.log")


def test_deleting_twice_is_no_error(store):
    store.put(LOG, b"1")
    store.delete([LOG, LOG, "dag_id=a/run_id=b/never.log"])
    store.delete([LOG])
    assert store.list(LOG) == {}


def test_a_missing_bucket_is_a_storage_error_without_secrets(s3, tmp_path):
    file = tmp_path / "local.log"
    file.write_bytes(b"text")
    store = open_store(f"s3://no-such-{secrets.token_hex(4)}/logs", s3.options)
    for work in (
        lambda: store.create(LOG, b"1"),
        lambda: store.put(LOG, b"1"),
        lambda: store.put_file(LOG, file),
    ):
        with pytest.raises(StorageError) as caught:
            work()
        assert LOG in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_server_that_is_gone_is_a_storage_error_without_secrets(tmp_path):
    file = tmp_path / "local.log"
    file.write_bytes(b"text")
    server = S3()
    store = server.store()
    store.put(LOG, b"1")
    server.client.close()
    server.stop()
    for work in (
        lambda: store.create(LOG, b"1"),
        lambda: store.put_file(LOG, file),
        lambda: store.list(LOG),
        lambda: list(store.walk()),
        lambda: store.read(LOG),
        lambda: store.delete([LOG]),
    ):
        with pytest.raises(StorageError) as caught:
            work()
        assert SECRET not in str(caught.value)
        assert "key" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "remote").write_text("a file where a folder should be")
    store = open_store(f"file://{tmp_path}/remote")
    for work in (lambda: store.create(LOG, b"1"), lambda: store.put(LOG, b"1")):
        with pytest.raises(StorageError, match=r"attempt=1\.log"):
            work()


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    store = open_store(f"file://{tmp_path}/remote")
    assert store.create(LOG, b"1")
    assert not store.create(LOG, b"2")
    with pytest.raises(StorageError):
        store.put_file(LOG, tmp_path / "gone.log")
    assert [entry.key for entry in store.walk()] == [LOG]


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(LogSettingsError, match=r"quatsch.*expected one of .*s3"):
        open_store("quatsch://bucket/logs")


def test_a_missing_package_names_the_extra():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from tradewind.logging.store import open_store\n"
        "from tradewind.logging.exceptions import LogSettingsError\n"
        "try: open_store('s3://bucket/logs', {'secret': sys.argv[1]})\n"
        "except LogSettingsError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, SECRET], capture_output=True, text=True, check=True)
    assert "tradewind-logging[s3]" in done.stdout
    assert SECRET not in done.stdout
