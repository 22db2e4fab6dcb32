"""A host that is short of memory takes pages of guest memory away at any time; recorder and replayer see the same run."""
import os

from harness import BUILD, OK, Test, compared, expect, report_of

PRELOAD = BUILD / "tests" / "guest" / "libreclaim.so"
RUNS = [("bank", "n=20000", 2, ()), ("kv", "n=50", 2, ()), ("timer", "n=200000", 1, ()), ("ring", "n=200", 4, ()),
        ("bank", "n=20000", 2, ("--views", "mprotect"))]
INTERVAL = 2000  # microseconds


def run_of(image, arguments, vcpus, extra):
    def run(bench):
        folder = bench.folder / "recording"
        env = {**os.environ, "LD_PRELOAD": str(PRELOAD), "RECLAIM_US": str(INTERVAL)}
        done = bench.reprise("record", "--json", "--vcpus", vcpus, *extra, "-o", folder, bench.image(image), "--", *arguments.split(), env=env)
        expect(done.status == OK, f"record ends with {done.status}", done)
        report, console = report_of(done), done.err
        taken = sum(vcpu["host_faults"] for vcpu in report["vcpus"])
        for environment, what in ((env, "while pages are taken away"), (None, "undisturbed")):
            done = bench.reprise("replay", "--json", *extra, folder, env=environment)
            expect(done.status == OK and report_of(done)["verb"] == "replayed, identical", f"replay {what} ends with {done.status}", done)
            expect(compared(report_of(done)) == compared(report) and done.err == console, f"the replay {what} differs", done)
        expect(extra or taken > 0, "no page was missed: nothing was tried")
        return f"{taken} touches of pages that the host had taken away"

    return Test(f"reclaimed/{image}-{vcpus}{''.join(extra[1:])}", run)


def tests(_options):
    return [run_of(*each) for each in RUNS]
