"""Debian's kernel and the modules that a lab loads: downloaded and unpacked into a cache, never installed."""
import fcntl
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile

from lab_machine import CACHE, CANNOT, LabError, say

# What each lab, and a guest, boots: the Debian package that depends on the newest kernel, the name of what is kept of its vmlinuz, and the modules that
# are loaded, in this order, after those that they need.
QEMU_MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "kvm-amd"]
KERNELS = {
    "qemu": ("linux-image-amd64", "vmlinux", QEMU_MODULES),
    "backports": ("linux-image-amd64", "vmlinux", QEMU_MODULES),
    # The kernel for clouds, which is what Linux guests run. Bochs can only boot a packed one, and unpacks this (LZ4) ten times faster
    # than the other (XZ).
    "cloud": ("linux-image-cloud-amd64", "vmlinuz", ["kvm-intel"]),
    # The same as a guest, with the modules of its devices, and one that looks at the time-stamp counter (tools/linux-guest). ext4 is built in.
    "guest": ("linux-image-cloud-amd64", "vmlinuz", ["virtio_mmio", "virtio_blk", "virtio_console", "virtio_rng", "tcrypt", "raid6_pq"]),
}
BACKPORTS = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main\n"
# The layout of a folder in the cache is part of its name, so that one of an older layout is not taken for a full one.
LAYOUT = 6


def fetch_kernel(lab):
    """The folder of the newest kernel for `lab` in the cache: vmlinuz or vmlinux, modules, order; fills the cache first if empty."""
    CACHE.mkdir(parents=True, exist_ok=True)
    package, image, modules = KERNELS[lab]
    with open(CACHE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = sorted(CACHE.glob(f"{lab}-linux-*.layout{LAYOUT}/{image}"), key=lambda path: path.stat().st_mtime)
        if ready:
            return ready[-1].parent
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            apt = backports(pathlib.Path(work)) if lab == "backports" else []
            try:
                deb = download_kernel(package, work, apt)
            except LabError:
                # Package lists that are missing or out of date; the second try says what is really wrong.
                if os.geteuid() == 0 or apt:
                    subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *apt, "update"], capture_output=True)
                deb = download_kernel(package, work, apt)
            unpack_kernel(deb, pathlib.Path(work) / "kernel", image, modules)
            target = CACHE / f"{lab}-{deb.name.split('_')[0].replace('linux-image', 'linux')}.layout{LAYOUT}"
            shutil.rmtree(target, ignore_errors=True)
            os.rename(pathlib.Path(work) / "kernel", target)
        return target


def backports(folder):
    """Options that make apt look at backports alone, with lists of its own in `folder`: the machine's are left as they are."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "sources.list").write_text(BACKPORTS)
    return ["-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={folder}/lists",
            "-o", "APT::Sandbox::User=root"]


def download_kernel(latest, folder, apt):
    depends = subprocess.run(["apt-cache", *apt, "depends", latest], capture_output=True, text=True)
    match = re.search(r"Depends: (linux-image-\S+)", depends.stdout)
    if not match:
        raise LabError(CANNOT, f"apt does not know {latest}; run apt-get update as root")
    package = match.group(1)
    say(f"fetching {package} (once, up to 110 MB)")
    got = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", *apt, "-qq", "download", package], cwd=folder,
                         capture_output=True, text=True)
    debs = list(pathlib.Path(folder).glob("*.deb"))
    if got.returncode or not debs:
        why = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabError(CANNOT, f"cannot download {package}: {why}")
    return debs[0]


def unpack_kernel(deb, target, image, wanted):
    target.mkdir()
    unpacking = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    modules = {}
    with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
        for entry in archive:
            if entry.name.startswith("./boot/vmlinuz"):
                packed = archive.extractfile(entry).read()
                (target / image).write_bytes(packed if image == "vmlinuz" else unpack_vmlinuz(packed))
            elif entry.name.endswith((".ko", ".ko.xz")):
                modules[module_name(pathlib.Path(entry.name).name.split(".ko")[0])] = archive.extractfile(entry).read()
    unpacking.stdout.read()
    if unpacking.wait():
        raise LabError(CANNOT, f"{deb} is damaged")
    order = load_order(modules, wanted)
    (target / "order").write_text("".join(f"{name}\n" for name in order))
    for name in order:
        (target / f"{name}.ko").write_bytes(unpack_module(modules[name]))
        # Without signature and debug sections a module loads several times faster under emulation.
        subprocess.run(["strip", "--strip-debug", target / f"{name}.ko"], check=True)


def load_order(modules, wanted):
    """The names of `wanted`, each after all that it depends on."""
    order = []

    def add(name):
        name = module_name(name)
        if name in order or name not in modules:  # not a module: built in
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + unpack_module(modules[name]))
        for other in filter(None, depends.group(1).decode().split(",") if depends else []):
            add(other)
        order.append(name)

    for name in wanted:
        add(name)
    return order


def unpack_module(data):
    return lzma.decompress(data) if data.startswith(b"\xfd7zXZ") else data


def module_name(stem):
    return stem.replace("-", "_")


def unpack_vmlinuz(image):
    """The ELF inside a bzImage, so that the emulator need not unpack it (Linux: Documentation/arch/x86/boot.rst)."""
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start:start + int.from_bytes(image[0x24C:0x250], "little")]
    # Behind the compressed stream stand four bytes: the unpacked size.
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        import zlib
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise LabError(CANNOT, "this kernel's compression is not known to tools/lab")
