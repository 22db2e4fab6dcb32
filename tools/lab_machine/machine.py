"""A running lab, whatever emulates it."""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

from lab_machine import BROKEN, LabError
from lab_machine.session import Session


class Machine:
    """One emulator, known by its folder: console.log, what the kernel inside says, and LOG, what the emulator says.

    A subclass has boot(options, stay), claim_slot() and the constants below.
    """

    LOG = "emulator.log"
    BOOT_SECONDS = ANSWER_SECONDS = 60

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.process = None
        self.began = time.monotonic()

    def spawn(self, command, stay=False, **more):
        """Starts the emulator. Unless it is to stay, it dies with this process, however that ends."""
        libc = ctypes.CDLL(None)

        def die_with_parent():
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

        with open(self.folder / self.LOG, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            preexec_fn=None if stay else die_with_parent, **more)

    def alive(self):
        """The emulator's process id; 0 if it does not run."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def stop(self):
        pid = self.alive()
        if pid:
            os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
        while self.alive():
            time.sleep(0.02)

    def tail(self, name, lines=15):
        try:
            text = (self.folder / name).read_text(errors="replace").replace("\r", "")
        except OSError:
            return ""
        return "\n".join("  " + line for line in text.rstrip().splitlines()[-lines:])

    def kernel_trouble(self):
        console = self.tail("console.log", 200)
        found = re.search(r"Kernel panic|BUG:|Oops|WARNING:|general protection|lab: cannot.*|Call Trace", console)
        return found.group(0) if found else ""

    def broke_down(self):
        what = self.kernel_trouble()
        text = f"the lab kernel crashed ({what})" if what else "the lab ended before the command did"
        return LabError(BROKEN, f"{text}; last lines of its console:\n{self.tail('console.log', 40)}")

    def run(self, words, patience, options, terminal=False, write=None):
        """Runs one command, to start within `patience` seconds. Passes its output on, returns its exit status."""
        with self.claim_slot() as connection:
            session = Session(self, connection, terminal, options.stdin, write)
            session.start(words, patience)
            return session.pump(options.timeout)
