"""What recording a bare-metal guest costs, for ./dev bench: each workload without and with safepoints, recorded, recorded with one vCPU at a time,
and replayed, in turns, so that other load on the machine meets all of them; medians. Where each vCPU's time went, and what a page transfer is made of.
"""
import json
import pathlib
import shutil
import statistics
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))
import harness  # noqa: E402: found by the line above

# Workload: (arguments behind the size, the first size that is tried, the largest that fits into the guest's memory, how much is shared).
WORKLOADS = {
    "lost_update": ("", 100_000, None, "one page"), "store_buffer": ("", 50_000, None, "one page"), "message_passing": ("", 50_000, None, "one page"),
    "iriw": ("", 50_000, None, "two pages"), "bank": ("", 50_000, None, "one page"), "locks": ("", 500, None, "one page"),
    "false_sharing": ("padded=1", 100_000, None, "none"), "ring": ("", 200, None, "in turns"), "migratory": ("", 5000, None, "in turns"),
    "read_mostly": ("", 50_000, None, "reads"), "remap": ("", 10, None, "mappings"), "kv": ("", 5000, None, "random"),
    "radix": ("", 1 << 18, 1 << 25, "scattered"), "lu": ("", 128, 4096, "blocks"), "fft": ("", 1 << 14, 1 << 23, "transposed"),
    "stencil": ("check=0", 20, None, "edges"), "timer": ("period=20000", 100_000, None, "interrupts"), "first_touch": ("", 16, 384, "none"),
    # Adversaries of domains: phases of some 1, 10 and 100 ms.
    "phases-1ms": ("steps=500000", 2, None, "now and then"), "phases-10ms": ("steps=5000000", 2, None, "now and then"),
    "phases-100ms": ("steps=50000000", 1, None, "now and then"),
}
MEMORY_MIB = 512  # for the largest sizes
BLOCK = 16  # sizes of lu are multiples
KINDS = ("plain", "safepoints", "recorded_serial", "recorded", "replayed")
# Of a vCPU's time; see TimeSplit in log/recording.proto. What is missing to the whole is KVM's and the VMM's handling of exits.
SPLIT = ("guest", "first_touches", "pages", "turn", "grants", "revokes", "decode", "log", "idle")
WARNINGS = 300  # words that lost_update does not know: each costs a line on the console, a port exit for each byte


def arguments_of(workload, size):
    others = WORKLOADS[workload][0]
    first = f"n=512 steps={size}" if workload == "stencil" else f"n={size}"
    return [*first.split(), *others.split()]


class Costs:
    """Runs reprise where /dev/kvm is. All times in seconds."""

    def __init__(self, options, folder):
        self.options, self.recording = options, pathlib.Path(folder) / "recording"
        self.bench = harness.Bench(harness.Installation(folder), pathlib.Path(folder), options.timeout)

    def once(self, *words):
        done = self.bench.reprise(words[0], "--json", *words[1:])
        if done.status != harness.OK:
            raise harness.Failure(done.text())
        return harness.report_of(done)

    def machine(self, workload, vcpus, arguments, plain=False):
        name = workload.partition("-")[0]
        image = self.bench.image(f"{name}.plain" if plain else name)
        return ["--memory", MEMORY_MIB, "--vcpus", vcpus, image, "--", *arguments]

    def run(self, workload, vcpus, arguments, plain=False):
        return self.once("run", *self.machine(workload, vcpus, arguments, plain))

    def record(self, workload, vcpus, arguments, *how):
        shutil.rmtree(self.recording, ignore_errors=True)
        return self.once("record", *how, "-o", self.recording, *self.machine(workload, vcpus, arguments))

    def replay(self):
        return self.once("replay", self.recording)

    def size_for(self, workload, vcpus):
        """For an unrecorded run of about options.seconds, or of a recording with one vCPU at a time where an unrecorded run does not end: a vCPU
        that has no processor may hold the lock that others spin for."""
        _, size, largest, _ = WORKLOADS[workload]
        largest = largest or 1 << 40

        def seconds():
            try:
                return self.run(workload, vcpus, arguments_of(workload, size))["wall_ns"] / 1e9
            except harness.Failure:
                return self.record(workload, vcpus, arguments_of(workload, size), "--serial")["wall_ns"] / 1e9

        while size < largest and (took := seconds()) < self.options.seconds:
            factor = 4 if took < self.options.seconds / 6 else 2
            size = int(size * factor ** (1 / 3)) // BLOCK * BLOCK if workload == "lu" else size * factor
        return arguments_of(workload, min(size, largest))

    def row(self, workload, vcpus):
        row = {"workload": workload, "vcpus": vcpus, "sharing": WORKLOADS[workload][3]}
        try:
            row["arguments"] = arguments = self.size_for(workload, vcpus)
        except harness.Failure as failure:
            return row | {"failure": str(failure)}
        policy = ["--policy", self.options.policy] if self.options.policy else []
        measures = {"plain": lambda: self.run(workload, vcpus, arguments, plain=True), "safepoints": lambda: self.run(workload, vcpus, arguments),
                    "recorded_serial": lambda: self.record(workload, vcpus, arguments, "--serial"),
                    "recorded": lambda: self.record(workload, vcpus, arguments, *policy), "replayed": self.replay}
        reports, failures = {kind: [] for kind in KINDS}, {}
        for _ in range(self.options.runs):
            for kind, measure in measures.items():
                if kind in failures:
                    continue
                try:
                    reports[kind].append(measure())
                except harness.Failure as failure:
                    failures[kind] = str(failure)
        row["seconds"] = {kind: statistics.median(report["wall_ns"] for report in each) / 1e9 for kind, each in reports.items() if each}
        if reports["recorded"]:
            each = sorted(reports["recorded"], key=lambda report: report["wall_ns"])
            median = each[len(each) // 2]
            seconds = median["wall_ns"] / 1e9
            row |= {"log_bytes_per_s": median["log_bytes"] / seconds, "transfers_per_s": median["crew"]["transfers"] / seconds,
                    "transitions_per_s": median["tickets"] / seconds, "recorded_s": seconds, "split": median["times"]}
        return row | ({"failure": "\n  ".join(f"{kind}: {why}" for kind, why in failures.items())} if failures else {})

    def bare_exit(self):
        """Seconds of one exit to user space and back: a port write, with the little the guest does in between."""
        few = self.run("lost_update", 1, ["n=1000"])
        many = self.run("lost_update", 1, ["n=1000", *["x"] * WARNINGS])
        exits = many["vcpus"][0]["port_io"] - few["vcpus"][0]["port_io"]
        return (many["wall_ns"] - few["wall_ns"]) / 1e9 / exits if exits > 0 else None

    def transfer(self):
        """What one page transfer of `migratory` is made of, in seconds each. Without a hold, which is no cost but a choice."""
        try:
            report = self.record("migratory", 2, arguments_of("migratory", 20_000), "--policy", "hold=0,domains=off")
            crew, bare = report["crew"], self.bare_exit()
        except harness.Failure as failure:
            return {"failure": str(failure)}
        # Every grant changes a view; only a transfer waits for a holder to give way.
        transfers, revokes = max(1, crew["transfers"]), max(1, crew["revokes"])
        grants = max(1, crew["transfers"] + crew["uncontended"])
        faults = max(1, sum(vcpu["faults"] for vcpu in report["vcpus"]))
        return {"transfers": crew["transfers"], "uncontended": crew["uncontended"], "bare_exit": bare,
                "decode": sum(vcpu["decode_ns"] for vcpu in report["vcpus"]) / faults / 1e9,
                "wait": crew["wait_ns"] / transfers / 1e9, "grant": crew["grant_ns"] / grants / 1e9,
                "revoke": crew["revoke_ns"] / revokes / 1e9,
                "whole": (crew["wait_ns"] / transfers + crew["grant_ns"] / grants) / 1e9}


def measure(options):
    """Where /dev/kvm is: prints everything as JSON."""
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        costs = Costs(options, folder)
        rows = []
        for workload in options.workloads:
            for vcpus in options.vcpus:
                rows.append(costs.row(workload, vcpus))
                print(f"bench: {workload}, {vcpus} vCPUs" + (" failed" if "failure" in rows[-1] else ""), file=sys.stderr, flush=True)
        print(json.dumps({"rows": rows, "transfer": costs.transfer()}))
    return 0


# --- tables ----------------------------------------------------------------------------------------------------------


def quotient(row, over, under):
    seconds = row.get("seconds", {})
    return f"{seconds[over] / seconds[under]:.2f}" if over in seconds and under in seconds else "-"


HEADS = ["workload", "vCPUs", "shared", "plain s", "safep./plain", "record/safep.", "record/serial", "replay/record", "transfers/s", "log MB/s"]
SPLIT_HEADS = ["workload", "vCPU", "guest", "first touches", "pages", "turn", "grants", "revokes", "decode", "log", "halted", "exits"]
TRANSFER_PARTS = {"bare_exit": "bare exit (port write)", "decode": "decode, per fault", "revoke": "revoke, per revocation",
                  "wait": "wait for the page, with its revocation", "grant": "grant", "whole": "whole: wait and grant"}


def cells(row):
    seconds = row.get("seconds", {})
    return [row["workload"], row["vcpus"], row["sharing"], f"{seconds['plain']:.3f}" if "plain" in seconds else "-",
            quotient(row, "safepoints", "plain"), quotient(row, "recorded", "safepoints"), quotient(row, "recorded", "recorded_serial"),
            quotient(row, "replayed", "recorded"), f"{row['transfers_per_s']:.0f}" if "transfers_per_s" in row else "-",
            f"{row['log_bytes_per_s'] / 1e6:.3f}" if "log_bytes_per_s" in row else "-"]


def split_cells(row):
    """A line for each vCPU; per cent of the recording's time."""
    for vcpu, split in enumerate(row.get("split", [])):
        # As protobuf writes 64-bit numbers: as text, and nothing for 0.
        ns = {part: int(split.get(part, 0)) for part in SPLIT}
        whole = row["recorded_s"] * 1e9
        yield [row["workload"], f"{vcpu} of {row['vcpus']}", *(f"{ns[part] / whole:.0%}" for part in SPLIT), f"{max(0, whole - sum(ns.values())) / whole:.0%}"]


def transfer_cells(transfer):
    bare = transfer["bare_exit"]
    return [[what, f"{transfer[part] * 1e6:.1f}", f"{transfer[part] / bare:.1f}" if bare else "-"]
            for part, what in TRANSFER_PARTS.items() if transfer[part] is not None]
