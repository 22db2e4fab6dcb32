"""The debugger's stub as it serves a replay: one GDB after another, bad clients, many breakpoints, interruption, and what front ends do."""
import contextlib
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

from debugger import counter_of
from harness import OK, Hang, Skip, Test, count_for, expect, record

NO_MORE = "No more reverse-execution history"


class Stub:
    """`reprise replay FOLDER --gdb`, waiting for a GDB."""

    def __init__(self, bench, folder):
        # Not in the test's folder: a socket cannot be kept.
        self.bench, self.address = bench, str(bench.installation.folder / f"{bench.folder.name}.socket")
        words = [str(word) for word in (bench.installation.reprise, "replay", folder, f"--gdb=unix:{self.address}")]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.remarks = []
        while b"GDB can attach" not in (line := self.process.stderr.readline()):
            expect(line, f"the stub ends, and says {self.remarks}")
            self.remarks.append(line.decode().rstrip())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ends_identical(self):
        """Waits for the end of the replay after a debugger has detached."""
        try:
            _, err = self.process.communicate(timeout=self.bench.timeout)
        except subprocess.TimeoutExpired:
            raise Hang("the replay does not go on to its end after detaching") from None
        expect(self.process.returncode == OK and b"replayed, identical" in err, f"exit status {self.process.returncode}: {err[-300:]!r}")


class Packets:
    """A client that speaks the protocol by hand."""

    def __init__(self, stub):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(stub.address)
        self.socket.settimeout(stub.bench.timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, text):
        self.socket.sendall(b"$%s#%02x" % (text, sum(text) % 256))

    def ask(self, text):
        """Returns the answer, without the lines for people before it."""
        self.send(text)
        return self.answer()

    def monitor(self, line):
        self.send(b"qRcmd," + line.encode().hex().encode())
        said = b""
        while re.fullmatch(rb"O?([0-9a-f]{2})+", part := self.answer(lines_too=True)) and part != b"OK":
            said += bytes.fromhex(part.decode().lstrip("O"))
        return said.decode()

    def answer(self, lines_too=False):
        while True:
            seen = b""
            while not re.search(rb"\$[^#]*#..$", seen, re.DOTALL):
                part = self.socket.recv(1)
                expect(part, f"the stub hangs up after {seen!r}")
                seen += part
            with contextlib.suppress(BrokenPipeError):  # who has let it detach hangs up
                self.socket.sendall(b"+")
            found = re.search(rb"\$([^#]*)#..$", seen, re.DOTALL)[1]
            if lines_too or not re.match(rb"O[0-9a-f]+$", found):
                return found


class Gdb:
    """A GDB through its machine interface, as front ends use it."""

    def __init__(self, bench, image):
        if shutil.which("gdb") is None:
            raise Skip("there is no gdb")
        self.timeout = bench.timeout
        self.process = subprocess.Popen(["gdb", "-nx", "-q", "-i=mi3", str(bench.image(image))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        for setting in ("non-stop off", "mi-async off", "pagination off", "confirm off", "debuginfod enabled off"):
            self.command(f"-gdb-set {setting}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode(errors="replace").rstrip())

    def until(self, pattern, seconds=None):
        """All lines up to the one that matches."""
        seen, deadline = [], time.monotonic() + (seconds or self.timeout)
        while not seen or not re.match(pattern, seen[-1]):
            try:
                seen.append(self.lines.get(timeout=max(0.01, deadline - time.monotonic())))
            except queue.Empty:
                raise Hang(f"GDB does not say {pattern!r}; its last lines: {seen[-3:]}") from None
        return seen

    def start(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def command(self, line, result=r"\^(done|connected)"):
        self.start(line)
        seen = self.until(r"\^(done|connected|error|running)")
        expect(re.match(result, seen[-1]), f"{line}: {seen[-1]}")
        return "\n".join(seen)

    def says(self, line):
        """What a command of GDB's own language prints."""
        shown = self.command(f'-interpreter-exec console "{line}"')
        texts = re.findall(r'^[~@&]"(.*)"$', shown, re.MULTILINE)
        return "".join(texts).replace("\\n", "\n").replace('\\"', '"').replace(line + "\n", "", 1)

    def attach(self, stub, how="extended-remote"):
        self.command(f"-target-select {how} {stub.address}")
        return self

    def run(self, line, pattern=""):
        """Until it stops; what is said up to there must match."""
        self.start(line)
        seen = "\n".join(self.until(r"\*stopped"))
        expect(re.search(pattern, seen), f"{line}: {seen}, not {pattern!r}")

    def when(self):
        return self.says("monitor when").split(";")[0]


def small(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=20000", vcpus=2, chaos=7)
    return folder


def one_after_another(bench):
    with Stub(bench, small(bench)) as stub:
        with Gdb(bench, "lost_update") as first:
            first.attach(stub)
            first.command("-break-insert workload")
            first.run("-exec-continue", 'reason="breakpoint-hit"')
            left = first.when()
            first.command("-target-disconnect")
        with Gdb(bench, "lost_update") as second:
            second.attach(stub, "remote")
            expect(second.when() == left, f"the second GDB finds {second.when()}, the first one left {left}")
            second.run("-exec-continue", NO_MORE)
            second.run("-exec-continue --reverse", NO_MORE)
            second.command("-target-detach")
        stub.ends_identical()


def bad_clients(bench):
    rubbish = (b"$m4000", b"", b"\x03\x03\x03", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 20, b"$" + b"x" * 1_000_000 + b"#00", b"-" * 100,
               b"$vCont;c#a8$g", b"$Z0,ffffffffffffffff,1#", b"$bc#c5\x03")
    with Stub(bench, small(bench)) as stub:
        for text in rubbish:
            with Packets(stub) as client:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.socket.sendall(text)
        with Gdb(bench, "lost_update") as killed:
            killed.attach(stub)
            killed.command("-break-insert workload")
            killed.start("-exec-continue")
            time.sleep(0.2)
        with Gdb(bench, "lost_update") as good:
            good.attach(stub)
            expect("No breakpoints" in good.says("info breakpoints"), "a breakpoint of a GDB that was killed is there")
            good.run('-interpreter-exec console "starti"')
            good.command("-break-insert workload")
            good.run("-exec-continue", 'reason="breakpoint-hit".*func="reprise::guest::workload"')
            good.command("-target-detach")
        stub.ends_identical()


def many_breakpoints(bench):
    count, base = 10_000, 0x3000000  # RAM that the guest does not use
    with Stub(bench, small(bench)) as stub:
        with Gdb(bench, "lost_update") as gdb:
            gdb.attach(stub)
            entry = int(re.search(r"0x[0-9a-f]+", gdb.says("info line workload"))[0], 16)
            gdb.command("-target-disconnect")
        with Packets(stub) as client:
            expect(client.ask(b"qSupported").startswith(b"PacketSize"), "no answer to qSupported")
            addresses = [base + 16 * i for i in range(count)]
            start = time.monotonic()
            for address in (entry, *addresses):
                expect(client.ask(b"Z0,%x,1" % address) == b"OK", f"breakpoint {address:#x} is refused")
            placed = time.monotonic()
            stop = client.ask(b"vCont;c")
            expect(re.match(rb"T05(swbreak|.*thread)", stop), f"continue with {count} breakpoints: {stop!r}")
            rip = re.search(rb"10:([0-9a-f]{16})", stop)[1]
            expect(int.from_bytes(bytes.fromhex(rip.decode()), "little") == entry, f"stopped at {rip}, not at {entry:#x}")
            ran = time.monotonic()
            expect(client.ask(b"bc").startswith(b"T05replaylog:begin"), "reverse-continue does not come to the beginning")
            expect(client.ask(b"vCont;c") == stop, "the second time it stops elsewhere")
            for address in (entry, *addresses):
                expect(client.ask(b"z0,%x,1" % address) == b"OK", f"breakpoint {address:#x} cannot be removed")
            expect(client.ask(b"vCont;c").startswith(b"T05replaylog:end"), "a breakpoint is left")
            expect(ran - placed < 10, f"continue took {ran - placed:.1f} s with {count} breakpoints")
            expect(client.ask(b"D") == b"OK", "detach is refused")
        stub.ends_identical()
    return f"set in {placed - start:.1f} s, continue {ran - placed:.1f} s"


def interrupted(bench):
    """A guest that computes for seconds, with a stop now and then only."""
    folder = bench.folder / "recording"
    count = count_for(bench, "lost_update", 1_000_000, 3)
    record(bench, folder, "lost_update", f"n={count}", vcpus=1)
    longest = 0
    with Stub(bench, folder) as stub, Gdb(bench, "lost_update") as gdb:
        gdb.attach(stub)
        end = gdb.says("monitor when").split()[-1].rstrip(".\n")

        def interrupt(command):
            nonlocal longest
            gdb.start(command)
            time.sleep(0.2)  # two of these must fit into what `count` takes, also where it was measured on a busier machine
            os.kill(gdb.process.pid, signal.SIGINT)
            asked = time.monotonic()
            stop = gdb.until(r"\*stopped")[-1]
            longest = max(longest, time.monotonic() - asked)
            expect('signal-name="SIGINT"' in stop, f"{command} is not interrupted: {stop}")
            return gdb.when()

        at = [interrupt("-exec-continue") for _ in range(2)]
        expect(at[0] != at[1], f"the second continue does not go on from {at[0]}")
        gdb.command("-break-insert workload")
        at.append(interrupt("-exec-continue"))  # looks for a breakpoint
        gdb.run(f'-interpreter-exec console "starti {end}"')
        at.append(interrupt("-exec-continue --reverse"))
        expect(all(0 < int(mark.split(".")[0]) < int(end) for mark in at), f"it was interrupted at {at}, the end is {end}")
        gdb.run("-exec-continue --reverse", 'reason="breakpoint-hit"')
        gdb.command("-target-detach")
        stub.ends_identical()
    expect(longest < 5, f"an interruption took {longest:.1f} s")
    return f"stopped {longest:.2f} s after Ctrl-C at the latest"


def checkpoints_and_conditions(bench):
    with Stub(bench, small(bench)) as stub, Gdb(bench, "lost_update") as gdb:
        gdb.attach(stub)
        gdb.command("-break-insert workload")
        gdb.run("-exec-continue", 'reason="breakpoint-hit"')
        expect("checkpoint 1 at" in gdb.says("monitor checkpoint"), "no checkpoint is made")
        kept, digest = gdb.when(), gdb.says("monitor digest")
        gdb.command("-break-delete 1")
        # The store of the sum. GDB sends the condition along, and the stub evaluates it.
        counted = f"*(unsigned long *) {counter_of(bench)}"
        gdb.command(f'-break-insert -c "{counted} > 20" racy.h:18')
        gdb.run("-exec-continue", 'reason="breakpoint-hit"')
        expect(gdb.says(f"print {counted} > 20") == "$1 = true\n", "the condition does not hold where it stopped")
        there = gdb.says("print $rcx")
        thread = re.search(r"Current thread is (\d)", gdb.says("thread"))[1]
        expect("checkpoint 2 at" in gdb.says("monitor checkpoint"), "no second checkpoint is made")
        listed = gdb.says("monitor checkpoints")
        expect(re.search(rf"1 +{re.escape(kept)}\n2 +{re.escape(gdb.when())}\n", listed), f"checkpoints: {listed}")
        expect(f"now at {kept}\n" in gdb.says("monitor restart 1"), "restart goes elsewhere")
        expect(gdb.says("monitor digest") == digest, "the machine differs after restart")
        gdb.run('-interpreter-exec console "starti c2"')
        gdb.command(f"-thread-select {thread}")
        said = gdb.says("print $rcx")
        expect(said.split("=")[1] == there.split("=")[1], f"starti c2 goes elsewhere: {said}")
        gdb.command("-target-detach")
        stub.ends_identical()


def machine_interface(bench):
    with Stub(bench, small(bench)) as stub, Gdb(bench, "lost_update") as gdb:
        gdb.attach(stub, "remote")
        expect('name="vCPU 1"' in gdb.command("-thread-info"), "no thread for vCPU 1")
        gdb.command("-break-insert workload")
        gdb.run("-exec-continue", 'reason="breakpoint-hit".*thread-id="1"')
        marks, digests = [gdb.when()], [gdb.says("monitor digest")]
        for command in ("-exec-next-instruction", "-exec-step-instruction"):
            gdb.run(command, 'reason="end-stepping-range"')
            marks.append(gdb.when())
            digests.append(gdb.says("monitor digest"))
        expect(len(set(marks)) == 3, f"two steps lead to {marks}")
        for i, command in ((1, "-exec-next-instruction --reverse"), (0, "-exec-step-instruction --reverse")):
            gdb.run(command, "stopped")
            expect((gdb.when(), gdb.says("monitor digest")) == (marks[i], digests[i]), f"{command} leads to {gdb.when()}, not {marks[i]}")
        gdb.command("-break-delete 1")
        gdb.run("-exec-next", 'reason="end-stepping-range"')
        gdb.run("-exec-finish --reverse", "stopped")
        gdb.run("-exec-continue --reverse", NO_MORE)
        expect(re.search(r'register-values=\[\{number="16",value="0x', gdb.command("-data-list-register-values x 16")), "no rip")
        gdb.run('-interpreter-exec console "continue"', NO_MORE)
        gdb.command("-target-detach")
        stub.ends_identical()


def tests(_options):
    return [Test("stub/one-after-another", one_after_another), Test("stub/bad-clients", bad_clients), Test("stub/many-breakpoints", many_breakpoints),
            Test("stub/interrupted", interrupted), Test("stub/checkpoints-and-conditions", checkpoints_and_conditions),
            Test("stub/machine-interface", machine_interface)]
