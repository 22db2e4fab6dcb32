"""The machines of tools/lab, one file each for what they are made of.

kernel.py     Debian's kernel and the modules that a lab needs, from a cache
initramfs.py  the archive that a lab boots with, and which files are carried into one that cannot see the outside's tree
machine.py    what a running lab is, whatever emulates it
qemu.py       host B: QEMU emulating an AMD processor with SVM
pmu_qemu.py   the same QEMU with a branch counter (pmu_counter.c), built into the cache
bochs.py      host C: Bochs emulating an Intel processor with VMX and EPT
session.py    one command inside: frames, terminal, time-out
"""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INSIDE = ROOT / "tests" / "lab"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "reprise" / "lab"
USAGE, CANNOT, TIMEOUT, BROKEN = 2, 69, 124, 125


class LabError(Exception):
    """Ends the run with `status`, after its text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)
