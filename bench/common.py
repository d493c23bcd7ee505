"""What the benchmarks share: statistics, compiling, real pairs.

Each benchmark prints, for every figure, the median and the spread (smallest and largest) of its
repetitions, and the machine it ran on; docs/benchmarks.md quotes them.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)


def build_dir(more=False):
    """The directory, and with `more` a list of it and the arguments behind it."""
    if len(sys.argv) < 2 or (not more and len(sys.argv) > 2) or \
            not os.path.exists(os.path.join(sys.argv[1], "llusplit")):
        sys.exit(f"usage: {sys.argv[0]} BUILD_DIR    (the directory that has llusplit and llvupdate)")
    build = os.path.realpath(sys.argv[1])
    return [build, *sys.argv[2:]] if more else build


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    print(f"# {model}, {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.2f}")


def show(name, values, unit, digits=2):
    """One line: median (smallest to largest), and how many values."""
    print(f"{name:<52} {statistics.median(values):>10.{digits}f} {unit:<4}"
          f" ({min(values):.{digits}f} to {max(values):.{digits}f}, n={len(values)})", flush=True)


def run(*argv, check=True, **kwargs):
    return subprocess.run(argv, check=check, capture_output=True, text=True, **kwargs)


def compile_c(directory, source, *flags, name=None):
    out = os.path.join(directory, name or os.path.splitext(os.path.basename(source))[0])
    subprocess.run(["cc", "-std=c17", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-pthread",
                    os.path.join(HERE, source), "-o", out, *flags], check=True)
    return out


def pair(package, library, *versions):
    """(old, new) of a real package (the oldest and the newest to be had, or those versions), or None with a word to
    standard error."""
    p = run(os.path.join(ROOT, "tools/fetch-pair"), package, library, *versions, check=False)
    if p.returncode:
        print(f"# {p.stderr.strip()}", file=sys.stderr)
        return None
    lines = dict(line.split(" ", 1) for line in p.stdout.splitlines())
    return lines["old"], lines["new"]


def split(build, source, out, like=None):
    run(os.path.join(build, "llusplit"), source, "-o", out, *(["--like", like] if like else []))


def scratch():
    return tempfile.TemporaryDirectory(prefix="llu-bench-")
