"""What a person can get wrong: one sentence on standard error, the right exit code, and nothing left behind."""
import os
import pathlib
import re
import shutil
import struct

from harness import (DAMAGED, FORGE, HOST_CANNOT, NOT_FOUND, OK, USAGE, Skip, Test, expect, one_sentence, record, report_of)

ARGUMENTS = "n=2000"


def refused(bench, status, pattern, *words, prefix=(), folder=None):
    """`reprise record -o FOLDER WORDS` refuses and leaves no folder."""
    folder = folder or bench.folder / "recording"
    one_sentence(bench.reprise("record", "-o", folder, *words, prefix=prefix), status, pattern)
    expect(not folder.exists(), f"{folder} was left behind")


def without_kvm(bench, mount):
    if os.geteuid() != 0:
        raise Skip("needs root, to hide /dev/kvm in a mount namespace")
    prefix = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if bench.command([*prefix, "true"]).status:
        raise Skip("cannot mount in a namespace of its own here")
    return prefix


def no_kvm(bench):
    """/dev without kvm, for record, replay and doctor."""
    folder = bench.folder / "good"
    record(bench, folder, "lost_update", ARGUMENTS)
    prefix = without_kvm(bench, "mount -t tmpfs none /dev")
    refused(bench, HOST_CANNOT, "/dev/kvm is not there", bench.image("lost_update"), prefix=prefix)
    one_sentence(bench.reprise("replay", folder, prefix=prefix), HOST_CANNOT, "/dev/kvm is not there")
    one_sentence(bench.reprise("doctor", prefix=prefix), HOST_CANNOT, "/dev/kvm is not there")
    expect(bench.reprise("verify", folder, prefix=prefix).status == OK, "verify needs /dev/kvm")


def other_device(bench):
    prefix = without_kvm(bench, "mount --bind /dev/null /dev/kvm")
    refused(bench, HOST_CANNOT, "/dev/kvm", bench.image("lost_update"), prefix=prefix)


def no_permission(bench):
    if os.geteuid() != 0:
        raise Skip("needs root, to become nobody")
    prefix = without_kvm(bench, "mknod -m 600 /tmp/kvm.$$ c 10 232 && mount --bind /tmp/kvm.$$ /dev/kvm; rm /tmp/kvm.$$")
    # The scratch folder belongs to root alone; the programs in it are readable through an open path.
    bench.installation.folder.chmod(0o755)
    bench.folder.chmod(0o777)
    prefix = [*prefix, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if bench.command([*prefix, "true"]).status:
        raise Skip("setpriv does not work here")
    refused(bench, HOST_CANNOT, "no permission to open /dev/kvm", bench.image("lost_update"), prefix=prefix)


def userfault_device(bench):
    """Access to /dev/userfaultfd is enough for views by userfaultfd: nobody needs to be root."""
    device = pathlib.Path("/dev/userfaultfd")
    if not device.exists() or os.geteuid() != 0:
        raise Skip("needs root, to become nobody, and /dev/userfaultfd (Linux 6.1)")
    if pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
        raise Skip("vm.unprivileged_userfaultfd lets everybody use it")
    number = device.stat().st_rdev
    bench.installation.folder.chmod(0o755)
    for mode, wanted in (("666", "minor faults"), ("600", "no: userfaultfd is not available .*/dev/userfaultfd")):
        node = f"mknod -m {mode} /tmp/uffd.$$ c {os.major(number)} {os.minor(number)} && mount --bind /tmp/uffd.$$ {device}; rm /tmp/uffd.$$"
        kvm = "mknod -m 666 /tmp/kvm.$$ c 10 232 && mount --bind /tmp/kvm.$$ /dev/kvm; rm /tmp/kvm.$$"
        prefix = [*without_kvm(bench, f"{node}; {kvm}"), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if bench.command([*prefix, "true"]).status:
            raise Skip("setpriv does not work here")
        done = bench.reprise("doctor", "--json", prefix=prefix)
        expect(done.status == OK, "doctor fails", done)
        fact = next(fact["value"] for fact in report_of(done)["facts"] if fact["name"] == "userfaultfd")
        expect(re.match(wanted, fact), f"userfaultfd with mode {mode}: {fact!r}")


def not_bootable(bench):
    text = bench.folder / "text"
    text.write_text("This is no program.\n")
    refused(bench, DAMAGED, "is not an ELF file", text)
    empty = bench.folder / "empty"
    empty.write_bytes(b"")
    refused(bench, DAMAGED, "is not an ELF file", empty)
    refused(bench, DAMAGED, "has no PVH entry point", bench.installation.reprise)  # an ELF file, but for Linux
    torn = bench.folder / "torn"
    torn.write_bytes(bench.image("bank").read_bytes()[:3000])
    refused(bench, DAMAGED, "is truncated", torn)
    refused(bench, NOT_FOUND, "cannot open .*No such file", bench.folder / "missing.elf")
    refused(bench, NOT_FOUND, "is a folder, needed is a file", bench.folder)


def no_safepoints(bench):
    refused(bench, DAMAGED, "no safepoints", bench.image("bank.plain"))


def little_memory(bench):
    refused(bench, DAMAGED, "(memory|RAM|MiB)", "--memory", "2", bench.image("bank"))


def crew_digests(bench):
    refused(bench, USAGE, "--memory-digest-every.*--mode serial", "--memory-digest-every", "10", bench.image("bank"))


def usage(bench):
    """What was wrong, by whose option, and where help is."""
    for pattern, *words in (("^reprise record: --output is required .*reprise help record", "record"),
                            ("^reprise record: --vcpus: .*range 1 to 32", "record", "--vcpus", "0", "-o", "x", "y"),
                            ("^reprise run: --vcpus: .*range 1 to 32", "run", "--vcpus", "33", "y"),
                            ("^reprise record: .*--memory.*many", "record", "--memory", "many", "-o", "x", "y"),
                            ("^reprise record: .*--frob", "record", "--frob", "-o", "x", "y"),
                            ("^reprise record: nothing to run", "record", "-o", "x"),
                            ("^reprise replay: recording is required", "replay"),
                            ("^reprise: .*--json.*`reprise help`|^reprise: .*subcommand.*`reprise help`", "--json"),
                            ("^reprise: which verb.*record, replay, gdb",)):
        one_sentence(bench.reprise(*words), USAGE, pattern)


def misspelt(bench):
    for word, meant in (("recrod", "record"), ("reply", "replay"), ("verfy", "verify"), ("checkpoints", "checkpoint"), ("docter", "doctor")):
        one_sentence(bench.reprise(word, "x"), USAGE, f"^reprise: there is no verb '{word}': did you mean '{meant}'")
    one_sentence(bench.reprise("nonsense"), USAGE, "no verb 'nonsense': the verbs are record, replay")
    one_sentence(bench.reprise("help", "recrod"), USAGE, "did you mean 'record'")
    one_sentence(bench.reprise("\x1b[31m"), USAGE, r"no verb '\\x1b\[31m'")


def help_verb(bench):
    for words, same in ((["help"], ["--help"]), (["help", "record"], ["record", "--help"])):
        done, other = bench.reprise(*words), bench.reprise(*same)
        expect(done.status == other.status == OK and done.out == other.out and done.out and done.err == b"", "not the help", done)
    for verb in ("record", "replay", "gdb", "checkpoint", "run", "info", "dump", "verify", "domains", "domain-xml", "doctor"):
        expect(f"Usage: reprise {verb} ".encode() in bench.reprise("help", verb).out, f"no help for {verb}")


def kernels(bench):
    """A kernel where an image is needed, and no kernel where one is."""
    kernel = bytearray(0x1000)
    kernel[0x1fe:0x200], kernel[0x202:0x206], kernel[0x206:0x208] = b"\x55\xaa", b"HdrS", b"\x0c\x02"
    path = bench.folder / "memtest"
    path.write_bytes(kernel)  # as memtest86+ begins: no payload
    refused(bench, USAGE, "memtest is a Linux kernel .bzImage.: name it with --kernel", path)
    refused(bench, DAMAGED, "no Linux kernel: it has the header of a bzImage", "--kernel", path)
    path.write_bytes(b"no kernel" * 100)
    refused(bench, DAMAGED, "no Linux kernel: it is neither a bzImage", "--kernel", path)


def dump_beyond(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", ARGUMENTS)
    one_sentence(bench.reprise("dump", folder, "--vcpu", 9), USAGE, "^reprise dump: there is no vCPU 9: the recording has 2 vCPUs")
    one_sentence(bench.reprise("dump", folder, "--from", 10**9), USAGE, r"^reprise dump: there is no event 1000000000: the longest log has \d+ events")
    events = len(bench.reprise("dump", folder, "--vcpu", 1).out.splitlines())
    expect(len(bench.reprise("dump", folder, "--vcpu", 1, "--from", events - 1).out.splitlines()) == 1, "the last event is not shown")
    expect(len(bench.reprise("dump", folder, "--vcpu", 1, "--from", 1, "--count", 2**64 - 1).out.splitlines()) == events - 1, "not all that follow")
    one_sentence(bench.reprise("dump", folder, "--vcpu", 1, "--from", events), USAGE, f"no event {events}: the log of vCPU 1 has {events} events")


def folder_exists(bench):
    folder = bench.folder / "there"
    folder.mkdir()
    (folder / "mine").write_text("not yours")
    one_sentence(bench.reprise("record", "-o", folder, bench.image("lost_update")), USAGE, "exists")
    expect([path.name for path in folder.iterdir()] == ["mine"], "the folder that was there has changed")
    refused(bench, 74, "cannot create", bench.image("lost_update"), folder=bench.folder / "no" / "such" / "parent")


def missing_recording(bench):
    for verb in ("replay", "info", "dump", "verify"):
        one_sentence(bench.reprise(verb, bench.folder / "missing"), NOT_FOUND, "there is no recording")
        one_sentence(bench.reprise(verb, bench.folder), DAMAGED, "no manifest")


def truncated(bench):
    """A finished recording with a file cut off is damage, not a prefix."""
    folder = bench.folder / "recording"
    record(bench, folder, "bank", ARGUMENTS)
    for name in ("vcpu-0.log", "vcpu-1.log", "image.elf", "manifest", "final", "console", "index"):
        path = folder / name
        whole = path.read_bytes()
        for size in (len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            done = bench.reprise("verify", folder)
            one_sentence(done, DAMAGED, "")
            if name != "index":  # replay reads the logs from their beginning, while the guest runs
                one_sentence(bench.reprise("replay", folder), DAMAGED, "", silent="vcpu" not in name)
        path.write_bytes(whole)


def newer_format(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", ARGUMENTS)
    manifest = folder / "manifest"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:8] + struct.pack("<I", 1000) + whole[12:])
    for verb in ("replay", "verify", "info"):
        one_sentence(bench.reprise(verb, folder), DAMAGED, "newer Reprise")


def other_processor(bench):
    if not FORGE.exists():
        raise Skip("forge is not built (ninja tests/guest/forge)")
    with open("/proc/cpuinfo") as info:
        if "avx512f" in info.read():
            raise Skip("this processor has AVX-512")
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", ARGUMENTS)
    done = bench.command([FORGE, folder, bench.folder / "forged", "cpuid", 1])
    expect(done.status == 0, "forge fails", done)
    one_sentence(bench.reprise("replay", bench.folder / "forged"), HOST_CANNOT, "avx512f")


# What forge changes, and to which number.
IMPOSSIBLE = [
    ("last-ticket", 400_000_000), ("last-ticket", 2**32 - 1), ("last-ticket", 2**63), ("last-page", 2**40),
    ("final-tickets", 2**63), ("final-tickets", 0), ("final-console", 2**62), ("final-digests", 0), ("final-reason", 77),
    ("memory", 0), ("memory", 4097), ("memory", 2**63), ("memory", 2**64 - 4096), ("vcpus", 0), ("vcpus", 33), ("vcpus", 2**31),
    ("start", 2**63 - 1), ("start", 2**63), ("command-line", 10_000), ("command-line", 1_500_000), ("cpuids", 100), ("cpuids", 20_000),
    ("mode", 1), ("boot", 0), ("boot", 1), ("virtio", 1), ("image-bytes", 0), ("image-bytes", 2**40),
]
HOSTILE_MIB = 700  # resident, for a recording of a guest with 64 MiB


def peak_mib(bench, *words):
    """Runs reprise; its result, and how much memory it had at most."""
    done = bench.command(["sh", "-c", '/usr/bin/env python3 -c "$0" "$@"', PEAK, bench.installation.reprise, *words], timeout=60)
    lines = done.err.splitlines()
    done.err = b"\n".join(lines[:-1]) + b"\n" if lines[:-1] else b""
    return done, int(lines[-1]) // 1024


PEAK = """import os, resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status & 255)"""


def impossible(bench):
    """Hostile values: verify and replay agree that the recording is damaged, at once and with little memory."""
    if not FORGE.exists():
        raise Skip("forge is not built (ninja tests/guest/forge)")
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", ARGUMENTS)
    for number, (what, value) in enumerate(IMPOSSIBLE):
        forged = bench.folder / f"forged-{number}"
        done = bench.command([FORGE, folder, forged, what, value])
        if done.status == 1:
            expect(b"at most" in done.err, f"forge cannot make {what} {value}", done)
        for verb in ("verify", "replay"):
            done, mib = peak_mib(bench, verb, forged)
            expect(done.status == DAMAGED, f"{verb} of {what} = {value}: exit status {done.status} instead of {DAMAGED}", done)
            expect(len(done.err.splitlines()) == 1, f"{verb} of {what} = {value}: not one sentence", done)
            expect(mib < HOSTILE_MIB, f"{verb} of {what} = {value} takes {mib} MiB")
        shutil.rmtree(forged)


def other_bytes(bench):
    """A command line and a path that are not UTF-8 are recorded and replayed like any other."""
    image = bench.folder / os.fsdecode(b"im\xffage.elf")
    shutil.copy(bench.image("lost_update"), image)
    folder = bench.folder / os.fsdecode(b"rec\xe9ording")
    done = bench.reprise("record", "-o", folder, image, "--", "n=2000", os.fsdecode(b"name=\xff\xfe\x80"))
    expect(done.status == OK, "record fails", done)
    for verb in ("verify", "replay", "info"):
        done = bench.reprise(verb, folder)
        expect(done.status == OK, f"{verb} fails", done)
    manifest = report_of(bench.reprise("info", "--json", folder))["manifest"]
    expect("name=" in manifest["command_line"], f"the command line is {manifest['command_line']!r}")


def tests(_options):
    return [Test(f"bad_input/{function.__name__}", function)
            for function in (no_kvm, other_device, no_permission, userfault_device, not_bootable, no_safepoints, little_memory, crew_digests, usage,
                             misspelt, help_verb, kernels, dump_beyond, folder_exists, missing_recording, truncated, newer_format, other_processor,
                             impossible, other_bytes)]
