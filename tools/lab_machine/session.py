"""One command inside a lab: the outside half of tests/lab/agent.cc, which describes the frames."""
import os
import re
import select
import termios
import time
import tty

from lab_machine import TIMEOUT, LabError

MAGIC = b"\x01reprise-lab\x02"


class Session:
    """One command in a slot. `write(fd, bytes)` takes what it says; without one, standard output and error do."""

    def __init__(self, lab, connection, terminal, use_stdin, write=None):
        self.lab, self.connection, self.terminal = lab, connection, terminal
        self.write = write or write_all
        self.use_stdin = use_stdin or terminal
        self.buffer = b""

    def send(self, kind, payload):
        self.connection.sendall(kind + len(payload).to_bytes(4, "little") + payload)

    def start(self, words, patience):
        nonce = os.urandom(8).hex()
        size = os.get_terminal_size() if self.terminal else os.terminal_size((80, 24))
        environment = [f"{key}={value}" for key, value in os.environ.items()]
        request = [nonce, "1" if self.terminal else "0", str(size.lines), str(size.columns), os.getcwd(),
                   str(len(environment)), *environment, *words]
        self.send(b"R", MAGIC + b"".join(os.fsencode(word) + b"\0" for word in request))
        hello = b"H" + len(nonce).to_bytes(4, "little") + nonce.encode()
        self.skip_to(hello, time.monotonic() + patience, f"the lab did not start the command within {patience} s")

    def skip_to(self, mark, deadline, trouble):
        """Throws away what comes until `mark`, and it."""
        while mark not in self.buffer:
            if time.monotonic() > deadline:
                raise LabError(TIMEOUT, f"hung: {trouble}; last lines of its console:\n{self.lab.tail('console.log', 40)}")
            self.receive(1)
        self.buffer = self.buffer.split(mark, 1)[1]

    def receive(self, seconds):
        if not select.select([self.connection], [], [], seconds)[0]:
            return
        data = self.connection.recv(65536)
        if not data:
            raise self.lab.broke_down()
        self.buffer += data

    def frames(self):
        while len(self.buffer) >= 5:
            size = int.from_bytes(self.buffer[1:5], "little")
            if len(self.buffer) < 5 + size:
                return
            kind, payload = self.buffer[:1], self.buffer[5:5 + size]
            self.buffer = self.buffer[5 + size:]
            yield kind, payload

    def pump(self, timeout):
        """Passes output and input on until the command ends; its exit status."""
        saved = termios.tcgetattr(0) if self.terminal else None
        try:
            if saved:
                tty.setraw(0)
            return self.pump_frames(timeout)
        finally:
            if saved:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def pump_frames(self, timeout):
        deadline = time.monotonic() + timeout if timeout else None
        sources = [self.connection] + ([0] if self.use_stdin else [])
        full = []  # the connection, while input waits for room in it
        if not self.use_stdin:
            self.send(b"I", b"")
        while True:
            for kind, payload in self.frames():
                if kind == b"X":
                    return int(payload)
                self.write(2 if kind == b"E" else 1, payload)
            wait = min(1, max(0, deadline - time.monotonic())) if deadline else 1
            ready, room, _ = select.select(sources, full, [], wait)
            if self.connection in ready:
                self.receive(0)
            if room:
                sources, full = [self.connection, 0], []
            elif 0 in ready and not select.select([], [self.connection], [], 0)[1]:
                sources, full = [self.connection], [self.connection]
            elif 0 in ready:
                data = os.read(0, 4096)  # no more than PIPE_BUF: the agent counts on it
                self.send(b"I", data)
                if not data:
                    sources.remove(0)
            if deadline and time.monotonic() >= deadline:
                raise LabError(TIMEOUT, f"time-out: the command did not end within {timeout:g} s"
                               + (f"; the lab kernel's last lines:\n{last}" if (last := self.lab.tail("console.log")) else ""))


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


class StampedLines:
    """Passes lines on with the seconds since `began` before each, but for the line of counts that scripts look for."""

    COUNTS = re.compile(rb"\d+ passed, \d+ failed, \d+ skipped")

    def __init__(self, began):
        self.began = began
        self.begun_lines = {}

    def write(self, fd, data):
        *lines, self.begun_lines[fd] = (self.begun_lines.get(fd, b"") + data).split(b"\n")
        for line in lines:
            self.write_line(fd, line + b"\n")

    def write_line(self, fd, line):
        stamp = b"" if self.COUNTS.match(line) else b"%6.1f " % (time.monotonic() - self.began)
        write_all(fd, stamp + line)

    def flush(self):
        for fd, line in self.begun_lines.items():
            if line:
                self.write_line(fd, line)
        self.begun_lines = {}
