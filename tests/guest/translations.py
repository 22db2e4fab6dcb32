"""Guests that change their page tables (guest-images/workloads/remap.cc): nobody uses an old translation, and who does is reproduced."""
import re
import zlib

from harness import GUEST_FAILED, HOST_CANNOT, Test, expect, record_and_replay, shadows_tables

# By number of vCPUs: about ten changes, recorded in 1.3 to 2.1 s (the lab, beside two others on two cores; `tests/guest/run --filter translations/`).
SIZES = {2: "n=20", 4: "n=10"}


def stale(console):
    """How many accesses through an old translation the guest counted."""
    found = re.search(rb"^changes=[1-9]\d* wrong_frames=\d+ stale=(\d+)\r?$", console, re.M)
    expect(found, f"the console has no line with changes and stale=: {console.decode(errors='replace')}")
    return int(found[1])


def followed(bench, vcpus, arguments):
    """Every vCPU follows every change."""
    seed = zlib.crc32(f"{arguments} {vcpus}".encode()) % 1000
    report, console, _ = record_and_replay(bench, "remap", f"{SIZES[vcpus]} {arguments}", vcpus=vcpus, chaos=seed)
    expect(stale(console) == 0, f"{stale(console)} accesses through an old translation")
    return f"{report['tickets']} transitions, recorded in {report['wall_ns'] / 1e9:.2f} s"


def private(vcpus):
    return Test(f"translations/private-{vcpus}", lambda bench: followed(bench, vcpus, "shared=0"))


def shared(vcpus):
    """A table for all vCPUs: where a host would not see the others' changes, the guest is refused instead."""
    def run(bench):
        if shadows_tables(bench):
            words = ["record", "--vcpus", vcpus, "-o", bench.folder / "recording", bench.image("remap"), "--", "shared=1"]
            done = bench.reprise(*words)
            expect(done.status == HOST_CANNOT and b"page table" in done.err, "not refused", done)
            return "refused on this host"
        return followed(bench, vcpus, "shared=1")

    return Test(f"translations/shared-{vcpus}", run)


def no_shootdown(bench):
    """A vCPU that is not told of a change is found out, and its mistakes come again."""
    report, console, _ = record_and_replay(bench, "remap", "n=50 shootdown=0", vcpus=2, status=GUEST_FAILED)
    expect(report["guest_status"] == 1, f"guest status {report['guest_status']} instead of 1")
    expect(stale(console) > 0, "nobody used an old translation")
    return f"stale={stale(console)}"


def tests(_options):
    return [*(make(vcpus) for make in (private, shared) for vcpus in SIZES), Test("translations/no-shootdown-2", no_shootdown)]
