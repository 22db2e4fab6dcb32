"""Host B: QEMU (TCG) emulating an AMD processor with SVM and nested paging, over the outside's file tree."""
import fcntl
import os
import pathlib
import re
import shutil
import socket
import time

from lab_machine import CANNOT, ROOT, LabError, initramfs, kernel, pmu_qemu
from lab_machine.machine import Machine

SLOTS = 8  # commands side by side in one lab
# norandmaps: the emulator keeps translated code by address; with random ones it translates every program anew.
# tsc=reliable: an emulated HPET costs an exit to the emulator's main loop at every look at the clock, and KVM looks at each exit;
# the emulated TSCs are one counter, which the kernel's synchronisation test is too slow to see.
APPEND = ("console=ttyS0 tsc=reliable clocksource=tsc quiet panic=-1 oops=panic mitigations=off nokaslr norandmaps nowatchdog cryptomgr.notests=1 "
          "rodata=off ipv6.disable=1 8250.nr_uarts=1 random.trust_cpu=on rdinit=/init")
# An interrupt of the counter takes long under emulation, and the kernel would make them rarer.
MORE = {"pmu": " sysctl.kernel.perf_cpu_time_max_percent=0"}
MODULE_OPTIONS = {"shadow": {"kvm_amd": "npt=0"}}  # KVM then shadows the guest's page tables
# One emulating thread for all processors: with one each, QEMU (7.2 and 10.0) corrupts the lab kernel's stacks after
# some minutes of nested guests, whoever runs them (docs/hosts.md).
ACCELERATOR = "tcg,thread=single"


class Qemu(Machine):
    """One QEMU. Its folder also has sockets slot.N and pid, so that other processes find it if it is kept."""

    LOG = "qemu.log"
    BOOT_SECONDS = 180  # a boot takes 6 to 8 s on two free cores; more only means that the machine is loaded
    ANSWER_SECONDS = 60  # a lab that is up starts a command within 50 ms

    def boot(self, options, stay):
        for tool, package in [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"),
                              ("g++", "g++"), ("strip", "binutils")]:
            if not shutil.which(tool):
                raise LabError(CANNOT, f"{tool} is missing; ./dev setup as root installs {package}")
        fetched = kernel.fetch_kernel("backports" if options.host == "backports" else "qemu")
        # Paths with a space would need quoting in three languages: refused rather than got wrong.
        shares = [("tree", "ro", str(ROOT))]
        if options.out:
            out = pathlib.Path(options.out).resolve()
            out.mkdir(parents=True, exist_ok=True)
            shares.append(("out", "rw", str(out)))
        for _, _, path in shares:
            if re.search(r"[\s,]", path):
                raise LabError(CANNOT, f"the lab cannot share {path}: a space or comma in its name")
        (self.folder / "initramfs").write_bytes(initramfs.for_shared_tree(fetched, MODULE_OPTIONS.get(options.host, {}), shares))
        program, environment = "qemu-system-x86_64", {}
        if options.host == "pmu":
            program, environment = pmu_qemu.fetch_qemu(), {"QEMU_PMU_SKID": options.pmu_skid, "QEMU_PMU_WRONG": options.pmu_wrong or ""}
        processor = "EPYC,+svm,+npt" + (",+perfctr-core" if options.host == "pmu" else "")
        command = [program, "-M", "q35", "-accel", ACCELERATOR, "-cpu", processor,
                   "-smp", str(options.smp), "-m", str(options.mem), "-display", "none", "-no-reboot", "-nodefaults",
                   "-kernel", fetched / "vmlinux", "-initrd", self.folder / "initramfs", "-append", f"{APPEND}{MORE.get(options.host, '')} reprise.lab={options.host}",
                   "-serial", f"file:{self.folder}/console.log", "-pidfile", self.folder / "pid",
                   "-device", f"virtio-serial-pci,max_ports={SLOTS + 1}"]
        for slot in range(SLOTS):
            command += ["-chardev", f"socket,id=slot{slot},path={self.folder}/slot.{slot},server=on,wait=off",
                        "-device", f"virtserialport,chardev=slot{slot},name=slot.{slot},nr={slot + 1}"]
        for tag, mode, path in [("root", "ro", "/"), *shares]:
            command += ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap"
                        + (",readonly=on" if mode == "ro" else "")]
        self.spawn(command, stay, env={**os.environ, **environment})
        while not (self.folder / f"slot.{SLOTS - 1}").exists():
            if self.process.poll() is not None:
                raise LabError(CANNOT, "QEMU does not start:\n" + self.tail("qemu.log"))
            time.sleep(0.02)

    def alive(self):
        try:
            pid = int((self.folder / "pid").read_text())
            return "qemu" in pathlib.Path(f"/proc/{pid}/cmdline").read_text() and pid
        except (OSError, ValueError):
            return 0

    def claim_slot(self):
        """A free slot, held by a file lock; waits for the last one if all are busy."""
        for slot in range(SLOTS):
            lock = open(self.folder / f"lock.{slot}", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if slot < SLOTS - 1 else 0))
            except BlockingIOError:
                lock.close()
                continue
            return Slot(lock, self.folder / f"slot.{slot}")

    def fetch_out(self, options):
        """What a command writes under --out is written outside at once."""


class Slot:
    def __init__(self, lock, path):
        self.lock = lock
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(str(path))

    def __enter__(self):
        return self.connection

    def __exit__(self, *_):
        self.connection.close()
        self.lock.close()
