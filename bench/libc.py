"""The C library in benchmarks: two real builds of Debian's libc6, of which one after the other takes the place of the
installed one, in a mount namespace of their own. Needs root, and libc6-dbg of both, without which libc is not updated."""

import glob
import os
import sys

from common import pair, run, split

VERSIONS = ("2.36-9+deb12u7", "2.36-9+deb12u14")
OPTIONS = ("--libc", "--plain-libc")  # split, and as the package has it
PLACE = "/usr/lib/x86_64-linux-gnu"
DEBUG = "/usr/lib/debug"


def option(arguments):
    """Which of OPTIONS is among the arguments, or None, and the others. With one, the program goes on in a namespace."""
    found = next((a for a in arguments if a in OPTIONS), None)
    if found and "LLU_BENCH_NAMESPACE" not in os.environ:
        if os.geteuid() != 0:
            raise SystemExit(f"{found} needs root")
        os.environ["LLU_BENCH_NAMESPACE"] = "own"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-B", *sys.argv])
    return found, [a for a in arguments if a != found]


def bind(path, there):
    run("mount", "--bind", path, there)


class Libc:
    """All parts of the package are the old build's; the two that change are there and back."""

    PARTS = ("libc.so.6", "ld-linux-x86-64.so.2")
    folder = preload = ""

    def __init__(self, build, d, kind):
        libraries = pair("libc6", "libc.so.6", *VERSIONS)
        debug = pair("libc6-dbg", "copyright", *VERSIONS)
        if not libraries or not debug:
            raise SystemExit("two builds of libc6 and libc6-dbg are needed")
        os.makedirs(DEBUG, exist_ok=True)
        lower = [path.split("/usr/share/")[0] + DEBUG for path in debug]
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={':'.join(lower)}:{DEBUG}", DEBUG)
        self.turn = 0
        self.files = [{part: os.path.join(os.path.dirname(file), part) for part in self.PARTS} for file in libraries]
        for i, file in enumerate(libraries):
            if kind == "--libc":
                self.files[i]["libc.so.6"] = os.path.join(d, f"libc-{i}.so")
                split(build, file, self.files[i]["libc.so.6"], self.files[0]["libc.so.6"] if i else None)
        self.others = [path for path in glob.glob(os.path.join(os.path.dirname(libraries[0]), "*.so*"))
                       if os.path.exists(os.path.join(PLACE, os.path.basename(path)))
                       and os.path.basename(path) not in self.PARTS]
        for path in self.others:
            bind(path, os.path.join(PLACE, os.path.basename(path)))
        self.install()

    def install(self):
        for part, path in self.files[self.turn % 2].items():
            bind(path, os.path.join(PLACE, part))

    def install_next(self):
        """The other build, over the one before: a file whose mount is gone would have no name any more."""
        self.turn += 1
        self.install()

    @staticmethod
    def take_away(parts):
        for part in parts:
            run("umount", "--lazy", os.path.join(PLACE, part))

    def remove(self):
        self.take_away([*self.PARTS * (self.turn + 1), *map(os.path.basename, self.others)])
        run("umount", "--lazy", DEBUG)
