"""What differs between hosts: the profile that `doctor` finds, and recordings that were made elsewhere.

tests/golden/doctor/ holds the profile of each lab (its kernel's command line says which one this is), tests/golden/recordings/HOST/ recordings made there.
"""
import json
import os
import pathlib
import re

from harness import BUILD, HOST_CANNOT, OK, ROOT, Skip, Test, expect, one_sentence, report_of

GOLDEN = ROOT / "tests" / "golden"
CHANGING = {"kernel", "branches counted", "skid of its interrupt"}  # facts that are the host's, but no property of its kind
SOFTWARE = "software"  # the host whose KVM emulates kernel code


def host():
    """Which lab this is, or what REPRISE_HOST says, or software where KVM is that; nothing: a host that nobody has named."""
    lab = re.search(r"\breprise\.lab=(\w+)", pathlib.Path("/proc/cmdline").read_text())
    if lab:
        return lab[1]
    return os.environ.get("REPRISE_HOST") or (SOFTWARE if pathlib.Path("/sys/module/kvm_pvm").exists() else None)


def profile_of(bench):
    """`doctor --json` without what changes from run to run."""
    done = bench.reprise("doctor", "--json")
    expect(done.status == OK, "doctor fails", done)
    profile = report_of(done)
    del profile["microseconds"]
    profile["facts"] = [fact for fact in profile["facts"] if fact["name"] not in CHANGING]
    return profile


def doctor(bench):
    """The profile of a host that is known is the known one."""
    profile = profile_of(bench)
    found = bench.folder / "doctor.json"
    found.write_text(json.dumps(profile, indent=2) + "\n")
    kind = host()
    if not kind:
        raise Skip(f"no profile is on file for this host, a {profile['profile']}")
    golden = GOLDEN / "doctor" / f"{kind}.json"
    expect(golden.exists(), f"{golden} is missing")
    known = json.loads(golden.read_text())
    wrong = [f"{key}: {profile.get(key)!r} instead of {known.get(key)!r}"
             for key in sorted({*known, *profile} - {"facts"}) if profile.get(key) != known.get(key)]
    facts = [{fact["name"]: (fact["value"], fact["consequence"]) for fact in each["facts"]} for each in (profile, known)]
    wrong += [f"{name}: {facts[0].get(name)} instead of {facts[1].get(name)}"
              for name in sorted({*facts[0], *facts[1]}) if facts[0].get(name) != facts[1].get(name)]
    expect(not wrong, "; ".join(wrong) + f"\n  the whole profile as found is in doctor.json; if it is right, it belongs to {golden}")


def linux_refused(bench):
    """Where KVM shadows page tables, a Linux guest's vCPUs would not see each other's changes of them."""
    kernel = BUILD / "guest-images" / "linux" / "vmlinuz"
    folder = bench.folder / "recording"
    one_sentence(bench.reprise("record", "--kernel", kernel, "-o", folder), HOST_CANNOT, "shadows page tables.*nested paging")
    expect(not folder.exists(), "a recording was left behind")


def travelled(recording):
    """A recording that was made on another host (or here, by an older version) replays with the same digests."""
    def run(bench):
        done = bench.reprise("verify", recording)
        expect(done.status == OK, "verify does not pass", done)
        done = bench.reprise("replay", "--json", recording)
        if (recording.parent.name == SOFTWARE) != (host() == SOFTWARE):
            one_sentence(done, HOST_CANNOT, "emulator, which stops elsewhere")
            return "refused on this host"
        expect(done.status == OK and report_of(done)["verb"] == "replayed, identical", "the replay is not identical", done)
        expect(done.err == (recording / "console").read_bytes(), "the console differs", done)
        return ""

    return Test(f"hosts/from-{recording.parent.name}-{recording.name}", run)


def tests(_options):
    made = sorted(manifest.parent for manifest in (GOLDEN / "recordings").glob("*/*/manifest"))
    refused = [Test("hosts/linux-refused", linux_refused)] if host() in ("shadow", SOFTWARE) else []
    return [Test("hosts/doctor", doctor), *refused, *map(travelled, made)]
