"""reprise explore: one chaos seed after the other until the guest fails; gone on with after an end by force; in shards, side by side."""
import json
import shutil
import signal
import subprocess
import time

from harness import OK, Test, count_for, expect, one_sentence, report_of

OTHER, USAGE = 1, 2
SECONDS = 0.3  # of a run
MOST = 60


def results(folder):
    return [json.loads(line) for file in sorted(folder.glob("results-*.jsonl")) for line in file.read_text().splitlines()]


def failing(bench):
    """The first seed whose guest fails, and one that does not: both recordings replay, and the next call has nothing to do."""
    folder = bench.folder / "found"
    count = count_for(bench, "lost_update", 400000, SECONDS)
    words = ["explore", "-o", folder, "-n", MOST, "--json", "--", "--vcpus", 2, bench.image("lost_update"), "--", f"n={count}", "strict=1"]
    done = bench.reprise(*words)
    expect(done.status == OK, "no update was lost", done)
    report = report_of(done)
    expect(report["failed"] == 1 and report["results"][-1]["failed"], "it did not end at the first failure", done)
    seed = report["results"][-1]["seed"]
    expect([each["seed"] for each in report["results"]] == list(range(1, seed + 1)), "seeds are missing", done)
    kept = sorted(path.name for path in folder.iterdir() if path.is_dir())
    expect(f"failing-{seed}" in kept and len(kept) <= 2, f"kept are {kept}", done)
    for name in kept:
        replayed = bench.reprise("replay", "--json", folder / name)
        expect(replayed.status == OK and report_of(replayed)["verb"] == "replayed, identical", f"{name} does not replay", replayed)
        expect((report_of(replayed)["guest_status"] != 0) == name.startswith("failing"), f"{name} ends otherwise", replayed)
    before = results(folder)
    again = bench.reprise(*words)
    expect(again.status == OK and results(folder) == before, "the next call records again", again)
    return f"{seed} seeds"


def patterns(bench):
    """A line of the console, or too long a time, is a failure; without one the status says so."""
    image = bench.image("lost_update")
    found = bench.reprise("explore", "-o", bench.folder / "line", "-n", 3, "--console", "^lost_update cpus=2", "--", "--vcpus", 2, image, "--", "n=100")
    expect(found.status == OK and b"1 seed recorded, 1 failed" in found.out, "the line is not found", found)
    none = bench.reprise("explore", "-o", bench.folder / "none", "-n", 3, "--console", "no such line", "--", "--vcpus", 2, image, "--", "n=100")
    expect(none.status == OTHER and b"3 seeds recorded, 0 failed" in none.out, "something failed", none)
    late = bench.reprise("explore", "-o", bench.folder / "late", "-n", 3, "--timeout", 1, "--", "--vcpus", 2, image, "--", "n=4000000000000")
    expect(late.status == OK and b"not at its end after 1 s" in late.out, "it has time without end", late)
    one_sentence(bench.reprise("explore", "-o", bench.folder / "bad", "--shard", "5/4", "--", image), USAGE, "no shard 5 of 4")
    one_sentence(bench.reprise("explore", "-o", bench.folder / "bad", "--console", "(", "--", image), USAGE, "no regular expression")
    wrong = bench.reprise("explore", "-o", bench.folder / "wrong", "--", "--vcpus", 99, image)
    expect(wrong.status == USAGE and b"seed 1: the recorder ends with status 2" in wrong.err, "a recorder that cannot record goes unsaid", wrong)


def killed(bench):
    """Killed in the middle of a seed: the next call records that one again, and no other; told to end, it leaves nothing half done."""
    folder = bench.folder / "found"
    words = [str(word) for word in (bench.installation.reprise, "explore", "-o", folder, "-n", 6, "--", "--vcpus", 2, bench.image("lost_update"), "--",
                                    f"n={count_for(bench, 'lost_update', 400000, SECONDS)}")]
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0)
        start, known = time.monotonic(), len(results(folder)) if folder.exists() else 0
        while not (folder.exists() and len(results(folder)) > known) and process.poll() is None:
            expect(time.monotonic() - start < bench.timeout, "no seed is recorded")
            time.sleep(0.01)
        process.send_signal(end)
        process.communicate(timeout=bench.timeout)
        subprocess.run(["pkill", "-KILL", "-g", str(process.pid)], check=False)  # a recorder that SIGKILL left alone
    expect(not list(folder.glob("*.part")), "what SIGTERM ended is left")
    done = bench.reprise(*words[1:])
    expect(done.status == OTHER, "something failed", done)
    expect([each["seed"] for each in results(folder)] == [1, 2, 3, 4, 5, 6], f"the seeds are {results(folder)}", done)


def shards(bench):
    """Three processes, each with every third seed, in one folder: the results of all are there."""
    folder = bench.folder / "found"
    command = f"{bench.installation.reprise} explore -o {folder} -n 9 --shard {{}}/3 -- --vcpus 2 {bench.image('lost_update')} -- n=1000"
    side_by_side = ["parallel", "--jobs", "3", command, ":::", "1", "2", "3"] if shutil.which("parallel") else ["xargs", "-P", "3", "-I{}", "sh", "-c", command]
    done = subprocess.run(side_by_side, input=b"1\n2\n3\n", capture_output=True, timeout=bench.timeout, check=False)
    expect(sorted(each["seed"] for each in results(folder)) == list(range(1, 10)), f"the results are {results(folder)}: {done.stderr.decode()}")
    merged = bench.reprise("explore", "-o", folder, "-n", 9, "--json", "--", bench.image("lost_update"))
    expect(merged.status == OTHER and report_of(merged)["passed"] == 9, "the shards' results are not all there", merged)


def tests(_options):
    return [Test("explore/failing", failing), Test("explore/patterns", patterns), Test("explore/killed", killed), Test("explore/shards", shards)]
