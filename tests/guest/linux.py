"""Linux guests: Debian's kernel as it is, with the programs of guest-images/linux (tools/linux-guest makes both)."""
import hashlib
import json
import re
import shutil
import subprocess
import time

from checkpoints import make, used_exactly
from debugger import FLUSH, converse, gdb
from harness import (BUILD, CANNOT_WRITE, DAMAGED, GUEST_FAILED, HOST_CANNOT, NOT_FOUND, OK, USAGE, Skip, Terminal, Test, expect, nested_paging, one_sentence, replay_alike,
                     report_of)

GUEST = BUILD / "guest-images" / "linux"
# Guest seconds in one of the lab's: with more, most of its time would go into the kernel's timer tick.
PACE = "0.1"
# What the guest can do by run=.
PARTS = ["race", "locks", "signals", "memory", "forks", "futex", "spin", "timers", "stamps", "files", "loopback", "script"]
SECONDS = 600
# Stops of a vCPU from one digest of its memory to the next.
COMPARED = 2000
CALL = "((unsigned (*)(void)) get_random_u32)()"
QUIET = "console=ttyS0 quiet mitigations=off panic=-1"


def file(bench, name, maker="tools/linux-guest"):
    """The file `name` of the guest, on a fast disk."""
    if not (GUEST / name).exists():
        raise Skip(f"{GUEST / name} is not there; {maker} makes it")
    with bench.installation.lock:
        if not (bench.installation.folder / name).exists():
            shutil.copy(GUEST / name, bench.installation.folder / name)
    return bench.installation.folder / name


def files(bench, initrd="initrd"):
    """(kernel, initrd), on a fast disk."""
    if not nested_paging():
        raise Skip("KVM shadows page tables here, and a Linux guest is refused; ./dev lab linux/ has a host for it")
    return file(bench, "vmlinuz"), file(bench, initrd)


def words_for(bench, run, vcpus, *more, initrd="initrd"):
    kernel, initrd = files(bench, initrd)
    return ["--kernel", kernel, "--initrd", initrd, "--append", f"{QUIET} {run}", "--vcpus", vcpus, "--pace", PACE, *more]


def machine_digests(bench, folder):
    kinds = json.loads(bench.reprise("info", "--json", folder).out)["summary"]["kinds"]
    return next(kind["events"] for kind in kinds if kind["kind"] == "machine")


def record_and_replay(bench, run, vcpus, pace, words, extra):
    """Records one run of the guest, replays it, compares. Returns the recording's report. For tools/soak."""
    kernel, initrd = files(bench)
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", "--kernel", kernel, "--initrd", initrd, "--append", f"{QUIET} {words} run={run}", "--vcpus", vcpus,
                         "--pace", pace, "--memory-digest-every", COMPARED, *extra, "-o", folder)
    expect(done.status == OK and b"guest: failed=0" in done.err, f"record ends with {done.status}", done)
    report = report_of(done)
    replay_alike(bench, folder, report, done.err)
    return report


def mix(name, run, vcpus, replays, initrd="initrd", says=b"guest: failed=0", disk=False):
    def test(bench):
        folder = bench.folder / "recording"
        more = ["--disk", file(bench, "root.img", "tools/debian-root")] if disk else []
        words = words_for(bench, run, vcpus, "--memory-digest-every", COMPARED, *more, "-o", folder, initrd=initrd)
        done = bench.reprise("record", "--json", *words, timeout=SECONDS)
        expect(done.status == OK, f"record ends with {done.status}", done)
        expect(b"guest: failed=0" in done.err and says in done.err, "the guest did not say that all went well", done)
        expect(f", {vcpus} CPUs, ".encode() in done.err, f"the kernel did not find {vcpus} CPUs", done)
        report = report_of(done)
        verified = bench.reprise("verify", folder)
        expect(verified.status == OK, "verify does not pass", verified)
        for _ in range(replays):
            replay_alike(bench, folder, report, done.err, SECONDS)
        stops = sum(vcpu["stops"] for vcpu in report["vcpus"])
        digests = machine_digests(bench, folder)
        expect(digests == sum(vcpu["stops"] // COMPARED for vcpu in report["vcpus"]), f"{digests} digests of the machine are not one each {COMPARED} stops", done)
        spins = sum(vcpu["spins"] for vcpu in report["vcpus"])
        expect("spin" not in run and run != "run=all" or vcpus == 1 or spins > 0, "no spin-wait had to be stopped", done)
        return f"{stops} stops, {spins} in spin-waits, {digests} digests of the machine, {report['tickets']} turns, {report['log_bytes']} bytes of log, recorded in {report['wall_ns'] / 1e9:.1f} s"

    return Test(f"linux/{name}-{vcpus}", test)


def session(name, tty, *options):
    """A person types at the guest's shell while it is recorded, and the replay shows the same session."""

    def test(bench):
        folder = bench.folder / "recording"
        terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=shell", 2, *options, "-o", folder)])
        terminal.read_until(b"/ # ", SECONDS)
        terminal.type(b"echo $((6 * 7)) on $(nproc) CPUs at $(tty)\r")
        terminal.read_until(b"42 on 2 CPUs at " + tty, SECONDS)
        terminal.type(b"sleep 100\r")
        terminal.read_until(b"sleep 100", SECONDS)
        time.sleep(1)
        terminal.type(b"\x03")  # to the guest: its shell gets SIGINT
        terminal.read_until(b"/ # ", SECONDS)
        terminal.type(b"exit\r")
        status = terminal.end(SECONDS)
        expect(status == OK, f"record ends with {status}: {terminal.seen[-300:]!r}")
        done = bench.reprise("replay", folder, timeout=SECONDS)
        expect(done.status == OK, "the session does not replay", done)
        expect(b"42 on 2 CPUs at " + tty in done.out and done.out == (folder / "console").read_bytes(), "the replay shows another session", done)

    return Test(f"linux/{name}", test)


def make_disk(bench):
    """A small ext4 image with one file in it; (path, SHA-256)."""
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin")
    if not mke2fs:
        raise Skip("mke2fs is not there: e2fsprogs has it")
    content, image = bench.folder / "content", bench.folder / "disk.img"
    content.mkdir()
    (content / "greeting").write_text("a greeting\n")
    subprocess.run([mke2fs, "-q", "-F", "-t", "ext4", "-d", content, image, "16M"], check=True, capture_output=True)
    return image, sha256(image)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def disk(vcpus, replays):
    """Files on an ext4 file system, with fsync; the image stays as it was, and a replay demands it."""

    def test(bench):
        folder = bench.folder / "recording"
        image, before = make_disk(bench)
        done = bench.reprise("record", "--json", *words_for(bench, "run=disk", vcpus, "--disk", image, "-o", folder), timeout=SECONDS)
        expect(done.status == OK and b"guest: failed=0" in done.err, f"record ends with {done.status}", done)
        expect(b"begins with a greeting" in done.err and done.err.count(b"/disk/copy") == 2, "the guest has not seen its files", done)
        report = report_of(done)
        for _ in range(replays):
            replay_alike(bench, folder, report, done.err, SECONDS)
        expect(sha256(image) == before, "the image was altered")
        moved = bench.folder / "moved.img"
        image.rename(moved)
        one_sentence(bench.reprise("replay", folder), NOT_FOUND, r"disk\.img is not there: .*--disk.*hash [0-9a-f]{32}")
        again = bench.reprise("replay", folder, "--disk", moved, timeout=SECONDS)
        expect(again.status == OK and again.out == done.err, "the image is not accepted in another place", again)
        with open(moved, "r+b") as file:
            file.seek(5 << 20)
            file.write(b"!")
        one_sentence(bench.reprise("replay", folder, "--disk", moved), DAMAGED, r"is not the disk image .* its hash is [0-9a-f]{32}, recorded was [0-9a-f]{32}")
        return f"{sum(vcpu['mmio'] for vcpu in report['vcpus'])} accesses to devices in memory, {report['log_bytes']} bytes of log, recorded in {report['wall_ns'] / 1e9:.1f} s"

    return Test(f"linux/disk-{vcpus}", test)


def disks(bench):
    """Two disks, one of them qcow2 with a backing file, the other read-only: serial numbers, discarding, what was written is kept; the same content
    replays from a raw image; packed, the recording replays without images."""
    if shutil.which("qemu-img") is None:
        raise Skip("qemu-img is not here")
    folder = bench.folder / "recording"
    base, _ = make_disk(bench)
    top, data, raw, kept = (bench.folder / name for name in ("top.qcow2", "data.img", "top.raw", "kept.qcow2"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top], check=True, capture_output=True)
    data.write_bytes(b"seven sectors".ljust(512, b"!") * 7)
    before = sha256(base), sha256(top), sha256(data)
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=shell", 2, "--disk", f"{top},format=qcow2,serial=TOP-1",
                                                                          "--disk", f"{data},serial=DATA-2,read-only", "--keep-writes", kept, "-o", folder)])
    terminal.read_until(b"/ # ", SECONDS)
    for command, answer in (("cd /sys/block; echo $(cat vda/serial vdb/serial vda/ro vdb/ro); cd /", b"TOP-1DATA-20 1"),
                            ("head -c 13 /dev/vdb; echo x | dd of=/dev/vdb 2>/dev/null || echo refused", b"seven sectorsrefused"),
                            ("mkdir /disk; mount -t ext4 /dev/vda /disk && cat /disk/greeting", b"a greeting"),
                            ("cp /bin/busybox /disk/copy; sync; rm /disk/copy; fstrim /disk && echo trim''med", b"trimmed"),
                            ("echo from the guest >/disk/kept; umount /disk && echo un''mounted", b"unmounted")):
        terminal.type(command.encode() + b"\r")
        terminal.read_until(answer, SECONDS)
        terminal.read_until(b"/ # ", SECONDS)
    terminal.type(b"exit\r")
    status = terminal.end(SECONDS)
    expect(status == OK, f"record ends with {status}: {terminal.seen[-300:]!r}")
    expect((sha256(base), sha256(top), sha256(data)) == before, "an image was altered")
    subprocess.run(["qemu-img", "convert", "-O", "raw", kept, bench.folder / "kept.raw"], check=True)
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin")
    content = subprocess.run([debugfs, "-R", "cat /kept", bench.folder / "kept.raw"], check=True, capture_output=True).stdout
    expect(content == b"from the guest\n", f"what the guest wrote is not kept: {content!r}")
    subprocess.run(["qemu-img", "convert", "-O", "raw", top, raw], check=True)
    for moved in ([], ["--disk", raw]):
        done = bench.reprise("replay", folder, *moved, timeout=SECONDS)
        expect(done.status == OK and done.out == (folder / "console").read_bytes(), f"it does not replay {moved}", done)
    one_sentence(bench.reprise("replay", folder, *["--disk", raw] * 3), USAGE, "had 2 disks, --disk names 3")
    return pack(bench, folder, (top, base, data))


def pack(bench, folder, images):
    """On a disk that is full, nothing is lost; else the recording replays without its images, which another content is not taken for."""
    console = (folder / "console").read_bytes()
    full = bench.folder / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sum(file.stat().st_size for file in folder.iterdir()) // 1024 + 64}k", "tmpfs", full])
    expect(mounted.returncode == 0, "cannot mount a tmpfs")
    try:
        shutil.copytree(folder, full / "recording")
        names = sorted(path.name for path in (full / "recording").iterdir())
        failed = bench.reprise("pack", full / "recording", timeout=SECONDS)
        one_sentence(failed, CANNOT_WRITE, "No space left")
        expect(sorted(path.name for path in (full / "recording").iterdir()) == names, "the full disk has other files")
        expect(bench.reprise("verify", full / "recording").status == OK, "the recording on the full disk does not verify")
    finally:
        subprocess.run(["umount", "-l", full], check=True)
    packed = bench.reprise("pack", "--json", folder, timeout=SECONDS)
    expect(packed.status == OK, "pack fails", packed)
    report = report_of(packed)
    with open(images[1], "r+b") as file:
        file.write(b"!")
    one_sentence(bench.reprise("replay", folder, "--disk", f"{images[0]},format=qcow2"), DAMAGED, r"top.qcow2 is not the disk image that was recorded: its hash")
    for image in images:
        image.unlink()
    done = bench.reprise("replay", folder, timeout=SECONDS)
    expect(done.status == OK and done.out == console, "it does not replay without its images", done)
    with open(folder / "disk-0.blocks", "r+b") as file:
        file.write(b"!")
    one_sentence(bench.reprise("replay", folder), DAMAGED, "disk-0.blocks is not what was packed")
    return f"packed {report['bytes']} bytes in {report['seconds']:.1f} s"


def domain(bench):
    """A machine by libvirt's definition is recorded, and the definition of the recording is the same machine again."""
    kernel, initrd = files(bench)
    first, second = bench.folder / "first", bench.folder / "second"
    definition = bench.folder / "definition.xml"
    definition.write_text(f"<domain type='kvm'><name>mix</name><memory unit='MiB'>192</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type>"
                          f"<kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{QUIET} run=files</cmdline></os>"
                          "<devices><serial type='pty'/><rng model='virtio'/><video/><interface type='user'/></devices></domain>")
    done = bench.reprise("record", "--json", "--domain-xml", definition, "--pace", PACE, "-o", first, timeout=SECONDS)
    expect(done.status == OK and b", 2 CPUs, " in done.err and b"guest: failed=0" in done.err, "the definition does not run", done)
    replay_alike(bench, first, report_of(done), done.err, SECONDS)
    written = bench.reprise("domain-xml", first)
    expect(written.status == OK and written.err == b"", "domain-xml fails", written)
    definition.write_bytes(written.out)
    again = bench.reprise("record", "--json", "--domain-xml", definition, "--pace", PACE, "-o", second, timeout=SECONDS)
    expect(again.status == OK and b"guest: failed=0" in again.err, "what domain-xml writes does not run", again)
    machines = [json.loads(bench.reprise("info", "--json", folder).out)["manifest"] for folder in (first, second)]
    for machine in machines:
        for image in (machine["image"], machine["initrd"]):
            del image["original_path"]
    expect(machines[0] == machines[1], f"another machine: {machines[1]} instead of {machines[0]}")


def timeline(name, run, vcpus, *options, disk=False, says=b""):
    """A replay forwards and backwards (as the suite timeline): every moment that is come back to has the digest that it had, and the end is the recorded one."""

    def test(bench):
        folder = bench.folder / "recording"
        more = ["--disk", make_disk(bench)[0]] if disk else []
        # Less memory than usual: each digest and each checkpoint reads all of it.
        done = bench.reprise("record", "--json", *words_for(bench, run, vcpus, "--memory", 128, *options, *more, "-o", folder), timeout=SECONDS)
        expect(done.status == OK and b"guest: failed=0" in done.err, f"record ends with {done.status}", done)
        command = [BUILD / "tests" / "guest" / "seek", folder, 12, vcpus, 100_000, 500]
        sought = bench.command(command, SECONDS)
        expect(sought.status == OK, "a moment differs", sought)
        expect(re.search(says, sought.out), f"it does not say {says!r}", sought)
        return f"{report_of(done)['tickets']} turns, {sought.out.decode().strip()}"

    return Test(f"linux/timeline-{name}-{vcpus}", test)


def checkpoints(name, tty, *options):
    """A guest that is typed at and writes to its disk: a new session goes on from each checkpoint of it, with the digests of a straight run."""

    def test(bench):
        folder = bench.folder / "recording"
        words = words_for(bench, "run=shell", 2, "--memory", 128, "--disk", make_disk(bench)[0], *options, "-o", folder)
        terminal = Terminal([bench.installation.reprise, "record", *words])
        terminal.read_until(b"/ # ", SECONDS)
        terminal.type(b"mkdir -p /disk; mount -t ext4 /dev/vda /disk; for i in 1 2 3 4 5 6; do cp /bin/busybox /disk/$i; sync; done\r")
        terminal.read_until(b"/ # ", SECONDS)
        terminal.type(b"cmp /disk/1 /disk/6 && echo the same $((6 * 7)) at $(tty)\r")
        terminal.read_until(b"the same 42 at " + tty, SECONDS)
        terminal.type(b"exit\r")
        status = terminal.end(SECONDS)
        expect(status == OK, f"record ends with {status}: {terminal.seen[-300:]!r}")
        return used_exactly(bench, folder, make(bench, folder, 1, SECONDS), SECONDS, seeks=12, one_in=500)

    return Test(f"linux/checkpoints-{name}", test)


def debugger(vcpus):
    """GDB in the kernel: a breakpoint in a system call's handler, its caller, steps forward and back, the last write to a variable before that, and the recorded end."""

    def test(bench):
        folder = bench.folder / "recording"
        done = bench.reprise("record", "--json", *words_for(bench, "run=boot", vcpus, "--memory", 128, "-o", folder), timeout=SECONDS)
        expect(done.status == OK, f"record ends with {done.status}", done)
        # The last system call; from the stop before it there is little to be stepped over.
        commands = ["break start_kernel", "continue", "delete", "break __x64_sys_reboot", "continue", "monitor when", "monitor digest", "backtrace 2", "x/i $rip",
                    "stepi", "stepi", "monitor when", "reverse-stepi", "reverse-stepi", "monitor when", "monitor digest", "delete",
                    # Written when the kernel is up, and read by all of it, on a page that is.
                    "watch *(int *) &system_state", "reverse-continue", "backtrace 1", "monitor when", "delete", "break __x64_sys_reboot", "continue", "monitor when",
                    "monitor digest", "delete",
                    # Functions of the kernel are called.
                    "monitor diversion begin", f"print {CALL} != {CALL}", "monitor diversion end", *FLUSH, "monitor digest"]
        there = len(commands)
        if vcpus > 1:  # out of a system call and back into it: a hundred thousand steps behind a stop
            commands += ["monitor seek 2", "break *entry_SYSRETQ_unsafe_stack", "continue", "stepi", "stepi", "x/i $rip", "monitor when", "stepi", "p $rip < 1ul << 47",
                         "reverse-stepi", "x/i $rip", "monitor when", "delete",
                         # All the way back, to what is executed once, in a gap of many instructions between two stops.
                         "monitor seek end", "break start_kernel", "reverse-continue", "delete"]
        # What if: a changed machine goes on from a return to user mode to its end; nothing of that is left.
        fork = len(commands)
        commands += ["monitor seek 2", *FLUSH, "break *entry_SYSRETQ_unsafe_stack", "continue", "delete", "monitor when", "monitor digest", "monitor diversion begin",
                     "set var *(int *) &system_state = 7", 'eval "break *%lu", $rcx', "continue", "print ($cs & 3) == 3 && $rip == $rcx", "stepi", "delete",
                     "break kernel_power_off", "continue", "print *(int *) &system_state", "delete", "continue", "monitor diversion end", *FLUSH, "monitor when", "monitor digest",
                     # A condition that is never true.
                     "break ksys_write if $rdx == 77777", "continue", "delete"]
        said, done = gdb(bench, folder, commands, SECONDS)

        def has(i, pattern):
            expect(re.search(pattern, said[i]), f"{commands[i]} says {said[i]!r}, not {pattern!r}", done)

        has(1, r"Breakpoint 1, 0x[0-9a-f]{16} in start_kernel \(\)")
        has(4, r"Breakpoint 2, 0x[0-9a-f]{16} in __x64_sys_reboot \(\)")
        has(7, r"(?s)#0 .*__x64_sys_reboot.*#1 .*do_syscall_64")
        has(8, r"<__x64_sys_reboot>:")
        here, digest = said[5], said[6]
        expect(said[11] != here and said[14] == here, f"two steps and back: {here}, {said[11]}, {said[14]}", done)
        expect(said[15] == digest, f"two steps and back change the digest: {digest}, {said[15]}", done)
        has(18, r"(?s)Hardware watchpoint 3.*Old value = 3\nNew value = 2")
        has(19, r"#0 .* kernel_init \(\)")
        expect(said[20] != here and said[24] == here, f"back and forward again: {here}, {said[20]}, {said[24]}", done)
        expect(said[25] == digest, f"back and forward again change the digest: {digest}, {said[25]}", done)
        has(28, "= 1$")
        expect(said[32] == digest, f"calling a function leaves something: {digest}, {said[32]}", done)
        if vcpus > 1:
            has(there + 5, r"sysret")
            has(there + 8, r"= 1")
            expect(said[there + 10:there + 12] == said[there + 5:there + 7], f"back into the system call: {said[there + 5:there + 12]}", done)
            has(there + 15, r"in start_kernel \(\)")
        has(fork + 11, r"Breakpoint \d+, 0x[0-9a-f]{16} in ")
        has(fork + 12, "= 1$")
        has(fork + 16, r"(?s)guest: failed=0.*Breakpoint \d+, 0x[0-9a-f]{16} in kernel_power_off \(\)")
        has(fork + 17, "= 7$")
        has(fork + 19, r"(?s)Power down.*the guest switches the machine off, with status 0")
        expect(said[fork + 6:fork + 8] == said[fork + 23:fork + 25], f"a diversion leaves something: {said[fork + 6:fork + 8]}, {said[fork + 23:fork + 25]}", done)
        has(fork + 26, "No more reverse-execution history")
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)
        return f"at {here.split(';')[0]}, the write at {said[20].split(';')[0]}"

    return Test(f"linux/debugger-{vcpus}", test)


def debugger_vmlinux(vcpus):
    """GDB with the kernel's debugging information and its lx- commands: arguments, lines, types, a condition, steps by line and back, tasks, log, modules."""

    def test(bench):
        symbols = GUEST / "debug"
        if not (symbols / "vmlinux").exists():
            raise Skip(f"{symbols / 'vmlinux'} is not there; tools/linux-debug makes it")
        folder = bench.folder / "recording"
        # The modules are there because of the console.
        done = bench.reprise("record", "--json", *words_for(bench, "run=boot", vcpus, "--memory", 128, "--console", "virtio", "-o", folder), timeout=SECONDS)
        expect(done.status == OK, f"record ends with {done.status}", done)
        commands = {
            "break __x64_sys_reboot": r"kernel/reboot\.c, line \d+",
            "continue": r"Breakpoint 1, __x64_sys_reboot \(regs=0x[0-9a-f]+\) at kernel/reboot\.c:\d+",
            "monitor when": "", "monitor digest": "",
            "backtrace 3": r"(?s)#0 .*#1 .* in do_syscall_x64 \(.*regs=0x[0-9a-f]+\) at arch/x86/entry/common\.c:\d+\n#2 .*do_syscall_64",
            "print $lx_current().comm": r'"poweroff\\000', "print $lx_task_by_pid(1).comm": '"init', 'print $lx_per_cpu("cpu_number", 0)': "= 0$",
            "print init_task.comm": '"swapper', "ptype struct list_head": r"struct list_head \*next;", "lx-version": r"^Linux version 6\.",
            "lx-ps": r"(?s)swapper.* 1 +init\b.* 2 +kthreadd\b.* poweroff\b", "lx-dmesg": r"(?s)\] Linux version.*\] Command line: .*run=boot",
            "lx-cmdline": "run=boot", "lx-cpus": rf"Online CPUs +: \[{', '.join(map(str, range(vcpus)))}\]", "lx-lsmod": r"virtio_console +\d+",
            "lx-mounts": r"proc /proc proc", "lx-iomem": "Kernel code", "lx-list-check init_task.tasks": r"list is consistent: \d+ node",
            f"lx-symbols {symbols}/modules": r"loading @0xffffffffc[0-9a-f]+: .*/virtio_console\.ko", "info line put_chars": r'virtio_console\.c" starts at address 0xffffffffc',
            "step": "__se_sys_reboot", "step ": r"__do_sys_reboot \(magic1=-18751827, magic2=672274793, cmd=1126301404, arg=0x0.*\) at kernel/reboot\.c:\d+",
            "next": r"^\d+\t", "reverse-continue": "Breakpoint 1, __x64_sys_reboot", "monitor when ": "", "monitor digest ": "",
            "tbreak kernel_power_off if system_state == SYSTEM_RUNNING": "kernel/reboot.c", "continue ": "hit Temporary|Temporary breakpoint .*kernel_power_off",
            "print system_state": "= SYSTEM_RUNNING", "delete": "",
            # What a device has written.
            "tbreak random_recv_done": "virtio-rng", "reverse-continue ": "Temporary breakpoint .*random_recv_done",
            "set $used = &((struct vring_virtqueue *) vq)->split.vring.used->idx": "", 'eval "monitor who-wrote %p", $used': r"a device wrote it at [\d.]+, for vCPU \d",
            'eval "watch *(unsigned short *) %p", $used': "watchpoint", "reverse-continue  ": r"(?s)Hardware watchpoint.*Old value = \d+.*New value = \d+\nvm_notify ",
            "backtrace 2": r"#1 .*virtqueue_notify", "delete ": "", "tbreak __x64_sys_reboot": "", "continue  ": "__x64_sys_reboot",
            "monitor diversion begin": "", "print get_random_u32() != get_random_u32()": "= 1$", "monitor diversion end": "back at",
        }
        said, done = converse(bench, folder, list(commands.items()), SECONDS, ["--vmlinux", symbols / "vmlinux"], ["-iex", f"add-auto-load-safe-path {symbols}"])
        answers = dict(zip(commands, said))
        for command in ("monitor when", "monitor digest"):
            expect(answers[command] == answers[command + " "], f"{command}: {answers[command]}, after steps and back {answers[command + ' ']}", done)
        expect(b"replayed, identical" in done.out, "no identical end after detaching", done)
        return f"{len(answers['lx-ps'].splitlines()) - 1} tasks at {answers['monitor when'].split(';')[0]}"

    return Test(f"linux/debugger-vmlinux-{vcpus}", test)


STOPWATCH = "import time; began = time.monotonic()"
STOPPED = "print('took %.1f s' % (time.monotonic() - began))"


def record_traps(bench):
    """(recording, where the program's symbols are, seconds that a replay takes)"""
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", *words_for(bench, "run=traps", 1, "--memory", 128, "-o", folder), timeout=SECONDS)
    expect(done.status == OK and b"traps: 3 of 3" in done.err, f"record ends with {done.status}", done)
    began = time.monotonic()
    replay_alike(bench, folder, report_of(done), done.err, SECONDS)
    replayed = time.monotonic() - began
    symbols = subprocess.run(["nm", GUEST / "traps"], capture_output=True, text=True, check=True).stdout
    return folder, {name: "0x" + address.lstrip("0") for address, name in re.findall(r"(\w+) [TB] (\w+)", symbols)}, replayed


def debugger_traps(bench):
    """A program with an int3 of its own and a handler for it, with breakpoints at, before and behind it; steps through its system calls and back."""
    folder, place, replayed = record_traps(bench)
    when, steps = "monitor when", 4
    commands = ["break *" + place["main"], f"python {STOPWATCH}; gdb.execute('continue'); {STOPPED}", "delete"]
    at_main = [when, "monitor digest"]
    for name in ("before_int3", "at_int3", "behind_int3", "at_int3"):
        commands += ["break *" + place[name], "continue", when, "delete"]
    for name in ("at_syscall", "at_int80"):
        commands += ["break *" + place[name], "continue", "delete", "p/x $rip", when, *["stepi", "p/x $rip", when] * steps,
                     *["reverse-stepi", "p/x $rip", when] * steps]
    said, done = gdb(bench, folder, [*commands, "monitor seek begin", commands[0], "continue", *at_main], SECONDS)
    # It is found with checkpoints that were made while it was looked for.
    straight, done = gdb(bench, folder, ["monitor seek " + said[-2].split(";")[0], *at_main], SECONDS)
    expect(said[-2:] == straight[-2:], f"main is not as on the straight way: {said[-2:]} and {straight[-2:]}", done)
    stops = [said[i] for i, command in enumerate(commands[:19]) if command == when]
    marks = [[int(number) for number in re.match(r"[\d.]+", text)[0].split(".")] for text in stops]
    expect(marks == sorted(marks) and len({tuple(mark) for mark in marks}) == 4, f"breakpoints around the int3 stop at {stops}", done)
    expect(marks[0][:3] != marks[1][:3] or marks[1][3] == marks[0][3] + 1, f"there is more than a nop before the int3: {stops}", done)
    at = 19
    for name in ("at_syscall", "at_int80"):
        pairs = [(re.sub(r"^\$\d+ = ", "", said[i]), said[i + 1]) for i in [at + 3, *(at + 6 + 3 * step for step in range(2 * steps))]]
        expect(pairs[0][0] == place[name], f"{name} is hit at {pairs[0]}", done)
        expect(pairs[:steps + 1] == pairs[:steps - 1:-1] and len(set(pairs)) == steps + 1, f"steps and back at {name}: {pairs}", done)
        expect(int(pairs[1][0], 16) >= 1 << 63, f"{name} does not lead into the kernel: {pairs}", done)
        at += 5 + 6 * steps
    took = re.search(r"took ([\d.]+) s", said[1])[1]
    return f"main after {took} s, replayed in {replayed:.1f} s; the first int3 behind {stops[0].split(';')[0]}"


def mark_of(text):
    return [int(number) for number in re.match(r"[\d.]+", text)[0].split(".")]


def debugger_steps(bench):
    """Ten steps into a program and back, breakpoints on all ten from the end, and from the first to the end."""
    folder, place, _ = record_traps(bench)
    when, steps = "monitor when", 10
    commands = ["break *" + place["main"], "continue", "delete", when]
    commands += [command for step in range(steps) for command in ("stepi", f"set $at{step} = $rip", when)]
    commands += ["reverse-stepi", when] * steps
    commands += [f"break *$at{step}" for step in range(steps)]
    at = len(commands)
    commands += ["continue", when] * (steps + 1) + ["reverse-continue", when]
    said, done = gdb(bench, folder, commands, SECONDS)
    forward = [mark_of(said[3])] + [mark_of(said[6 + 3 * step]) for step in range(steps)]
    back = [mark_of(said[5 + 3 * steps + 2 * step]) for step in range(steps)]
    expect(back == forward[-2::-1], f"ten steps and back: {forward}, {back}", done)
    visited = [mark_of(said[at + 1 + 2 * visit]) for visit in range(steps + 1)]
    expect(visited[:steps] == forward[1:], f"breakpoints at all ten stop at {visited[:steps]}, not {forward[1:]}", done)
    expect("No more" in said[at + 2 * steps], f"there is more behind them: {said[at + 2 * steps]}", done)
    expect("Breakpoint" in said[-2] and mark_of(said[-1]) == forward[-1], f"back from the end to {said[-1]}, not {forward[-1]}", done)
    return f"ten instructions from {said[3].split(';')[0]}"


def debugger_strings(bench):
    """A watched word, back and forth over rep stosb and rep movsb of 1, 64, 65 and 4096 bytes in a program."""
    folder, place, _ = record_traps(bench)
    word = int(place["watched_pages"], 16) + 2 * 4096
    writes = 7  # of eight: before the first one, the word is not mapped
    commands = ["break *" + place["printf"], "continue", "delete", f"watch *(unsigned long *) {word:#x}"]
    commands += ["reverse-continue", "x/i $rip"] * writes + ["continue"] * (writes - 1)
    said, done = gdb(bench, folder, commands, SECONDS)
    values = [1] + [2] + [int(f"{value:02x}" * 8, 16) for value in range(3, 9)]
    back = [tuple(int(number) for number in re.search(r"(?s)Old value = (\d+)\nNew value = (\d+)", said[4 + 2 * i]).groups()) if "New value" in said[4 + 2 * i] else said[4 + 2 * i]
            for i in range(writes)]
    expect(back == [(values[7 - i], values[6 - i]) for i in range(writes)], f"the word going back: {back}", done)
    kinds = [re.search(r"rep (stos|movs)", said[5 + 2 * i]) for i in range(writes)]
    expect([kind and kind[1] for kind in kinds] == ["movs", "stos"] * 3 + ["movs"], f"it is written by {[said[5 + 2 * i] for i in range(writes)]}", done)
    forward = [re.search(r"(?s)Old value = (\d+)\nNew value = (\d+)", text) for text in said[4 + 2 * writes:]]
    expect([match and (int(match[1]), int(match[2])) for match in forward] == [(values[i], values[i + 1]) for i in range(writes - 1)], f"the word going forward: {said[4 + 2 * writes:]}", done)


def random(bench):
    """Bytes of /dev/hwrng: others in another recording, the same in a replay."""
    seen = []
    for name in ("first", "second"):
        folder = bench.folder / name
        done = bench.reprise("record", "--json", *words_for(bench, "run=random", 2, "-o", folder), timeout=SECONDS)
        expect(done.status == OK and b"virtio_rng.0" in done.err, f"record ends with {done.status}", done)
        seen += re.findall(rb"random: ([0-9a-f]{64})\r?\n", done.err)
        replay_alike(bench, folder, report_of(done), done.err, SECONDS)
    expect(len(set(seen)) == 2, f"not two different numbers: {seen}")


def debian_session(bench):
    """A person at the shell of a Debian system; the replay shows the same session."""
    folder = bench.folder / "recording"
    image = file(bench, "root.img", "tools/debian-root")
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "root=/dev/vda run=shell", 2, "--disk", image, "-o", folder)])
    terminal.read_until(b"guest:~# ", SECONDS)
    terminal.type(b"dpkg -S /usr/bin/perl; echo $(dpkg -l | grep -c ^ii) packages\r")
    terminal.read_until(b"perl-base: /usr/bin/perl", SECONDS)
    terminal.read_until(b"guest:~# ", SECONDS)
    terminal.type(b"exit\r")
    status = terminal.end(SECONDS)
    expect(status == OK, f"record ends with {status}: {terminal.seen[-300:]!r}")
    done = bench.reprise("replay", folder, timeout=SECONDS)
    expect(done.status == OK and done.out == (folder / "console").read_bytes(), "the replay shows another session", done)


def escape(bench):
    """Ctrl-] ends the recording; what was recorded replays."""
    folder = bench.folder / "recording"
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=shell", 1, "-o", folder)])
    terminal.read_until(b"/ # ", SECONDS)
    terminal.type(b"\x1d")
    status = terminal.end(SECONDS)
    expect(status == OK and b"interrupted" in terminal.seen, f"exit status {status}: {terminal.seen[-300:]!r}")
    done = bench.reprise("replay", folder, timeout=SECONDS)
    expect(done.status == OK and done.out.endswith(b"/ # "), "what was recorded does not replay", done)


def killed(bench):
    """kill -9 while the kernel boots: the prefix verifies and replays."""
    folder = bench.folder / "recording"
    terminal = Terminal([bench.installation.reprise, "record", *words_for(bench, "run=all", 2, "-o", folder)])
    terminal.read_until(b"race expected", SECONDS)
    terminal.process.kill()
    terminal.end(SECONDS)
    for verb in ("verify", "replay"):
        done = bench.reprise(verb, folder, timeout=SECONDS)
        expect(done.status == OK, f"{verb} of the prefix ends with {done.status}", done)


def panics(bench):
    """A kernel without an init panics; that is recorded and replayed like anything else."""
    kernel, _ = files(bench)
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", "--kernel", kernel, "--append", QUIET, "--vcpus", 2, "--pace", PACE, "-o", folder, timeout=SECONDS)
    expect(done.status == GUEST_FAILED and report_of(done)["guest_status"] == 1, f"record ends with {done.status}", done)
    expect(b"Kernel panic" in done.err, "no panic on the console", done)
    replay_alike(bench, folder, report_of(done), done.err, SECONDS)


def module(bench):
    """A module's rdtsc is answered from the journal: it prints how long things took, and the replay prints the same."""
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", *words_for(bench, "run=module", 2, "-o", folder), timeout=SECONDS)
    expect(done.status == OK, f"record ends with {done.status}", done)
    report = report_of(done)
    total = {name: sum(vcpu[name] for vcpu in report["vcpus"]) for name in ("modules", "module_patches", "times")}
    # Twice, for busybox tries again when the module says that it does not stay. It has 12 rdtsc.
    expect(report["patches_modules"] and total["modules"] >= 1, "no module was patched", done)
    expect(total["module_patches"] == 12 * total["modules"], f"in {total['modules']} modules {total['module_patches']} instructions were replaced", done)
    expect(done.err.count(b"cycles/operation") >= 8, "the module measured nothing", done)
    for _ in range(3):
        replay_alike(bench, folder, report, done.err, SECONDS)
    return f"{total['module_patches']} instructions replaced, {total['times']} times read"


def safepoints(vcpus):
    """A program with safepoints is preempted in loops that never end by themselves, and replayed to the same round of each."""
    def test(bench):
        folder = bench.folder / "recording"
        words = words_for(bench, "run=impatient", vcpus, "--memory-digest-every", COMPARED, "-o", folder)
        done = bench.reprise("record", "--json", *words, timeout=SECONDS)
        expect(done.status == OK and done.err.count(b"impatient") >= 3, f"record ends with {done.status}", done)
        report = report_of(done)
        traps = sum(vcpu["traps"] for vcpu in report["vcpus"])
        expect(traps >= 3, f"the program was stopped at {traps} safepoints", done)
        verified = bench.reprise("verify", folder)
        expect(verified.status == OK, "verify does not pass", verified)
        for _ in range(3):
            replay_alike(bench, folder, report, done.err, SECONDS)
        return f"{traps} stops at safepoints"

    return Test(f"linux/safepoints-{vcpus}", test)


def raid6(bench):
    """A module that waits for timer interrupts in the kernel, in loops without `pause`: function entries stop it there, at ticks that replay finds."""
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", *words_for(bench, "run=raid6", 2, "-o", folder), timeout=SECONDS)
    expect(done.status == OK and b"raid6: using algorithm" in done.err, f"record ends with {done.status}", done)
    report = report_of(done)
    ticks = sum(vcpu["traps"] for vcpu in report["vcpus"])
    expect(report["clock"] == "kernel" and ticks > 0, f"the clock is {report['clock']}, {ticks} stops at ticks", done)
    for _ in range(2):
        replay_alike(bench, folder, report, done.err, SECONDS)
    return f"{ticks} stops at ticks"


def clock_stops(bench):
    """Without the kernel clock, as on a kernel that cannot trace functions: no ticks, and the same comparison."""
    folder = bench.folder / "recording"
    done = bench.reprise("record", "--json", *words_for(bench, "run=race,locks", 2, "--clock", "stops", "-o", folder), timeout=SECONDS)
    expect(done.status == OK, f"record ends with {done.status}", done)
    report = report_of(done)
    ticks = sum(vcpu["traps"] for vcpu in report["vcpus"])
    expect(report["clock"] == "stops" and ticks == 0, f"the clock is {report['clock']}, {ticks} stops at ticks", done)
    replay_alike(bench, folder, report, done.err, SECONDS)


def refused(name, pattern, status, change):
    def run(bench):
        kernel, initrd = file(bench, "vmlinuz"), file(bench, "initrd")
        folder = bench.folder / "recording"
        words = {"--kernel": kernel, "--initrd": initrd, "--append": QUIET, "--vcpus": 1, "-o": folder}
        change(bench, words)
        one_sentence(bench.reprise("record", *[word for pair in words.items() for word in pair]), status, pattern)
        expect(not folder.exists(), "a recording was left behind")

    return Test(f"linux/refused-{name}", run)


def file_of(bench, data):
    path = bench.folder / "file"
    path.write_bytes(data)
    return path


def truncated(bench, words):
    words["--kernel"] = file_of(bench, words["--kernel"].read_bytes()[:1 << 20])


def qcow2(change=lambda path: None, options=",format=qcow2"):
    """A disk of a qcow2 image with a backing file, which `change` spoils."""

    def spoil(bench, words):
        if shutil.which("qemu-img") is None:
            raise Skip("qemu-img is not here")
        file_of(bench, bytes(1 << 20))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "file", "-F", "raw", "top"], cwd=bench.folder, check=True, capture_output=True)
        change(bench.folder / "top")
        words["--disk"] = f"{bench.folder / 'top'}{options}"

    return spoil


def overwrite(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def compute(kind, rounds, vcpus):
    """A program that computes and makes no system calls, beside a shell that says every 0.2 s how long the machine has been up. The program's result and
    its code are as they must be, it is stopped at addresses, and the replay stops it there."""

    def test(bench):
        folder = bench.folder / "recording"
        done = bench.reprise("record", "--json", *words_for(bench, f"run=compute-{kind} size={rounds}", vcpus, "--memory", 128, "-o", folder), timeout=SECONDS)
        expect(done.status == OK and b"guest: failed=0" in done.err and b"compute " + kind.encode() in done.err, f"record ends with {done.status}", done)
        report = report_of(done)
        began = time.monotonic()
        replay_alike(bench, folder, report, done.err, SECONDS)
        replayed = time.monotonic() - began
        seen = [float(seconds) for seconds in re.findall(rb"up ([\d.]+)", done.err)]
        stops = sum(vcpu["breakpoints"] for vcpu in report["vcpus"])
        expect(stops > 0 or kind in ("own_code", "flat"), "the program was never stopped", done)
        flat = [vcpu["flat_loop"] for vcpu in report["vcpus"] if vcpu["flat_loop"]]
        if kind == "flat":
            expect(flat and flat[0]["program"].endswith("compute"), f"the program that nobody can stop is not named: {flat}", done)
        longest = max(after - before for before, after in zip(seen, seen[1:]))
        return (f"{stops} stops of the program, longest silence {longest:.2f} of {seen[-1] - seen[0]:.2f} s, recorded in {report['wall_ns'] / 1e9:.1f} s, "
                f"replayed in {replayed:.1f} s")

    return Test(f"linux/compute-{kind}-{vcpus}", test)


def damaged(bench, words):
    data = bytearray(words["--kernel"].read_bytes())
    data[3 << 20:(3 << 20) + 4096] = bytes(4096)
    words["--kernel"] = file_of(bench, data)


def tests(_options):
    """Those that take minutes are not in SHORT."""
    return [mix("mix", "run=all", 2, 1), session("session", b"/dev/ttyS0"), disk(2, 1), Test("linux/disks", disks), Test("linux/domain", domain), Test("linux/random", random), Test("linux/module", module), Test("linux/raid6", raid6), Test("linux/clock-stops", clock_stops), safepoints(1), safepoints(2),
            session("hvc0-session", b"/dev/hvc0", "--console", "virtio"),
            refused("no-disk", "cannot open the disk image .*No such file", NOT_FOUND, lambda bench, words: words.update({"--disk": bench.folder / "none"})),
            refused("odd-disk", "has 1000 bytes, needed is a multiple of 512", USAGE, lambda bench, words: words.update({"--disk": file_of(bench, bytes(1000))})),
            refused("qcow2-as-raw", "begins as a qcow2 image does: say .*top,format=qcow2", USAGE, qcow2(options="")),
            refused("qcow2-without-base", "top cannot be used: .*No such file", HOST_CANNOT, qcow2(lambda path: (path.parent / "file").unlink())),
            refused("qcow2-that-lies", "top cannot be used: ", HOST_CANNOT, qcow2(lambda path: overwrite(path, 36, b"\x7f\xff\xff\xff"))),
            refused("disk-format", "format .nbd.: known are raw, qcow2", USAGE, qcow2(options=",format=nbd")),
            refused("disk-serial", "serial number .* has 21 bytes: at most 20", USAGE, qcow2(options=f",format=qcow2,serial={'x' * 21}")),
            refused("kept-without-disk", "--keep-writes names 1 file, the machine has 0 disks", USAGE, lambda bench, words: words.update({"--keep-writes": "kept"})),
            refused("text", "neither a bzImage", DAMAGED, lambda bench, words: words.update({"--kernel": file_of(bench, b"no kernel" * 100)})),
            refused("truncated", "truncated", DAMAGED, truncated),
            refused("damaged", "damaged|cannot be unpacked", DAMAGED, damaged),
            refused("little-memory", "64 to 64512 MiB are possible", USAGE, lambda bench, words: words.update({"--memory": 32})),
            refused("no-room", r"needs \d+ MiB|do not fit", DAMAGED, lambda bench, words: words.update({"--memory": 64})),
            refused("many-vcpus", "can have 1 to 8", USAGE, lambda bench, words: words.update({"--vcpus": 9})),
            refused("crew", "has no safepoints.*--mode serial", USAGE, lambda bench, words: words.update({"--mode": "crew"})),
            refused("clock-safepoints", "no clock .safepoints.: use --clock kernel or stops", USAGE, lambda bench, words: words.update({"--clock": "safepoints"})),
            refused("long-command-line", "command line has", USAGE, lambda bench, words: words.update({"--append": "x" * 3000})),
            mix("redis", "run=redis", 2, 2, "initrd-servers", b"redis ended: 1"),
            mix("memcached", "run=memcached", 2, 2, "initrd-servers", b"memcached ended"),
            mix("debian", "root=/dev/vda run=debian", 2, 1, says=b"debian files=", disk=True), Test("linux/debian-session", debian_session),
            disk(1, 3), mix("mix", "run=all", 1, 3), mix("mix", "run=all", 4, 3), mix("boot", "run=script", 8, 1), Test("linux/escape", escape),
            Test("linux/killed", killed), Test("linux/panics", panics), debugger(1), debugger(2), Test("linux/debugger-traps", debugger_traps), Test("linux/debugger-steps", debugger_steps), Test("linux/debugger-strings", debugger_strings), debugger_vmlinux(1), debugger_vmlinux(2),
            mix("reclamation", "run=reclamation size=structure=list:workers=4:ops=40:length=4", 2, 2, says=b"scheme=spin"),
            mix("reclamation-queue", "run=reclamation size=structure=queue:workers=3:ops=40", 1, 1, says=b"scheme=spin"), compute("nested", 3000, 2), compute("nested", 3000, 1), compute("matrices", 3000, 2), compute("recursion", 200, 2), compute("indirect", 30000, 2),
            compute("handlers", 3000, 2), compute("forks", 1000, 2), compute("own_code", 300, 2), compute("flat", 200, 1),
            timeline("boot", "run=boot", 1), timeline("boot", "run=boot", 2), timeline("script", "run=script", 2), timeline("mix", "run=all", 2), timeline("flat", "run=compute-flat size=2000", 1, "--clock", "stops", says=rb"interrupted=[1-9]"),
            timeline("devices", "run=disk", 2, "--console", "virtio", disk=True), checkpoints("ttyS0", b"/dev/ttyS0"), checkpoints("hvc0", b"/dev/hvc0", "--console", "virtio")]


REFUSED = "linux/refused-"  # what every host refuses
SHORT = ("linux/mix-2", "linux/hostile-", "linux/session", "linux/disk-2", "linux/disks", "linux/domain", "linux/module", "linux/raid6", "linux/safepoints-2", "linux/compute-nested-2", "linux/debugger-1", "linux/timeline-boot-1", REFUSED)
