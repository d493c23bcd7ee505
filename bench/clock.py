"""What bench/frozen and bench/retire share: a target that watches the clock, and updates of it.

The target has core 0 for itself (its clock thread; see clock_target.c), the tools the others.
"""

import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import time

import libc
from common import compile_c, pair, run, split

PACKAGE, SONAME = "liblzma5", "liblzma.so.5"


class Clock:
    """The target, and the memory that it shares with us (struct shared of clock_target.c)."""

    def __init__(self, d, threads=1, kind="asleep", heap_mib=0):
        path = os.path.join(d, f"shared-{threads}-{kind}-{heap_mib}")
        with open(path, "wb") as f:
            f.write(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as f:
            self.shared = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self.process = subprocess.Popen(
            [os.path.join(d, "clock_target"), SONAME, path, str(threads), kind, str(heap_mib)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "LD_LIBRARY_PATH": os.path.join(d, "lib")},
            preexec_fn=self.settle)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("clock_target does not start")
        self.pid = self.process.pid

    @staticmethod
    def settle():
        os.sched_setaffinity(0, {0})
        if os.geteuid() == 0:
            os.nice(-20)

    def word(self, i):
        return struct.unpack_from("q", self.shared, 8 * i)[0]

    def largest_us(self, work):
        """The largest gap while `work` is done, and what it returned."""
        struct.pack_into("q", self.shared, 0, 0)
        result = work()
        # The last gap is seen when the clock has been read again.
        seen = self.word(1)
        while self.word(1) == seen:
            pass
        return self.word(0) / 1e3, result

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """And wait until the clock is read again, so that the pause is no gap of what comes."""
        seen = self.word(1)
        self.process.send_signal(signal.SIGCONT)
        while self.word(1) - seen < 1000:
            pass

    def end(self):
        struct.pack_into("q", self.shared, 16, 1)
        if self.process.wait() != 0:
            raise SystemExit(f"the target ended with {self.process.returncode}")


class Library:
    """Two real builds of a library, split; there and back."""

    def __init__(self, build, d):
        builds = pair(PACKAGE, SONAME)
        if not builds:
            raise SystemExit(f"two builds of {PACKAGE} are needed")
        self.builds = [os.path.join(d, "old"), os.path.join(d, "new")]
        self.installed = os.path.join(d, "lib", SONAME)
        os.mkdir(os.path.join(d, "lib"))
        split(build, builds[0], self.builds[0])
        split(build, builds[1], self.builds[1], self.builds[0])
        shutil.copy(self.builds[0], self.installed)
        self.turn = 0

    def install_next(self):
        self.turn += 1
        shutil.copy(self.builds[self.turn % 2], self.installed + ".new")
        os.rename(self.installed + ".new", self.installed)


class Updates:
    """Updates of a target. `kind`: None, or one of libc.OPTIONS: then the C library is updated."""

    def __init__(self, build, d, kind=None):
        if os.cpu_count() > 1:
            os.sched_setaffinity(0, set(range(1, os.cpu_count())))
        self.build, self.d = build, d
        compile_c(d, "clock_target.c")
        self.library = libc.Libc(build, d, kind) if kind else Library(build, d)
        self.install_next = self.library.install_next

    def update(self, target, *flags):
        """Gap as seen (us), wall time (ms), and what llvupdate says of the library (docs/json.md)."""
        def work():
            start = time.monotonic()
            p = run(os.path.join(self.build, "llvupdate"), "-p", str(target.pid), "--json",
                    "-l", os.path.join(self.d, "log"), *flags, check=False)
            return (time.monotonic() - start) * 1e3, p
        gap, (wall, p) = target.largest_us(work)
        if p.returncode:
            raise SystemExit(f"llvupdate: exit code {p.returncode}\n{p.stdout}{p.stderr}")
        return gap, wall, json.loads(p.stdout)["processes"][0]["libraries"][0]
