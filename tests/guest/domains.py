"""Machines that libvirt defines: what `domains`, --domain and --domain-xml make of them, and of what is wrong with them."""
import ctypes.util
import os
import pathlib
import shutil
import subprocess
import time

from harness import DAMAGED, HOST_CANNOT, NOT_FOUND, OK, USAGE, Skip, Test, expect, one_sentence, record, report_of

# A machine whose kernel is not there: what is refused is refused before that is looked for.
DEFINITION = """<domain type='{type}'>
  <name>{name}</name>
  <memory unit='MiB'>128</memory>
  <vcpu>{vcpus}</vcpu>
  <os><type arch='x86_64'>hvm</type>{kernel}</os>
  <devices>{devices}</devices>
</domain>
"""
DISK = "<disk type='file' device='disk'><source file='{}'/><target dev='vda'/>{}</disk>"


def definition(name, devices="", kernel="<kernel>/no/such/kernel</kernel>", vcpus=1, kind="test"):
    return DEFINITION.format(name=name, devices=devices, kernel=kernel, vcpus=vcpus, type=kind)


def xml_file(bench, text, name="definition.xml"):
    path = bench.folder / name
    path.write_text(text)
    return path


def test_driver(bench, running=(), **domains):
    """The URI of libvirt's test driver with these definitions; those that are not `running` are shut off."""
    if ctypes.util.find_library("virt") is None and not pathlib.Path("/usr/lib/x86_64-linux-gnu/libvirt.so.0").exists():
        raise Skip("libvirt is not here")
    states = {name: 1 if name in running else 5 for name in domains}  # VIR_DOMAIN_RUNNING, VIR_DOMAIN_SHUTOFF
    space = "xmlns:test='http://libvirt.org/schemas/domain/test/1.0'"
    parts = [text.replace("<domain ", f"<domain {space} ", 1).replace("</domain>", f"<test:runstate>{states[name]}</test:runstate></domain>")
             for name, text in domains.items()]
    return f"test://{xml_file(bench, '<node>' + ''.join(parts) + '</node>', 'node.xml')}"


def listed(bench):
    """Each domain, whether it can be recorded, and which element prevents it."""
    tpm = "<tpm model='tpm-tis'><backend type='emulator'/></tpm>"
    uri = test_driver(bench, plain=definition("plain"), secret=definition("secret", tpm), running=("plain",),
                      disk=definition("disk", DISK.format("/d.raw", ""), kernel=""))
    done = bench.reprise("domains", "--connect", uri, "--json")
    expect(done.status == OK and done.err == b"", "domains fails", done)
    found = {each["name"]: each for each in report_of(done)}
    expect({name: (each["recordable"], each["needs_kernel"], each["running"]) for name, each in found.items()} ==
           {"disk": (True, True, False), "plain": (True, False, True), "secret": (False, False, False)}, "other answers", done)
    expect([each["element"] for each in found["secret"]["obstacles"]] == ["tpm"], "not the TPM", done)
    text = bench.reprise("domains", "--connect", uri)
    lines = text.out.decode().splitlines()
    expect(len(lines) == 4 and lines[1].split() == ["disk", "shut", "off", "with", "--kernel"] and lines[2].split() == ["plain", "running", "yes"]
           and "tpm is a TPM" in lines[3], "not a line each", text)


def by_name(bench):
    """--domain finds a definition, options replace what it says, and what is wrong is said in one sentence."""
    uri = test_driver(bench, running=("busy", "reads"), plain=definition("plain"), many=definition("many", vcpus=16),
                      busy=definition("busy", DISK.format("/d.raw", "")), reads=definition("reads", DISK.format("/d.raw", "<readonly/>")),
                      disk=definition("disk", DISK.format("/d.raw", ""), kernel=""))
    for verb, output in (("run", []), ("record", ["-o", bench.folder / "recording"])):
        for status, pattern, *words in (
                (NOT_FOUND, "libvirt has no domain none: .reprise domains.", "none"),
                (NOT_FOUND, "cannot open /no/such/kernel", "plain"),
                (NOT_FOUND, "cannot open /other/kernel", "plain", "--kernel", "/other/kernel"),
                (USAGE, "vcpu is not possible: 16 vCPUs", "many"),
                (NOT_FOUND, "cannot open /no/such/kernel", "many", "--vcpus", 4),
                (HOST_CANNOT, "busy is running and writes to its disk /d.raw: shut it down", "busy"),
                (USAGE, "the domain disk boots from its disk: .*virt-get-kernel -a /d.raw.*--kernel", "disk"),
                (NOT_FOUND, "cannot open /my/kernel", "disk", "--kernel", "/my/kernel")):
            one_sentence(quiet(bench, verb, *output, "--connect", uri, "--domain", *words), status, pattern)
    expect(not (bench.folder / "recording").exists(), "a recording was left behind")


def quiet(bench, *words):
    """Without the remarks about what differs for the guest, which --json leaves out."""
    return bench.reprise(*words, "--json")


def from_file(bench):
    """--domain-xml needs no libvirt."""
    hostdev = xml_file(bench, definition("passed", "<hostdev mode='subsystem' type='pci'/>", kind="kvm"))
    one_sentence(quiet(bench, "run", "--domain-xml", hostdev), USAGE, "passed cannot be recorded: hostdev .*--ignore-devices hostdev goes on")
    one_sentence(quiet(bench, "run", "--domain-xml", hostdev, "--ignore-devices", "tpm,hostdev"), NOT_FOUND, "cannot open /no/such/kernel")
    said = bench.reprise("run", "--domain-xml", hostdev, "--ignore-devices", "hostdev")
    expect(b"the domain passed is without these here: hostdev" in said.err, "it does not say what is left out", said)
    one_sentence(quiet(bench, "run", "--domain-xml", bench.folder / "none"), NOT_FOUND, "cannot open .*none")
    one_sentence(quiet(bench, "run", "--domain-xml", xml_file(bench, "<domain>")), DAMAGED, "definition.xml: the definition is no XML: .* at byte")
    one_sentence(quiet(bench, "run", "--domain-xml", xml_file(bench, "<network/>")), DAMAGED, "is of <network>, needed is <domain>")
    one_sentence(quiet(bench, "run", "--domain-xml", hostdev, "image.elf"), USAGE, "--domain-xml excludes image|image excludes --domain-xml")
    one_sentence(quiet(bench, "run", "--connect", "test:///default", "image.elf"), USAGE, "--connect requires --domain")


def nobody_there(bench):
    """Where nobody answers, and where libvirt is not installed."""
    test_driver(bench)
    one_sentence(bench.reprise("domains", "--connect", "qemu+unix:///system?socket=/no/such/socket"), HOST_CANNOT, "libvirt does not answer at .*socket")
    if os.geteuid() != 0:
        raise Skip("needs root, to hide libvirt in a mount namespace")
    library = pathlib.Path("/usr/lib/x86_64-linux-gnu/libvirt.so.0").resolve()
    prefix = ["unshare", "-m", "sh", "-c", f'mount --bind /dev/null {library} && exec "$@"', "sh"]
    if bench.command([*prefix, "true"]).status:
        raise Skip("cannot mount in a namespace of its own here")
    for words in (["domains"], ["run", "--domain", "any"], ["record", "-o", bench.folder / "r", "--domain", "any"]):
        one_sentence(bench.reprise(*words, prefix=prefix), HOST_CANNOT, "libvirt cannot be asked: .*install it .Debian: libvirt0., or .*--domain-xml")
    file = xml_file(bench, definition("plain"))
    one_sentence(bench.reprise("run", "--json", "--domain-xml", file, prefix=prefix), NOT_FOUND, "cannot open /no/such/kernel")


def of_recordings(bench):
    """A bare-metal image has no definition; what is no recording has none either."""
    folder = bench.folder / "recording"
    record(bench, folder, "lost_update", "n=2000")
    one_sentence(bench.reprise("domain-xml", folder), USAGE, "a bare-metal image has no definition")
    one_sentence(bench.reprise("domain-xml", bench.folder / "none"), NOT_FOUND, "there is no recording")


class Daemon:
    """A real libvirtd of nobody's, with folders of its own."""

    def __init__(self, bench):
        for program in ("libvirtd", "virsh", "qemu-system-x86_64"):
            if shutil.which(program) is None:
                raise Skip(f"{program} is not installed")
        if os.geteuid() != 0:
            raise Skip("needs root, to become nobody")
        self.bench, self.home = bench, bench.folder / "home"
        bench.installation.folder.chmod(0o711)
        bench.folder.chmod(0o711)
        self.home.mkdir()
        os.chown(self.home, 65534, 65534)
        words = {"HOME": self.home, "XDG_RUNTIME_DIR": self.home / "run", "XDG_CACHE_HOME": self.home / "cache", "XDG_CONFIG_HOME": self.home / "config"}
        self.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", *(f"{name}={path}" for name, path in words.items())]
        bench.command([*self.prefix, "mkdir", "-m", "700", self.home / "run"])
        with open(self.home / "log", "wb") as log:
            self.process = subprocess.Popen([str(word) for word in (*self.prefix, "libvirtd")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.virsh("list").status:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise Skip(f"libvirtd does not start here: {(self.home / 'log').read_text()[-200:]!r}")
            time.sleep(0.5)

    def virsh(self, *words):
        return self.bench.command([*self.prefix, "virsh", "--quiet", "--connect", "qemu:///session", *words])

    def end(self):
        self.process.terminate()
        self.process.wait()


def daemon(bench):
    """libvirtd's QEMU driver: domains that are shut off and one that runs, with the defaults that libvirt adds to a definition."""
    libvirtd = Daemon(bench)
    try:
        disk = libvirtd.home / "disk.raw"
        bench.command([*libvirtd.prefix, "truncate", "-s", "1M", disk])
        texts = {"off": definition("off", kind="qemu"), "runs": definition("runs", DISK.format(disk, ""), "", kind="qemu"),
                 "refused": definition("refused", "<vsock model='virtio'><cid auto='yes'/></vsock>", kind="qemu")}
        for name, text in texts.items():
            path = xml_file(bench, text, f"{name}.xml")
            path.chmod(0o644)
            done = libvirtd.virsh("define", path)
            expect(done.status == OK, f"virsh does not define {name}", done)
        started = libvirtd.virsh("start", "--paused", "runs")
        expect(started.status == OK, "virsh does not start a domain", started)
        done = bench.reprise("domains", "--connect", "qemu:///session", "--json", prefix=libvirtd.prefix)
        expect(done.status == OK, "domains fails", done)
        found = {each["name"]: (each["recordable"], each["running"], [obstacle["element"] for obstacle in each["obstacles"]]) for each in report_of(done)}
        expect(found == {"off": (True, False, []), "runs": (True, True, []), "refused": (False, False, ["vsock"])}, "other answers", done)
        one_sentence(bench.reprise("run", "--json", "--connect", "qemu:///session", "--domain", "runs", "--kernel", "/k", prefix=libvirtd.prefix),
                     HOST_CANNOT, "runs is running and writes to its disk .*disk.raw")
        one_sentence(bench.reprise("run", "--json", "--connect", "qemu:///session", "--domain", "off", prefix=libvirtd.prefix),
                     NOT_FOUND, "cannot open /no/such/kernel")
    finally:
        libvirtd.virsh("destroy", "runs")
        libvirtd.end()


def tests(_options):
    return [Test(f"domains/{function.__name__.replace('_', '-')}", function)
            for function in (listed, by_name, from_file, nobody_there, of_recordings, daemon)]
