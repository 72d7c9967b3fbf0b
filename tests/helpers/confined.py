"""Run a command as near to a systemd unit's confinement as can be had without systemd.

    confined.start("poolwatch-detect@.service", ["detect", "--listen", "127.0.0.1:9999"], writable=[…], …)

From the unit: the system calls (a real seccomp filter, made by libseccomp, of the sets as systemd-analyze
prints them), address families, capabilities (bounding and ambient), no new privileges, umask.  As all our
units have it: a user who is nobody, a file system that cannot be written but for ``writable`` and a /tmp of
its own, homes hidden (but for the interpreter), /proc of own processes only.  Not: control groups, devices,
user namespaces, kernel tunables beyond what a read-only file system covers.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "deploy" / "systemd"
MAIN = "import sys; from detector.cli import main; raise SystemExit(main(sys.argv[1:]))"
NOBODY = 65534
CLONE_NEWNS = 0x20000
ALLOW, ERRNO_EPERM, EQUAL = 0x7FFF0000, 0x00050000 | 1, 4


class Compare(ctypes.Structure):
    """``struct scmp_arg_cmp`` of seccomp.h."""

    _fields_ = (
        ("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64),
    )  # fmt: skip


def settings(unit: str) -> dict[str, list[str]]:
    """The lines of the unit, by key; a file is read as systemd does as far as our units go."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@cache
def why_not() -> str:
    """Empty where commands can be confined."""
    for command in ("systemd-analyze", "setpriv", "unshare"):
        if not shutil.which(command):
            return f"no {command}"
    if os.geteuid() != 0:
        return "only root can confine"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "no libseccomp"
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/tmp"], check=False, capture_output=True
    )
    return tried.stderr.decode()


def start(
    unit: str, arguments: Iterable[str], writable: Iterable[Path], environment: Mapping[str, str]
) -> subprocess.Popen:
    """``poolwatch`` with these arguments, confined as the unit says."""
    return run_python(unit, ["-c", MAIN, *arguments], writable, environment)


def run_python(
    unit: str, arguments: Iterable[str], writable: Iterable[Path], environment: Mapping[str, str]
) -> subprocess.Popen:
    """Any Python code so."""
    command = [sys.executable, __file__, unit, ":".join(map(str, writable)), sys.executable, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def calls(unit: str) -> set[str]:
    """Names of the system calls that the unit may make."""
    allowed: set[str] = set()
    for line in settings(unit)["SystemCallFilter"]:
        names = {name for word in line.lstrip("~").split() for name in _expand(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    # systemd always allows these, so that the service can be started (systemd.exec(5)).
    return allowed | _expand("@default")


def _expand(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    )
    lines = (line.strip() for line in said.stdout.splitlines()[1:])
    names = [line for line in lines if line and not line.startswith("#")]
    return {name for line in names for name in (_expand(line) if line.startswith("@") else {line})}


# -- in the child ----------------------------------------------------------------------------------


def _mounts(writable: list[str]) -> None:
    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")
    # What stays visible of what is hidden is held open meanwhile.
    kept = [*writable, *([sys.base_prefix] if sys.base_prefix.startswith(("/root", "/home")) else [])]
    held = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in kept}
    mount("-o", "remount,bind,ro", "/")
    for hidden, mode in (("/root", "755"), ("/home", "755"), ("/tmp", "1777")):
        mount("-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", hidden)
    for path, number in held.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        mount("--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{number}", path)
        mount("-o", "remount,bind,rw" if path in writable else "remount,bind,ro", path)
        os.close(number)
    for path in writable:
        os.chown(path, NOBODY, NOBODY)
    mount("-t", "proc", "-o", "subset=pid,hidepid=2", "proc", "/proc")


def _filter(names: set[str], families: list[str]) -> None:
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(ERRNO_EPERM)))
    for name in sorted(names - {"socket"}):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            assert lib.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    number = lib.seccomp_syscall_resolve_name(b"socket")
    for family in families:
        rule = Compare(0, EQUAL, getattr(socket, family), 0)
        added = lib.seccomp_rule_add_array(context, ctypes.c_uint32(ALLOW), number, 1, ctypes.byref(rule))
        assert added == 0, family
    assert lib.seccomp_load(context) == 0


def main(unit: str, writable: str, *command: str) -> None:
    """Become what the unit says, then the command: twice through here, as root and as nobody."""
    said = settings(unit)
    if writable != "-":
        names = " ".join(sorted(calls(unit)))
        _mounts([path for path in writable.split(":") if path])
        capabilities = said["AmbientCapabilities"][0].removeprefix("CAP_").lower()
        assert said["CapabilityBoundingSet"] == said["AmbientCapabilities"]
        wanted = f"-all,+{capabilities}" if capabilities else "-all"
        os.umask(int(said["UMask"][0], 8))
        os.execvpe(
            "setpriv",
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs",
             f"--inh-caps={wanted}", f"--ambient-caps={wanted}", f"--bounding-set={wanted}",
             sys.executable, __file__, unit, "-", *command],
            {**os.environ, "CONFINED_CALLS": names},
        )  # fmt: skip
    _filter(set(os.environ.pop("CONFINED_CALLS").split()), said["RestrictAddressFamilies"][0].split())
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
