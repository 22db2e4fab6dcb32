"""Host C: Bochs emulating an Intel processor with VMX and EPT.

It has no shared folders: what commands need is carried in with the initramfs (initramfs.py), on the CD that it boots
from, and --out DIR comes back as an archive when the command has ended. Frames go over its second UART, which
Bochs connects to a TCP port of this process.
"""
import contextlib
import io
import os
import pathlib
import re
import socket
import subprocess
import tarfile
import threading
import time
import tty

from lab_machine import CANNOT, ROOT, LabError, initramfs, kernel
from lab_machine.machine import Machine
from lab_machine.session import MAGIC, Session

# reboot=t: a crashed kernel ends by a triple fault, which Bochs takes for its own end; it would boot again otherwise.
APPEND = ("console=ttyS0 quiet panic=-1 oops=panic reboot=t mitigations=off nokaslr norandmaps nowatchdog "
          "cryptomgr.notests=1 rodata=off ipv6.disable=1 random.trust_cpu=on 8250.nr_uarts=2 rdinit=/init reprise.lab=ept")
# Without accessed and dirty bits in EPT, the processor's walk of guest page tables only reads them.
MODULE_OPTIONS = {"kvm_intel": "eptad=0"}
# ips says how many instructions make a second inside; with sync=none, time inside does not wait for time outside, and idle time
# inside passes at once. Of Bochs 2.7's models, this one passes KVM_SET_SREGS; skylake_x does not.
# The UART is "client": as a server, Bochs would take a port that somebody else may have taken meanwhile.
SETTINGS = """\
config_interface: textconfig
display_library: term
log: {folder}/bochs.log
debugger_log: -
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_haswell_4770, count={smp}, ips=50000000, reset_on_triple_fault=0
memory: guest={mem}, host={mem}
clock: sync=none
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/console.log
com2: enabled=1, mode=socket-client, dev=127.0.0.1:{port}
"""
ISOLINUX = """\
default lab
prompt 0
label lab
  kernel vmlinuz
  initrd initramfs
  append {append}
"""
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD") or ROOT / "build" / "release").resolve()


class Bochs(Machine):
    """One Bochs, one command at a time."""

    LOG = "bochs.out"
    BOOT_SECONDS = ANSWER_SECONDS = 600  # a boot takes about 50 s of a processor's time, minutes on a loaded machine

    ready = False

    def boot(self, options, stay):
        if subprocess.run([ROOT / "tools" / "setup", "--ept"]).returncode:
            raise LabError(CANNOT, "")
        fetched = kernel.fetch_kernel("cloud")
        carried = [*initramfs.what_tests_need(BUILD), *filter(None, os.environ.get("REPRISE_LAB_FILES", "").split(":")),
                   *getattr(options, "with")]
        self.out = pathlib.Path(options.out).resolve() if options.out else None
        folders = [os.getcwd()]
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            folders.append(str(self.out))
        archive = initramfs.for_carried_tree(fetched, MODULE_OPTIONS, [pathlib.Path(path).absolute() for path in carried], folders)
        self.write_disc(fetched, archive)
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings = SETTINGS.format(folder=self.folder, smp=options.smp, mem=options.mem, port=server.getsockname()[1])
            (self.folder / "bochsrc").write_text(settings)
            (self.folder / "start").write_text("c\n")  # Debian's Bochs starts in its debugger; this is its "continue"
            self.spawn(["bochs-bin", "-q", "-f", self.folder / "bochsrc", "-rc", self.folder / "start"], stay,
                       env={**os.environ, "TERM": "xterm"})
            self.connection = self.accept(server)
        self.drain_display()

    def write_disc(self, fetched, archive):
        disc = self.folder / "disc"
        disc.mkdir()
        os.symlink(fetched / "vmlinuz", disc / "vmlinuz")
        (disc / "initramfs").write_bytes(archive)
        (disc / "isolinux.cfg").write_text(ISOLINUX.format(append=APPEND))
        os.symlink("/usr/lib/syslinux/modules/bios/ldlinux.c32", disc / "ldlinux.c32")
        (disc / "isolinux.bin").write_bytes(pathlib.Path("/usr/lib/ISOLINUX/isolinux.bin").read_bytes())
        made = subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-f", "-o", self.folder / "boot.iso", "-b", "isolinux.bin",
                               "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", disc],
                              capture_output=True, text=True)
        if made.returncode:
            raise LabError(CANNOT, f"xorriso cannot write the lab's disc: {made.stderr.strip()}")

    def drain_display(self):
        """Reads what the display writes to the terminal that it has made: a terminal that nobody reads is full after some minutes, and Bochs
        then waits for ever."""
        descriptors = pathlib.Path(f"/proc/{self.process.pid}/fd")
        made = [link.name for link in descriptors.iterdir() if os.readlink(link) == "/dev/ptmx"]
        for number in made:
            information = (descriptors.parent / "fdinfo" / number).read_text()
            index = re.search(r"^tty-index:\s*(\d+)", information, re.M)[1]
            terminal = os.open(f"/dev/pts/{index}", os.O_RDWR | os.O_NOCTTY)
            tty.setraw(terminal)  # else it keeps what is no whole line
            threading.Thread(target=self.read_to_end, args=[terminal], daemon=True).start()

    @staticmethod
    def read_to_end(terminal):
        with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as display:
            while display.read(4096):
                pass

    def accept(self, server):
        server.settimeout(0.2)
        while True:
            with contextlib.suppress(TimeoutError):
                return server.accept()[0]
            if self.process.poll() is not None:
                raise LabError(CANNOT, "Bochs does not start:\n" + self.tail("bochs.log") + self.tail(self.LOG))

    @contextlib.contextmanager
    def claim_slot(self):
        if not self.ready:
            # What is sent before the agent listens is lost.
            waiting = Session(self, self.connection, terminal=False, use_stdin=False)
            waiting.skip_to(MAGIC, time.monotonic() + self.BOOT_SECONDS, f"no lab after {self.BOOT_SECONDS} s")
            self.ready = True
        yield self.connection

    def fetch_out(self, options):
        """Brings back what is inside under --out DIR. Ends a command that still runs: there is one slot."""
        if not self.out or not self.alive():
            return
        packed = io.BytesIO()
        options.stdin, options.timeout = False, 0
        self.run(["tar", "-C", str(self.out), "-czf", "-", "."], self.ANSWER_SECONDS, options,
                 write=lambda fd, data: packed.write(data) if fd == 1 else None)
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(self.out)
