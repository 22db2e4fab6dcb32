"""Guests without safepoints, stopped at any instruction: the clock that counts branches, where the host has a counter."""
import pathlib
import re
import zlib

from harness import HOST_CANNOT, OK, Failure, Skip, Test, expect, one_sentence, record_and_replay, report_of
from matrix import SIZES, SMALLER

# Half of the workloads, small: each stop is found again by some hundred steps, which take a fifth of a millisecond each in the lab.
WORKLOADS = ["lost_update", "message_passing", "iriw", "bank", "locks", "ring", "kv", "timer"]
SIZES_HERE = {**SIZES, **SMALLER, "lost_update": "n=50000", "message_passing": "n=1024", "iriw": "n=512", "bank": "n=2000", "timer": "n=500000 period=4000000"}  # a period in which the lab gets somewhere


def has_counter():
    return pathlib.Path("/sys/bus/event_source/devices/cpu").exists()


def pair(workload, vcpus, chaos):
    def run(bench):
        try:
            report, _, folder = record_and_replay(bench, f"{workload}.plain", SIZES_HERE[workload], vcpus=vcpus, chaos=chaos, extra=["--clock", "branches"])
        except Failure as failure:
            refusal = re.search("there is no branch clock: .*", str(failure))
            if refusal:
                raise Skip(refusal[0]) from None
            raise
        expect(report["clock"] == "branches", f"the clock is {report['clock']}")
        info = bench.reprise("info", "--json", folder)
        expect(info.status == OK, "info fails", info)
        stops = sum(kind["events"] for kind in report_of(info)["summary"]["kinds"] if kind["kind"] == "preemption")
        return f"{report['tickets']} transitions, stopped {stops} times, recorded in {report['wall_ns'] / 1e9:.2f} s"

    return Test(f"branches/{workload}-{vcpus}-{'quiet' if chaos is None else 'chaos'}", run)


def refused(bench):
    """A host without a counter says so in one sentence, whichever way it is asked for."""
    folder = bench.folder / "recording"
    one_sentence(bench.reprise("record", "--clock", "branches", "--serial", "-o", folder, bench.image("bank.plain")), HOST_CANNOT, "there is no branch clock: ")
    one_sentence(bench.reprise("record", "--clock", "branches", "--serial", "-o", folder, bench.image("bank")), HOST_CANNOT, "there is no branch clock: ")
    expect(not folder.exists(), "a recording was left behind")


def tests(_options):
    if not has_counter():
        return [Test("branches/refused", refused)]
    return [pair(workload, vcpus, chaos) for workload in WORKLOADS for vcpus in (1, 2, 4)
            for chaos in (None, zlib.crc32(f"{workload} {vcpus}".encode()) % 1000)]
