# SPDX-License-Identifier: Apache-2.0
"""Build the Runtime image with buildah.

    hatch run image:build [--variant default|default-base] [--python 3.13] [--base-image NAME]

The components of `packages/` become wheels, `image/Dockerfile` is built on `debian:trixie-slim` or, where
no registry answers, on a root filesystem that `image/rootfs.sh` makes, and the result is tagged
`localhost/tradewind-runtime:<version>[-base]`. What this machine needs to reach its package archives goes
in as build secrets and stays out of the image.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

IMAGE = Path(__file__).resolve().parent
REPOSITORY = "localhost/tradewind-runtime"
ROOTFS = "localhost/tradewind-rootfs"
SUITES = {"13": "trixie"}
"""Debian's code names by the version that `releases.toml` names."""

VARIANTS = ("default", "default-base")
PYTHONS = ("3.13",)
INSTALL = {"uv": "pip install uv, or `hatch run image:build`, whose environment has it"}
APT_SETTINGS = re.compile(r"Acquire::(?:Check-Valid-Until|Check-Date|https?::Proxy(?:::\S+)?) ")
STOP_SECONDS = 10
SHOWN_LINES = 40
SHORT_ID = 11
"""Characters of an image's ID in buildah's output."""


class BuildError(Exception):
    """The build cannot go on; the message says what to do."""


class UsageError(BuildError):
    """What was asked for does not exist; the message names the value and the allowed ones."""


class Stopped(BaseException):
    """SIGINT or SIGTERM came.

    Args:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(frozen=True)
class Release:
    """An entry of `releases.toml`."""

    version: str
    airflow: str
    python: tuple[str, ...]
    debian: str


def newest_release(text: str) -> Release:
    r"""Give the first entry of `releases.toml`: the version that the tree builds.

    >>> newest_release('[[release]]\nversion="0.1.0"\nairflow="3.3.2"\npython=["3.13"]\ndebian="13"').version
    '0.1.0'
    """
    entry = tomllib.loads(text)["release"][0]
    return Release(entry["version"], entry["airflow"], tuple(entry["python"]), entry["debian"])


def check_components(pins: Mapping[str, str], packages: Path) -> None:
    """Compare the pins of `components.toml` with the components' versions.

    Args:
        pins: Version by distribution name.
        packages: The folder of the components.

    Raises:
        BuildError: A pin, a component or a version has no counterpart; all of them are named.
    """
    found = {}
    for module in sorted(packages.glob("*/src/tradewind/*/_version.py")):
        match = re.search(r'^__version__ = "([^"]+)"', module.read_text(encoding="utf-8"), re.MULTILINE)
        found[f"tradewind-{module.parent.name.replace('_', '-')}"] = match[1] if match else "unknown"
    wrong = [
        f"{name}: components.toml says {pins.get(name, 'nothing')}, the tree says {found.get(name, 'nothing')}"
        for name in sorted({*pins, *found})
        if pins.get(name) != found.get(name)
    ]
    if wrong:
        raise BuildError("image/components.toml does not fit packages/:\n  " + "\n  ".join(wrong))


def check_request(variant: str, python: str, release: Release) -> None:
    """Refuse what this release does not offer.

    Raises:
        UsageError: The variant or the Python version is not offered.
    """
    if variant not in VARIANTS:
        raise UsageError(f"--variant {variant}: expected one of {', '.join(VARIANTS)}")
    offered = [p for p in PYTHONS if p in release.python]
    if python not in offered:
        raise UsageError(f"--python {python}: expected one of {', '.join(offered)}")


def trixie_sources(texts: list[str], codename: str, suite: str) -> str:
    r"""Translate this machine's deb822 sources of Debian into the same archives' sources of another release.

    Args:
        texts: The contents of `*.sources` files.
        codename: This machine's release.
        suite: The release that is wanted.

    Returns:
        Sources as deb822; empty where nothing here is an archive of Debian's releases.

    >>> print(trixie_sources(["URIs: file:/m\nSuites: bookworm bookworm-updates"], "bookworm", "trixie"))
    Types: deb
    URIs: file:/m
    Suites: trixie trixie-updates
    Components: main
    <BLANKLINE>
    """
    stanzas = []
    for stanza in re.split(r"\n\s*\n", "\n\n".join(texts)):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        names = fields.get("Suites", "").split()
        if not fields.get("URIs") or fields.get("Enabled", "yes").strip().lower() in {"no", "false"}:
            continue
        if any(re.fullmatch(rf"{codename}(-updates|-security)?", name) for name in names):
            wanted = [suite + n.removeprefix(codename) for n in names if not n.endswith("-backports")]
            stanzas.append(f"Types: deb\nURIs: {fields['URIs']}\nSuites: {' '.join(wanted)}\nComponents: main\n")
    return "\n".join(stanzas)


def serves_suites(sources: str) -> bool:
    """Ask the archives whether they have all the suites."""
    for uris, suites in re.findall(r"^URIs: (.*)\nSuites: (.*)$", sources, re.MULTILINE):
        for uri in uris.split():
            for suite in suites.split():
                url = f"{uri.rstrip('/')}/dists/{suite}/InRelease"
                try:
                    with urllib.request.urlopen(url, timeout=10):  # noqa: S310 - apt's own configured URL
                        pass
                except (OSError, ValueError):
                    return False
    return bool(sources)


def require(tool: str) -> None:
    """Look for a program.

    Raises:
        BuildError: It is missing; the message tells how to install it.
    """
    if not Path(tool).is_absolute() and not shutil.which(tool):
        raise BuildError(f"{tool} is missing: {INSTALL.get(tool, f'apt-get install {tool}')}")


class Builder:
    """Runs the build's steps and stops all they started.

    Args:
        console: Where progress goes.
        work: A folder for this build alone.
        verbose: Show every line of the tools' output.
    """

    def __init__(self, console: Console, work: Path, *, verbose: bool) -> None:
        self.console = console
        self.work = work
        self.log = work / "build.log"
        self.verbose = verbose
        self.epoch = os.environ.get("SOURCE_DATE_EPOCH", str(int(time.time())))
        self.environment = {
            **os.environ,
            "BUILDAH_ISOLATION": os.environ.get("BUILDAH_ISOLATION", "chroot"),
            "SOURCE_DATE_EPOCH": self.epoch,
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
        }
        self.images: set[str] = set()
        """Images that the running build has made."""
        self.bases: set[str] = set()
        """Images that builds start from."""

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show one step while it runs, and its time when it has succeeded."""
        started = time.monotonic()
        with self.console.status(f"{title} …") as self.status:
            yield
        self.console.print(f"[green]✓[/green] {title} [dim]{time.monotonic() - started:.1f} s[/dim]")

    def run(
        self,
        *command: str,
        timeout: float | None = None,
        quiet: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a tool and give its output; it is gone when this returns or raises.

        Args:
            command: The program and its arguments.
            timeout: Seconds until it is stopped.
            quiet: Show no line of it; its output is data.
            environment: Variables on top of the process's own.

        Raises:
            BuildError: The tool is missing, failed, or took too long.
        """
        require(command[0])
        lines: list[str] = []
        process = subprocess.Popen(
            command,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        previous = signal.signal(signal.SIGALRM, _too_long)
        try:
            signal.setitimer(signal.ITIMER_REAL, timeout or 0)
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"$ {shlex.join(command)}\n")
                for line in process.stdout or ():
                    log.write(line)
                    lines.append(line)
                    if not quiet:
                        self._show(line)
            process.wait()
        except TimeoutError:
            raise BuildError(f"{command[0]} did not answer in {timeout:g} s") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            _end_group(process)
        if process.returncode:
            tail = "".join(lines[-SHOWN_LINES:]).rstrip()
            raise BuildError(f"{shlex.join(command[:2])} failed with exit code {process.returncode}:\n{tail}")
        return "".join(lines)

    def _show(self, line: str) -> None:
        if self.verbose:
            self.console.print(line.rstrip(), markup=False, highlight=False)
        elif match := re.match(r"(\[\d/\d\] )?STEP (\d+/\d+: .{0,80})", line):
            self.status.update(match[2].replace("[", r"\["))
        if match := re.match(r"--> (?:Using cache )?([0-9a-f]{11,64})$", line.strip()):
            self.images.add(match[1][:SHORT_ID])

    def base_image(self, requested: str | None, suite: str, *, timeout: float, rebuild: bool) -> str:
        """Find or make the image that the build starts from.

        Args:
            requested: The name that the user typed; taken as it is.
            suite: Debian's code name.
            timeout: Seconds to wait for the registry.
            rebuild: Make the root filesystem even where the same script's result is still here.
        """
        if requested:
            return requested
        published = f"debian:{suite}-slim"
        try:
            self.run("buildah", "pull", "--quiet", published, timeout=timeout)
        except BuildError as error:
            self.console.print(f"  {published} cannot be pulled: image/rootfs.sh makes the base", style="dim")
            self._note(str(error))
        else:
            return published
        script = IMAGE / "rootfs.sh"
        name = f"{ROOTFS}:{suite}-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
        if not rebuild and self.image_id(name):
            self.console.print(f"  {name} is still here", style="dim")
            return name
        settings = {
            f"TRADEWIND_{variable}": str(self.work / file)
            for variable, file in (("APT_SOURCES", "apt-sources.sources"), ("APT_CONF", "apt-conf"))
            if (self.work / file).exists()
        }
        folder = self.work / "rootfs"
        folder.mkdir()
        self.run(str(script), str(folder / "rootfs.tar"), suite, environment=settings)
        (folder / "Dockerfile").write_text('FROM scratch\nADD rootfs.tar /\nCMD ["bash"]\n', encoding="utf-8")
        self.bud(folder, name)
        shutil.rmtree(folder)
        return name

    def secrets(self, suite: str) -> list[str]:
        """Find what this machine needs to reach its archives, as buildah's arguments."""
        bundles = [os.environ.get(name) for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
        bundles += [ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt"]
        bundle = next((Path(path) for path in bundles if path and Path(path).is_file()), None)
        found = {"ca-bundle": bundle} if bundle else {}
        if shutil.which("apt-config"):
            dump = self.run("apt-config", "dump", quiet=True).splitlines()
            if settings := [line for line in dump if APT_SETTINGS.match(line)]:
                found["apt-conf"] = self.work / "apt-conf"
                found["apt-conf"].write_text("\n".join([*settings, ""]), encoding="utf-8")
        files = sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
        texts = [file.read_text(encoding="utf-8") for file in files]
        system = platform.freedesktop_os_release() if sys.platform == "linux" else {}
        if system.get("ID") == "debian":
            sources = trixie_sources(texts, system.get("VERSION_CODENAME", ""), suite)
            if serves_suites(sources):
                found["apt-sources"] = self.work / "apt-sources.sources"
                found["apt-sources"].write_text(sources, encoding="utf-8")
        self.console.print(f"  build secrets: {', '.join(sorted(found)) or 'none'}", style="dim")
        return [f"--secret=id={name},src={path}" for name, path in sorted(found.items())]

    def context(self, packages: Path) -> Path:
        """Make the build's context: this folder's files, the components' wheels, and the locked uv."""
        folder = self.work / "context"
        folder.mkdir()
        for file in sorted(IMAGE.iterdir()):
            if file.suffix in {".sh", ".cfg", ".py"} or file.name == "Dockerfile":
                shutil.copyfile(file, folder / file.name)
        shutil.copytree(IMAGE / "locks", folder / "locks")
        for pyproject in sorted(packages.glob("*/pyproject.toml")):
            self.run("uv", "build", "--quiet", "--wheel", "--out-dir", str(folder / "wheels"), str(pyproject.parent))
        tools = self.work / "tools"
        self.run(
            *("uv", "pip", "install", "--quiet", "--no-config", "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--python-platform", f"{platform.machine()}-unknown-linux-gnu"),
            *("--target", str(tools), "--requirement", str(IMAGE / "locks" / "build.txt")),
        )
        shutil.copy(tools / "bin" / "uv", folder / "uv")
        return folder

    def bud(self, context: Path, tag: str, *arguments: str) -> None:
        """Build one image; containers and images of a build that did not end are removed."""
        before, superseded = self._containers(), self.image_id(tag)
        try:
            self.run(
                *("buildah", "bud", "--format", "docker", "--network", "host", "--no-cache", "--force-rm"),
                *("--timestamp", self.epoch, "--tag", tag, *arguments, str(context)),
            )
        finally:
            for container in self._containers() - before:
                with contextlib.suppress(BuildError):
                    self.run("buildah", "rm", container)
            current = self.image_id(tag)
            old = {superseded} - {current, ""}
            for image in (self.images | old) - {current[:SHORT_ID]}:
                with contextlib.suppress(BuildError):  # gone with one that was made from it
                    self.run("buildah", "rmi", image)
            self.images.clear()

    def image_id(self, name: str) -> str:
        """The ID of an image of this machine; empty where there is none."""
        known = json.loads(self.run("buildah", "images", "--json", quiet=True) or "null") or []
        return next((str(image["id"]) for image in known if name in (image.get("names") or ())), "")

    def _containers(self) -> set[str]:
        """Working containers whose image this build uses or made."""
        text = self.run("buildah", "containers", "--json", quiet=True)
        return {
            c["id"]
            for c in json.loads(text or "null") or []
            if c["imagename"] in self.bases or c["imageid"][:SHORT_ID] in self.images
        }

    def _note(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def _end_group(process: subprocess.Popen[str]) -> None:
    """Stop what is left of a process and all that it started."""
    deadline = time.monotonic() + STOP_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def build(options: argparse.Namespace, console: Console, work: Path) -> None:
    """Build and tag what was asked for."""
    release = newest_release((IMAGE / "releases.toml").read_text(encoding="utf-8"))
    check_request(options.variant, options.python, release)
    pins = tomllib.loads((IMAGE / "components.toml").read_text(encoding="utf-8"))
    check_components(pins, options.packages)
    for tool in ("buildah", "uv"):
        require(tool)
    builder = Builder(console, work, verbose=options.verbose)
    suite = SUITES[release.debian]
    started = time.monotonic()
    with builder.step("Wheels of the components"):
        context = builder.context(options.packages)
    with builder.step("Base image"):
        secrets = builder.secrets(suite)
        base = builder.base_image(options.base_image, suite, timeout=options.pull_timeout, rebuild=options.rebuild_base)
    builder.bases |= {base, f"{REPOSITORY}:{release.version}-base"}
    arguments = [*secrets, f"--build-arg=BASE_IMAGE={base}", f"--build-arg=SOURCE_DATE_EPOCH={builder.epoch}"]
    arguments += [f"--build-arg=RUNTIME_VERSION={release.version}", "--build-arg=IMAGE_VARIANT=default"]
    tag = f"{REPOSITORY}:{release.version}"
    with builder.step(f"{tag}-base"):
        # A layer for each instruction: a new release of ours moves only the small ones.
        builder.bud(context, f"{tag}-base", "--layers", "--target", "base", *arguments)
    tags = [f"{tag}-base"]
    if options.variant == "default":
        with builder.step(tag):
            onbuild = [f"--build-arg=ONBUILD_BASE={tag}-base", "--target", "onbuild"]
            builder.bud(context, tag, *onbuild, *arguments)
        tags.append(tag)
    table = Table(box=None)
    table.add_column("Image")
    table.add_column("ID")
    table.add_column("MB", justify="right")
    for name in tags:
        (image,) = json.loads(builder.run("buildah", "images", "--json", name, quiet=True))
        table.add_row(name, image["id"][:12], str(image["size"]))
    console.print(table)
    console.print(f"Built in {time.monotonic() - started:.0f} s; `hatch run image:test` tests it")


def main(arguments: list[str] | None = None) -> int:
    """Build the image.

    Returns:
        0; 1 where the build failed; 2 where the request was wrong; 128 + the signal where one came.
    """
    parser = argparse.ArgumentParser(prog="hatch run image:build", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--variant", default="default", help=f"one of {', '.join(VARIANTS)}")
    parser.add_argument("--python", default=PYTHONS[0], help=f"one of {', '.join(PYTHONS)}")
    parser.add_argument("--base-image", help="start from this image, pull nothing")
    parser.add_argument("--rebuild-base", action="store_true", help="make the root filesystem anew")
    parser.add_argument("--pull-timeout", type=float, default=30, help="seconds to wait for the registry")
    parser.add_argument("--packages", type=Path, default=IMAGE.parent / "packages", help="the components")
    parser.add_argument("--verbose", action="store_true", help="show the tools' whole output")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, stderr=True, soft_wrap=True)

    def stop(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)  # what follows is the clean-up
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    lock = Path(tempfile.gettempdir()) / f"tradewind-image-build-{os.getuid()}.lock"
    try:
        with tempfile.TemporaryDirectory(prefix="tradewind-image-") as work, lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.print("Another image build runs; waiting for it", style="yellow")
                fcntl.flock(held, fcntl.LOCK_EX)
            build(options, console, Path(work))
    except Stopped as stopped:
        console.print(f"Stopped by {signal.Signals(stopped.number).name}", style="yellow")
        return 128 + stopped.number
    except BuildError as error:
        console.print(f"image:build: {error}", style="red", markup=False)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
