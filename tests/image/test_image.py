# SPDX-License-Identifier: Apache-2.0
"""The built image, run as users run it: `hatch run image:build`, then `hatch run image:test`."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "image"
RELEASE = tomllib.loads((IMAGE / "releases.toml").read_text())["release"][0]
COMPONENTS = tomllib.loads((IMAGE / "components.toml").read_text())
DEFAULT = f"localhost/tradewind-runtime:{RELEASE['version']}"
BASE = f"{DEFAULT}-base"

PODMAN = ("podman", "--storage-driver", "overlay", "--runtime", "runc", "--cgroup-manager", "cgroupfs")
RUN = (*PODMAN, "run", "--rm", "--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345:0", "--tmpfs", "/tmp"),  # noqa: S108 - a path in the container
)
BUILDAH_ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": os.environ.get("BUILDAH_ISOLATION", "chroot")}


def call(*command: str, timeout: float = 120, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program; its error output goes where pytest shows it."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**BUILDAH_ENVIRONMENT, **({"PATH": path} if path else {})},
    )
    sys.stderr.write(done.stderr)
    return done


def run(*arguments: str, image: str = DEFAULT, options: tuple[str, ...] = (), timeout: float = 120) -> str:
    """Run a container to its end and give its standard output."""
    done = call(*RUN, *options, image, *arguments, timeout=timeout)
    assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    for tool in ("buildah", "podman", "runc"):
        assert shutil.which(tool), f"{tool} is missing: apt-get install {tool}"
    for name in (BASE, DEFAULT):
        known = call("buildah", "inspect", "--type", "image", name).returncode == 0
        assert known, f"{name} is missing: hatch run image:build"


@pytest.fixture
def state(tmp_path: Path) -> tuple[str, ...]:
    """Options that give a container a writable folder which any user ID of group 0 may use."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o777)
    return (
        *("--volume", f"{folder}:/state"),
        *("--env", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:////state/airflow.db"),
        *("--env", "AIRFLOW__LOGGING__BASE_LOG_FOLDER=/state/logs"),
        *("--env", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=/state/passwords.json"),
    )


@pytest.mark.parametrize("image", [DEFAULT, BASE])
def test_airflow_tells_the_version_that_the_release_names(image: str) -> None:
    assert run("airflow", "version", image=image).strip() == RELEASE["airflow"] == "3.3.2"


def test_an_airflow_command_needs_no_airflow_before_it() -> None:
    assert run("version").strip() == RELEASE["airflow"]


def test_a_plain_command_runs_as_it_is() -> None:
    assert run("sh", "-c", 'echo "$1" && id -u', "sh", "a  b") == "a  b\n50000\n"


def test_tini_is_the_first_process() -> None:
    assert run("cat", "/proc/1/comm") == "tini\n"


def test_an_exit_code_reaches_the_caller() -> None:
    assert call(*RUN, DEFAULT, "sh", "-c", "exit 17").returncode == 17


def test_no_command_shows_how_airflow_is_used() -> None:
    done = call(*RUN, DEFAULT)
    assert done.returncode == 2
    assert "GROUP_OR_COMMAND" in done.stdout + done.stderr


def test_an_unknown_word_is_refused_with_the_list_of_commands() -> None:
    done = call(*RUN, DEFAULT, "nosuch")
    assert done.returncode == 2
    assert "dag-processor" in done.stdout + done.stderr


def test_a_hardened_container_migrates_the_database_and_serves_the_api(state: tuple[str, ...], tmp_path: Path) -> None:
    run("db", "migrate", options=(*HARDENED, *state))
    assert (tmp_path / "state" / "airflow.db").stat().st_size > 100_000

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"tradewind-test-{uuid.uuid4().hex[:12]}"
    log = tmp_path / "api-server.log"
    command = (*RUN, "--name", name, *HARDENED, *state, DEFAULT, "api-server", "--host", "127.0.0.1")
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
    try:
        health = wait_for_json(f"http://127.0.0.1:{port}/api/v2/monitor/health", server, log)
        assert health["metadatabase"] == {"status": "healthy"}
        version = wait_for_json(f"http://127.0.0.1:{port}/api/v2/version", server, log)
        assert version["version"] == RELEASE["airflow"]
        assert call(*PODMAN, "kill", "--signal", "TERM", name).returncode == 0
        assert server.wait(timeout=10) == 0, log.read_text()
    finally:
        call(*PODMAN, "rm", "--force", "--ignore", name)
        server.wait(timeout=30)


def wait_for_json(url: str, server: subprocess.Popen[bytes], log: Path) -> dict[str, object]:
    """The answer of a server that is starting."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http on loopback
                found: dict[str, object] = json.load(answer)
                return found
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert server.poll() is None, f"the server has ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"no answer in 120 s:\n{log.read_text()}"
            time.sleep(0.2)


def test_airflow_never_freezes_its_defaults_into_a_configuration_file() -> None:
    show = "airflow version >/dev/null && airflow config list >/dev/null && cat airflow.cfg"
    assert run("sh", "-c", show) == (IMAGE / "airflow.cfg").read_text()
    assert all(line.startswith("#") for line in (IMAGE / "airflow.cfg").read_text().splitlines())


@pytest.mark.parametrize(("image", "variant"), [(DEFAULT, "default"), (BASE, "default-base")])
def test_the_image_tells_what_it_is(image: str, variant: str) -> None:
    told = json.loads(run("cat", "/etc/tradewind/runtime.json", image=image))
    built = told.pop("built")
    python = told.pop("python")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", built)
    assert python.rpartition(".")[0] in RELEASE["python"]
    assert python == run("python", "-c", "import platform; print(platform.python_version())", image=image).strip()
    assert told == {
        "version": RELEASE["version"],
        "airflow": RELEASE["airflow"],
        "debian": RELEASE["debian"],
        "variant": variant,
        "components": COMPONENTS,
    }
    tag = run("printenv", "TRADEWIND_IMAGE_TAG", image=image).strip()
    assert tag == image.rpartition(":")[2]


def test_airflow_finds_every_component() -> None:
    listed = json.loads(run("providers", "list", "--output", "json"))
    found = {row["package_name"]: row["version"] for row in listed}
    assert {name: version for name, version in found.items() if name.startswith("tradewind-")} == COMPONENTS


def test_essential_constraints_pin_airflow_and_every_component() -> None:
    lines = run("cat", "/etc/tradewind/constraints/essential.txt").splitlines()
    assert {f"apache-airflow=={RELEASE['airflow']}", f"apache-airflow-core=={RELEASE['airflow']}"} <= {*lines}
    assert {f"{name}=={version}" for name, version in COMPONENTS.items()} <= {*lines}


def test_the_image_has_no_compiler_no_sudo_and_no_setuid_program() -> None:
    names = "cc c++ gcc g++ clang ld as make sudo doas gosu pip pip3 git wget curl"
    assert run("sh", "-c", f"for n in {names}; do command -v $n; done; true") == ""
    raised = run("find", "/", "-xdev", "-type", "f", "-perm", "/6000", options=("--user", "0:0"))
    assert raised == ""


def test_a_container_cannot_change_the_code_that_it_runs() -> None:
    script = "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' 2>/dev/null; true"
    writable = run("sh", "-c", script, options=("--user", "12345:0", "--cap-drop", "ALL")).split()
    allowed = ("/usr/local/airflow", "/tmp", "/var/tmp", "/run/lock")  # noqa: S108 - paths in the container
    assert any(path == "/usr/local/airflow/logs" for path in writable)
    assert [path for path in writable if not path.startswith(allowed)] == []


def test_all_bytecode_is_there_and_never_compared_with_times() -> None:
    script = """
import importlib.util, pathlib, sys
counted, wrong = 0, []
for folder in sys.argv[1:]:
    for source in pathlib.Path(folder).rglob("*.py"):
        counted += 1
        try:
            head = pathlib.Path(importlib.util.cache_from_source(str(source))).read_bytes()[:16]
        except FileNotFoundError:
            head = b""
        good = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source.read_bytes())
        if head != good:
            wrong.append(str(source))
print(counted, *wrong)
"""
    folders = ("/opt/tradewind/venv", "/usr/lib/python3.13")
    counted, *wrong = run("python", "-c", script, *folders).split()
    assert int(counted) > 5_000
    assert wrong == []


def test_apt_reads_the_release_with_its_updates_and_security_updates() -> None:
    text = run("sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null; true")
    suites = " ".join(re.findall(r"^Suites: (.*)$", text, re.MULTILINE)).split()
    assert sorted(suites) == ["trixie", "trixie-security", "trixie-updates"]
    settings = run("apt-config", "dump")
    assert "Check-Valid-Until" not in settings
    assert "Proxy" not in settings


# --- what the layers hold


@pytest.fixture(scope="session")
def layer_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Iterator[tuple[str, bytes]]]:
    """Gives every file of every layer of an image, files that a later layer hides included."""

    def files(image: str) -> Iterator[tuple[str, bytes]]:
        archive = tmp_path_factory.mktemp("layers") / "image.tar"
        pushed = call("buildah", "push", image, f"docker-archive:{archive}", timeout=300)
        assert pushed.returncode == 0
        with tarfile.open(archive) as outer:
            for layer in outer:
                content = outer.extractfile(layer) if layer.isfile() else None
                if content is None:
                    continue
                if layer.name.endswith(".tar"):
                    with tarfile.open(fileobj=content) as inner:
                        for member in inner:
                            data = inner.extractfile(member) if member.isfile() else None
                            if data is not None:
                                yield member.name, data.read()
                else:
                    yield layer.name, content.read()
        archive.unlink()

    return files


def ca_bundle() -> Path | None:
    """This machine's certificates, as the build finds them."""
    names = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    return next((Path(name) for name in names if name and Path(name).is_file()), None)


def certificates(text: str) -> set[str]:
    """The certificates of a bundle, each as its base64 text without line ends."""
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END", text, re.DOTALL)
    return {"".join(block.split()) for block in blocks}


def build_only_hosts() -> set[str]:
    """Hosts that this machine uses to fetch packages and that are not the finished image's own."""
    texts = [v for k, v in os.environ.items() if re.search(r"(?i)index_url|default_index|_proxy$", k)]
    for file in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
        texts.append(file.read_text() if file.is_file() else "")
    used = set(re.findall(r"[a-z]+://(?:[^/@\s]+@)?([A-Za-z0-9.-]+)", "\n".join(texts)))
    ours = run("sh", "-c", "cat /etc/apt/sources.list.d/*")
    return used - set(re.findall(r"[a-z]+://([A-Za-z0-9.-]+)", ours)) - {"localhost"}


def test_no_layer_holds_what_only_the_build_needed(
    layer_files: Callable[[str], Iterator[tuple[str, bytes]]],
) -> None:
    bundle = ca_bundle()
    own = certificates(run("cat", "/etc/ssl/certs/ca-certificates.crt"))
    published = certificates(run("sh", "-c", "find /opt/tradewind/venv -name '*.pem' -exec cat {} +"))
    assert own
    assert published
    private = certificates(bundle.read_text()) - own - published if bundle else set()
    # The signature at a certificate's end is its own; line ends differ between tools.
    needles = {text[-120:-20].encode() for text in private}
    hosts = {host.encode() for host in build_only_hosts()}
    control = next(iter(own))[-120:-20].encode()
    seen, found, names = set[bytes](), [], []
    for name, data in layer_files(DEFAULT):
        names.append(name)
        if b"CERTIFICATE" in data:
            joined = data.replace(b"\n", b"")
            seen |= {control} if control in joined else set()
            found += [name] if any(needle in joined for needle in needles) else []
        if name.startswith("etc/") and (b"Check-Valid-Until" in data or any(host in data for host in hosts)):
            found.append(name)
    assert len(names) > 10_000
    assert seen == {control}, "the scan must find what is there"
    assert found == []
    left = [n for n in names if n.startswith(("run/secrets/", "build/", "root/.cache/")) or n.endswith("/.netrc")]
    assert left == []


# --- a project of a user's


HELLO = """\
import inflection
from airflow.sdk import dag, task


@dag
def hello():
    @task
    def say():
        return inflection.camelize("a_b")

    say()


hello()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The smallest project: one line of Dockerfile, one Dag."""
    folder = tmp_path / "project"
    (folder / "dags").mkdir(parents=True)
    (folder / "Dockerfile").write_text(f"FROM {DEFAULT}\n")
    (folder / "dags" / "hello.py").write_text(HELLO)
    return folder


@pytest.fixture
def build_project(project: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Builds the project's image under a name of its own, which the test's end removes."""
    names = []

    def build(*options: str) -> subprocess.CompletedProcess[str]:
        names.append(f"localhost/tradewind-test-project:{uuid.uuid4().hex[:12]}")
        command = ["buildah", "bud", "--format", "docker", "--network", "host", "--no-cache", "--force-rm"]
        done = call(*command, "--tag", names[-1], *options, str(project), timeout=300)
        done.args = names[-1]
        return done

    yield build
    for name in names:
        call("buildah", "rmi", "--force", name)


def test_a_project_gets_its_requirements_and_dags_from_one_line(
    project: Path,
    tmp_path: Path,
    build_project: Callable[..., subprocess.CompletedProcess[str]],
    layer_files: Callable[[str], Iterator[tuple[str, bytes]]],
) -> None:
    (project / "packages.txt").write_text("# none yet\n\n")
    (project / "requirements.txt").write_text("inflection==0.5.1\n")
    marker = uuid.uuid4().hex
    bundle = ca_bundle()
    secret = tmp_path / "ca-bundle"
    secret.write_text(f"# {marker}\n{bundle.read_text() if bundle else ''}")
    if bundle is None:
        pytest.fail("no certificates on this machine: apt-get install ca-certificates")
    done = build_project("--secret", f"id=ca-bundle,src={secret}")
    assert done.returncode == 0, done.stdout + done.stderr

    image = str(done.args)
    show = "id -u && airflow db migrate >/dev/null 2>&1 && airflow dags list --local --output json"
    uid, listed = run("sh", "-c", show, image=image).split("\n", 1)
    assert uid == "50000"
    assert "hello" in {row["dag_id"] for row in json.loads(listed.splitlines()[-1])}
    compiled = "/opt/tradewind/venv/lib/python3.13/site-packages/inflection/__pycache__"
    head = run(
        "python",
        "-c",
        f"import pathlib; print(next(pathlib.Path('{compiled}').glob('*.pyc')).read_bytes()[4])",
        image=image,
    )
    assert head == "1\n"
    names, leaked = [], []
    for name, data in layer_files(image):
        names.append(name)
        leaked += [name] if marker.encode() in data else []
    assert "usr/local/airflow/dags/hello.py" in names
    assert leaked == []
    rewritten = [n for n in names if n.endswith("airflow/__pycache__/settings.cpython-313.pyc")]
    assert len(rewritten) == 1, "the project's layer repeats only what it changes"


def test_a_project_needs_neither_requirements_nor_secrets(
    project: Path, build_project: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = build_project()
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("ls", "dags", image=str(done.args)) == "hello.py\n"


def test_a_requirement_that_replaces_airflow_fails_the_build_and_is_named(
    project: Path, build_project: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (project / "requirements.txt").write_text("apache-airflow[celery]<3.3\n")
    bundle = ca_bundle()
    options = ("--secret", f"id=ca-bundle,src={bundle}") if bundle else ()
    done = build_project(*options)
    assert done.returncode != 0
    output = " ".join((done.stdout + done.stderr).split())
    assert "apache-airflow[celery]<3.3" in output
    assert f"apache-airflow=={RELEASE['airflow']}" in output


# --- the command that builds


def build_command(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `hatch run image:build` without hatch."""
    return call(sys.executable, str(IMAGE / "build.py"), *arguments, path=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "huge"), "--variant huge: expected one of default, default-base"),
        (("--python", "3.9"), "--python 3.9: expected one of 3.13"),
    ],
)
def test_the_build_refuses_what_the_release_does_not_offer(arguments: tuple[str, ...], message: str) -> None:
    done = build_command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_build_names_the_package_of_a_missing_tool(tmp_path: Path) -> None:
    (tmp_path / "uv").symlink_to(shutil.which("uv") or "uv")
    done = build_command("--base-image", BASE, "--variant", "default-base", path=str(tmp_path))
    assert done.returncode == 1
    assert "buildah is missing: apt-get install buildah" in done.stderr


def test_the_build_refuses_a_pin_that_is_not_the_components_version(tmp_path: Path) -> None:
    module = tmp_path / "config" / "src" / "tradewind" / "config" / "_version.py"
    module.parent.mkdir(parents=True)
    module.write_text('__version__ = "9.9.9"\n')
    done = build_command("--packages", str(tmp_path))
    assert done.returncode == 1
    assert (
        f"tradewind-config: components.toml says {COMPONENTS['tradewind-config']}, the tree says 9.9.9" in done.stderr
    )
    assert f"tradewind-ui: components.toml says {COMPONENTS['tradewind-ui']}, the tree says nothing" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_leaves_no_container_no_process_and_the_old_image(
    number: signal.Signals, tmp_path: Path
) -> None:
    def listed() -> tuple[str, ...]:
        containers = call("buildah", "containers", "--quiet", "--no-trunc").stdout
        images = call("buildah", "images", "--all", "--quiet", "--no-trunc").stdout
        return (*sorted(containers.split()), *sorted(images.split()))

    before = listed()
    log = tmp_path / "build.log"
    command = [sys.executable, str(IMAGE / "build.py"), "--verbose", "--base-image", BASE]
    with log.open("wb") as output:
        build = subprocess.Popen(command, stdout=output, stderr=output, env=BUILDAH_ENVIRONMENT)
    try:
        deadline = time.monotonic() + 120
        while not re.search(r"STEP \d+/\d+: RUN ", log.read_text()):
            assert build.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        started = children(build.pid)
        assert started
        build.send_signal(number)
        assert build.wait(timeout=20) == 128 + number, log.read_text()
    finally:
        if build.poll() is None:
            build.kill()
            build.wait()
    assert f"Stopped by {number.name}" in log.read_text()
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert listed() == before


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(fields[1]), []).append(int(file.parent.name))
    direct = parents.get(pid, [])
    return [*direct, *itertools.chain.from_iterable(children(child) for child in direct)]
