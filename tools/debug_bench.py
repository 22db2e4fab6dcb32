"""What going to and fro in a recording costs, for ./dev bench --debug: in the replay itself (tests/guest/debug_costs.cc), and until a GDB is attached."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))
import harness  # noqa: E402: found by the line above

COSTS = harness.BUILD / "tests" / "guest" / "debug_costs"
# Workload: arguments by number of doublings of the work.
WORKLOADS = {"lost_update": lambda k: f"n={1000000 << k}", "stencil": lambda k: f"n=256 steps={5 << k} check=0", "bank": lambda k: f"n={1000000 << k}"}
SECONDS = (1, 10)  # about how long the recordings take
MOST_DOUBLINGS = 20
SEED = 1


def sized(bench, name, seconds):
    """A recording of about `seconds`: (folder, report)."""
    folder = bench.folder / f"{name}-{seconds}"
    for k in range(MOST_DOUBLINGS):
        shutil.rmtree(folder, ignore_errors=True)
        report, _ = harness.record(bench, folder, name, WORKLOADS[name](k))
        if report["wall_ns"] / 1e9 > seconds / 1.5:
            break
    return folder, report


def attach(bench, folder):
    """Seconds from starting the replay until GDB shows where it stands; None where there is no GDB."""
    if shutil.which("gdb") is None:
        return None
    address = f"{bench.folder}/gdb"
    start = time.monotonic()
    stub = subprocess.Popen([bench.installation.reprise, "replay", folder, f"--gdb=unix:{address}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)
    try:
        stub.stderr.readline()
        done = bench.command(["gdb", "-nx", "-batch", "-ex", f"target remote {address}", "-ex", "x/i $pc", "-ex", "disconnect", folder / "image.elf"])
        harness.expect(done.status == harness.OK and b"=> 0x" in done.out, "GDB does not attach", done)
        return time.monotonic() - start
    finally:
        stub.kill()
        stub.communicate()
        pathlib.Path(address).unlink(missing_ok=True)


def row(bench, name, seconds):
    print(f"bench: {name}, {seconds} s", file=sys.stderr, flush=True)
    try:
        folder, report = sized(bench, name, seconds)
        done = bench.command([COSTS, folder, SEED], timeout=bench.timeout + 60 * seconds)
        harness.expect(done.status == harness.OK, "debug_costs fails", done)
        costs = json.loads(done.out)
        for cost, value in costs.items():
            if isinstance(value, dict):
                costs[cost] = {key: number if key == "count" else number / 1e9 for key, number in value.items()}
            elif not cost.startswith("checkpoint"):
                costs[cost] = value / 1e9
        return {"workload": name, "recorded": report["wall_ns"] / 1e9, "transitions": report["tickets"], "attach": attach(bench, folder), **costs}
    except harness.Failure as failure:
        return {"workload": name, "failure": str(failure)}
    finally:
        shutil.rmtree(bench.folder / f"{name}-{seconds}", ignore_errors=True)


def measure(options):
    """Where /dev/kvm is: prints the rows as JSON."""
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        bench = harness.Bench(harness.Installation(folder), folder, options.timeout)
        print(json.dumps([row(bench, name, seconds) for name in options.workloads for seconds in SECONDS]))
    return 0


def ms(value):
    return "-" if value is None else f"{value * 1e3:.2f}" if value < 0.01 else f"{value * 1e3:.0f}"


def cells(row):
    if "failure" in row:
        return [row["workload"], *["-"] * (len(HEADS) - 1)]
    spread = [f"{ms(row[key]['p50'])} {ms(row[key]['p99'])}" for key in ("step", "reverse_step", "seek")]
    made, watch = row.get("checkpoint"), row.get("watch")
    return [row["workload"], f"{row['recorded']:.1f}", row["transitions"], ms(row["attach"]), *spread, ms(row["first_to_end"]), ms(row["to_begin"]), ms(row["to_end"]),
            f"{ms(watch['p50'])} {ms(watch['p99'])}" if watch else "-", ms(row["reverse_continue"]), ms(row["reverse_continue_no_hit"]), ms(made and made["p50"]), f"{row['checkpoint_bytes'] / row['checkpoints'] / 1e6:.2f}",
            row["checkpoints"]]


HEADS = ["recording", "s", "transitions", "attach", "step p50 p99", "back p50 p99", "seek p50 p99", "1st to end", "to begin", "to end", "watch p50 p99", "r-continue", "no hit",
         "checkpoint", "MB each", "kept"]
TITLE = ("Debugging a recording, milliseconds: GDB attached; steps, steps back and seeks in it; first way to the end, back, and there again; back to the\n"
         "last write to what is written at some moment; reverse-continue from the end to a breakpoint at the beginning, and to the beginning without\n"
         "one; one checkpoint, and what each that is kept adds")
