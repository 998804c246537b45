# SPDX-License-Identifier: Apache-2.0
"""The same promises on every storage: memory, a folder, and S3 as a real local server."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading

import pytest
from store_contract import LOG, StoreContract

from tradewind.logging.exceptions import LogSettingsError, StorageError
from tradewind.logging.store import open_store

SECRET = "Sup3rS3cretValue"  # noqa: S105 - of nobody


class TestStore(StoreContract):
    """Memory, a folder and S3."""


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
        assert s3.secret not in str(caught.value)


def test_a_server_that_is_gone_is_a_storage_error_without_secrets(own_s3, tmp_path):
    file = tmp_path / "local.log"
    file.write_bytes(b"text")
    store = own_s3.store()
    store.put(LOG, b"1")
    own_s3.stop()
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
        assert own_s3.secret not in str(caught.value)
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
