"""reprise races: every race of the guests that are made of them, at the right lines, and none in those that lock."""
import json
import re

from harness import OK, ROOT, USAGE, NOT_FOUND, Test, expect, one_sentence, record

FOUND = 12
CHAOS = 1


def line_of(workload, text):
    """The number of the line of the program that has this."""
    lines = (ROOT / "guest-images" / "workloads" / f"{workload}.cc").read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if text in line]
    expect(len(numbers) == 1, f"{workload}.cc has {text!r} in lines {numbers}")
    return numbers[0]


def found(bench, workload, arguments, vcpus=2, words=()):
    """The report of a recording, and the exit status of `races`."""
    folder = bench.folder / "recording"
    record(bench, folder, workload, arguments, vcpus=vcpus, chaos=CHAOS)
    done = bench.reprise("races", "--json", folder, *words)
    expect(done.status in (OK, FOUND), "it fails", done)
    report = json.loads(done.out)
    expect((done.status == FOUND) == bool(report["races"]), "the status does not say whether there are races", done)
    return report, done


def line_in(access, workload):
    """Where in the program an access is."""
    for call in access["stack"]:
        for frame in call:
            if frame["file"].endswith(f"workloads/{workload}.cc"):
                return frame["line"]
    return None


def pairs(report, workload):
    """What the races are: sets of kind and line."""
    return {frozenset((race[part]["kind"], line_in(race[part], workload)) for part in ("first", "second")) for race in report["races"]}


def racing(workload, arguments, expected):
    """`expected`: pairs of kind and a piece of the line; all of them, and nothing else."""

    def run(bench):
        report, done = found(bench, workload, arguments)
        wanted = {frozenset((kind, line_of(workload, text)) for kind, text in pair) for pair in expected}
        got = pairs(report, workload)
        expect(got == wanted, f"found {[sorted(each) for each in got]}, expected {[sorted(each) for each in wanted]}", done)
        for race in report["races"]:
            for part in (race["first"], race["second"]):
                expect(part["exact"], "an access was not gone to", done)
            expect(race["first"]["vcpu"] != race["second"]["vcpu"], "a vCPU races with itself", done)
        return f"{len(got)} races in {report['accesses']} accesses"

    return Test(f"race-reports/{workload}", run)


def locked(workload, arguments, vcpus=2):
    def run(bench):
        report, done = found(bench, workload, arguments, vcpus)
        expect(not report["races"], f"{len(report['races'])} races are found", done)
        expect(report["accesses"] > 100, "nothing was looked at", done)
        return f"none in {report['accesses']} accesses"

    return Test(f"race-reports/{workload}-{vcpus}", run)


def falsely_shared(bench):
    """Disjoint words on one page are no race, and are reported with both users."""
    report, done = found(bench, "false_sharing", "n=2000")
    expect(not report["races"], "disjoint words race", done)
    shared = [page for page in report["false_sharing"] if {user["vcpu"] for user in page["users"] if user["writes"]} == {0, 1}]
    # Whether it is found depends on what was looked at (docs/races.md).
    expect(all(line_in({"stack": [user["code"]]}, "false_sharing") for page in shared for user in page["users"]), "a user has no line", done)
    return f"{len(shared)} pages found"


def text_and_suppressions(bench):
    """The text names both accesses and how to go there; a suppressed race is not reported, and counted."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=1000", chaos=CHAOS)
    done = bench.reprise("races", folder)
    expect(done.status == FOUND, "there is no race", done)
    text = done.out.decode()
    expect(re.search(r"^RACE: \S+racy_store / ", text, re.M), "there is no header", done)
    expect(re.search(r"^(write|read) to 0x[0-9a-f]+ \(.*counter.*\) of 8 bytes by vCPU [01] at [0-9.]+:$", text, re.M), "an access has no line", done)
    marks = re.findall(r"^go there: reprise gdb \S+ --at ([0-9.]+) -- -ex '(thread \d)'$", text, re.M)
    expect(len(marks) == 2 * len(re.findall("^RACE", text, re.M)), "a race does not say how to go there", done)
    there = bench.reprise("gdb", folder, "--at", marks[0][0], "--", "-batch", "-ex", marks[0][1], "-ex", "info line *$pc")
    expect(there.status == OK and b"guest-images/runtime/racy.h" in there.out, "GDB is not at the access", there)
    file = bench.folder / "suppressions"
    file.write_text("# known\nrace:^nobody$\nrace:lost_update.cc\n")
    quiet = bench.reprise("races", "--suppress", file, folder)
    expect(quiet.status == OK and b"0 races" in quiet.out and b"suppressed by race:lost_update.cc" in quiet.out, "it is not suppressed", quiet)
    before = bench.reprise("races", "--json", "--to", "2", folder)
    expect(before.status == OK and not json.loads(before.out)["races"], "there is a race before anything was shared", before)
    few = bench.reprise("races", "--json", "--accesses", "1", folder)
    expect(b"goes on there" in few.err and "ended_at" in json.loads(few.out), "that not all was looked at goes unsaid", few)


def bad_input(bench):
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=100")
    one_sentence(bench.reprise("races", "--from", "x", folder), USAGE, "mark")
    one_sentence(bench.reprise("gdb", folder, "--at", "x"), USAGE, "mark")
    one_sentence(bench.reprise("races", "--from", "3", "--to", "2", folder), USAGE, "nothing is between")
    file = bench.folder / "suppressions"
    file.write_text("thread:x\n")
    one_sentence(bench.reprise("races", "--suppress", file, folder), USAGE, "line 1 of the suppressions")
    one_sentence(bench.reprise("races", "--suppress", bench.folder / "none", folder), NOT_FOUND, "none")


def tests(_options):
    add = "racy_add(*counter, 1)"
    last = "*last_seen[worker] = racy_load(*counter)"
    mp_data, mp_flag = "racy_store(data.cell[i], 1)", "racy_store(flag.cell[i], 1)"
    take, give = "racy_add(balance[from], -amount)", "racy_add(balance[to], amount)"
    adds = [(("write", one), (kind, other)) for one in (take, give) for other in (take, give) for kind in ("read", "write")]
    return [
        racing("lost_update", "n=2000", [(("write", add), ("read", add)), (("write", add),), (("write", add), ("read", last))]),
        racing("bank", "n=3000", adds),
        racing("message_passing", "n=400 sweep=100", [(("write", mp_data), ("read", "racy_load(data.cell[i])")), (("write", mp_flag), ("read", "racy_load(flag.cell[i])"))]),
        racing("store_buffer", "n=400 sweep=100", [(("write", "racy_store(variable[role].cell[i], 1)"), ("read", "racy_load(variable[1 - role].cell[i])"))]),
        locked("locks", "n=300"),
        locked("kv", "n=200", 4),
        locked("ring", "n=300"),
        locked("kv", "n=400"),
        locked("stencil", "n=32 steps=6"),
        Test("race-reports/false_sharing", falsely_shared),
        Test("race-reports/text", text_and_suppressions),
        Test("race-reports/bad-input", bad_input),
    ]
