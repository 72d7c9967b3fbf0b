"""Where compiled kernels are kept, who fills the place, and what if it cannot be written."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from collectors import jit, subscribers
jit.warm([lambda: subscribers.home() and None], lambda text: print(text))
print(jit.cache_dir())
print(len(list(jit.cache_dir().rglob("*.nbi"))))
"""


def start(folder, program=PROGRAM):
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"POOLWATCH_CACHE_DIR": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


COMPILES = PROGRAM.replace(
    "lambda: subscribers.home() and None",
    "lambda: subscribers.half(__import__('numpy').zeros(16, 'u1'), 0)",
)


def ended(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines()


def test_several_processes_that_start_at_once_compile_once(tmp_path):
    told = [ended(p) for p in [start(tmp_path, COMPILES) for _ in range(4)]]
    assert sum("compiling" in line for lines in told for line in lines) == 1
    assert {lines[-2] for lines in told} == {str(tmp_path)}
    assert ended(start(tmp_path, COMPILES))[-1] == "1"


def test_a_place_that_cannot_be_written_is_copied_and_used_from_a_private_one(tmp_path):
    ended(start(tmp_path / "cache", COMPILES))
    read_only = tmp_path / "cache"
    held = {p.name for p in read_only.rglob("*.nbc")}
    # Root may write anywhere but below a file: a path through one cannot be made.
    blocked = tmp_path / "file"
    blocked.write_text("")
    private = tmp_path / "tmp"
    private.mkdir()
    environment = {"POOLWATCH_CACHE_DIR": str(blocked / "cache"), "TMPDIR": str(private)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], cwd=ROOT, env=os.environ | environment, capture_output=True,
        text=True,        timeout=120, check=True,
    )  # fmt: skip
    assert str(private) in done.stdout
    assert {p.name for p in private.rglob("*.nbc")} == held


def test_a_cache_of_other_sources_is_left_alone_and_old_ones_go(tmp_path):
    for age in range(8):
        old = tmp_path / f"old{age}"
        old.mkdir()
        (old / "compiled").touch()
        os.utime(old / "compiled", (time.time() - 1000 - age,) * 2)
        (old / "broken.nbi").write_bytes(b"not a pickle")
    ended(start(tmp_path, COMPILES))
    assert sorted(p.name for p in tmp_path.glob("old*")) == ["old0", "old1", "old2"]
    shutil.rmtree(tmp_path)


def test_a_cache_that_is_out_of_reach_later_stops_nothing(tmp_path):
    """As after privileges were given up: the index can be read no more, nor written."""
    (tmp_path / "mod.py").write_text("from collectors import jit\n@jit.kernel\ndef f(a):\n    return a + 1\n")
    code = (
        "import os, sys; sys.path[:0] = [sys.argv[1]]; import mod; from collectors import jit\n"
        "jit.warm([lambda: mod.f(1)], lambda _: None)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "else: os.chmod(jit.cache_dir() / jit.VERSION, 0)\n"
        "assert mod.f(1.5) == 2.5\n"
    )
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    environment = os.environ | {"POOLWATCH_CACHE_DIR": str(folder)}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, cwd=ROOT, timeout=60, check=True
    )


def test_a_kernel_that_nobody_warmed_is_compiled_by_one_of_several_processes(tmp_path):
    """As ``poolwatch flows`` does, which needs a few of them only; and it is said before it takes long."""
    (tmp_path / "one.py").write_text(
        "from collectors import jit\n@jit.inline\ndef g(a):\n    return a + 1\n"
        "@jit.kernel\ndef f(a):\n    return g(a) + g(a + 1.0)\n"
    )
    code = (
        f"import sys, time; sys.path[:0] = [{str(tmp_path)!r}]\n"
        "import one; from collectors import jit\n"
        "jit.announce(lambda text: print(text))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "assert one.f(1) == 5.0\n"
        "print(sum(one.f.stats.cache_misses.values()), sum(one.g.stats.cache_misses.values()))\n"
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    environment = os.environ | {"POOLWATCH_CACHE_DIR": str(cache)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in started:
        assert process.stdout.readline() == "ready\n"
    # All at once: starting Python takes longer than compiling.
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [ended(process) for process in started]
    misses = sorted(lines[-1] for lines in told)
    assert misses == ["0 0", "0 0", "1 2"]
    assert sum("compiling" in line for lines in told for line in lines) == 1


def test_who_needs_few_kernels_loads_none_beforehand_once_all_are_compiled(tmp_path):
    (tmp_path / "mod.py").write_text("from collectors import jit\n@jit.kernel\ndef f(a):\n    return a + 1\n")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]; import mod; from collectors import jit\n"
        "jit.warm([lambda: mod.f(1)], print, load=False)\n"
        "print(len(mod.f.signatures), mod.f(1), jit.kept(mod.f))\n"
    )

    def told():
        return ended(start(tmp_path / "cache", code.replace("sys.argv[1]", repr(str(tmp_path)))))

    first, second = told(), told()
    assert "compiling" in first[0]
    assert first[1:] == ["1 2 True"]
    assert second == ["0 2 True"]
    for kept in (tmp_path / "cache").rglob("*.nb?"):
        kept.unlink()
    # Somebody emptied the folder: what is compiled after all is told of.
    third = told()
    assert "compiling" in third[0]
    assert third[1:] == ["0 2 True"]
