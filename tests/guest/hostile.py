"""Guests that crash: the status is reported, and the crash replays like any other run."""
from harness import GUEST_FAILED, Test, expect, one_sentence, record_and_replay

# kind: (guest's status, what its console says)
FAULTS = {
    "page": (0x6E, b"guest fault: page fault"),
    "divide": (0x60, b"guest fault: divide error"),
    "opcode": (0x66, b"guest fault: undefined opcode"),
    "protection": (0x6D, b"guest fault: general protection"),
    "panic": (2, b"panic: as requested"),
    "status": (7, b"fault cpus="),
}


def crash(kind, vcpus):
    status, text = FAULTS[kind]

    def run(bench):
        report, console, _ = record_and_replay(bench, "fault", f"kind={kind} status=7", vcpus=vcpus, status=GUEST_FAILED)
        expect(report["guest_status"] == status, f"status {report['guest_status']:#x} instead of {status:#x}")
        expect(text in console, f"the console lacks {text.decode()!r}: {console.decode(errors='replace')}")

    return Test(f"hostile/{kind}-{vcpus}", run)


def race_as_failure(bench):
    """A workload that reports its own failure: status 2 for arguments that make no sense."""
    report, console, _ = record_and_replay(bench, "lost_update", "n=many", vcpus=2, status=GUEST_FAILED)
    expect(report["guest_status"] == 2 and b"panic: an argument" in console, "not the panic that was asked for")


def long_command_line(bench):
    words = ["record", "-o", bench.folder / "recording", bench.image("lost_update"), "--", "x" * 100000]
    one_sentence(bench.reprise(*words), 2, "command line has 100000 bytes")


def tests(_options):
    return [*(crash(kind, vcpus) for kind in FAULTS for vcpus in (1, 2, 4)),
            Test("hostile/panic-on-arguments", race_as_failure),
            Test("hostile/long-command-line", long_command_line)]
