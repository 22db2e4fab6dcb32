"""QEMU with a branch counter: Debian's source package, pmu_counter.c and the hooks below, built into the cache.

Debian's QEMU emulates no performance counter. Under this one Debian's kernel finds AMD's, and stock perf and kvm_amd count a guest's retired
conditional branches. What is counted, and how it can be made wrong: pmu_counter.c.
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from lab_machine import CACHE, CANNOT, ROOT, LabError, say

COUNTER = pathlib.Path(__file__).with_name("pmu_counter.c")
SOURCES = "".join(f"deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/{suite} main\n"
                  for suite in ["debian bookworm", "debian-security bookworm-security"])
DEVICES = ["I440FX", "Q35", "HPET", "VIRTIO_PCI", "VIRTIO_SERIAL", "VIRTIO_9P", "FSDEV_9P", "VIRTIO_BLK", "VIRTIO_RNG"]
FIRMWARE = "/usr/share/qemu:/usr/share/seabios:/usr/lib/ipxe/qemu"
CONFIGURE = ["--target-list=x86_64-softmmu", "--without-default-features", "--enable-tcg", "--without-default-devices", "--with-devices-x86_64=lab",
             "--enable-virtfs", "--enable-attr", "--enable-cap-ng", "--enable-fdt=system", "--disable-docs", "--disable-tools",
             "--disable-debug-info", "--disable-werror", f"--firmwarepath={FIRMWARE}"]
TARGET = "target/i386/"
COUNT_BRANCH = """
/* Nothing after this in an instruction can fault, so what is counted retires. */
static void gen_count_branch(DisasContext *s, bool taken)
{
    int mode = (CPL(s) == 3) + (GUEST(s) ? 2 : 0);
    TCGLabel *done;
    TCGv_i64 count, stop;

    if (taken != pmu_counts_taken) {
        return;
    }
    done = gen_new_label();
    count = tcg_temp_new_i64();
    stop = tcg_temp_new_i64();
    tcg_gen_ld_i64(count, cpu_env, offsetof(CPUX86State, pmu.raw) + 8 * mode);
    tcg_gen_addi_i64(count, count, 1);
    tcg_gen_st_i64(count, cpu_env, offsetof(CPUX86State, pmu.raw) + 8 * mode);
    tcg_gen_ld_i64(stop, cpu_env, offsetof(CPUX86State, pmu.stop) + 8 * mode);
    tcg_gen_brcond_i64(TCG_COND_NE, count, stop, done);
    gen_helper_pmu_hit(cpu_env);
    gen_set_label(done);
    tcg_temp_free_i64(count);
    tcg_temp_free_i64(stop);
}
"""
# (file, the lines that are looked for, what takes their place). Lines are compared without what is around them, and have to be there once.
HOOKS = [
    (TARGET + "cpu.h", "    /* Fields up to this point are cleared by a CPU reset */\n    struct {} end_reset_fields;", """
    struct {
        uint64_t raw[PMU_MODES], stop[PMU_MODES], due[PMU_MODES], random;
        uint64_t sel[PMU_COUNTERS], ctr[PMU_COUNTERS], seen[PMU_COUNTERS][PMU_MODES];
        bool skidding;
    } pmu;
    struct {} end_reset_fields;"""),
    (TARGET + "cpu.h", "#define MSR_VM_HSAVE_PA                 0xc0010117", """
#define MSR_VM_HSAVE_PA                 0xc0010117
#define MSR_K7_EVNTSEL0                 0xc0010000
#define MSR_K7_PERFCTR0                 0xc0010004
#define MSR_F15H_PERF_CTL0              0xc0010200
#define PMU_MODES                       4
#define PMU_COUNTERS                    6"""),
    (TARGET + "helper.h", "DEF_COUNTER_FLAGS_1(rdpmc, TCG_CALL_NO_WG, noreturn, env)", """
DEF_COUNTER_1(rdpmc, void, env)
#ifndef CONFIG_USER_ONLY
DEF_COUNTER_FLAGS_1(pmu_hit, TCG_CALL_NO_RWG, void, env)
#endif"""),
    (TARGET + "tcg/helper-tcg.h", "/* bpt_helper.c */", """
extern bool pmu_counts_taken;
void pmu_vmrun(CPUX86State *env);
bool pmu_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);
bool pmu_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);
bool pmu_rdpmc(CPUX86State *env, uint32_t index, uint64_t *val);

/* bpt_helper.c */"""),
    (TARGET + "tcg/sysemu/meson.build", "  'misc_helper.c',", "  'misc_helper.c',\n  'pmu_counter.c',"),
    (TARGET + "tcg/sysemu/misc_helper.c", """    default:
        if ((uint32_t)env->regs[R_ECX] >= MSR_MC0_CTL
            && (uint32_t)env->regs[R_ECX] < MSR_MC0_CTL +
            (4 * env->mcg_cap & 0xff)) {
            uint32_t offset = (uint32_t)env->regs[R_ECX] - MSR_MC0_CTL;
            if (""", """
    default:
        if (pmu_wrmsr(env, env->regs[R_ECX], val)) {
            break;
        }
        if ((uint32_t)env->regs[R_ECX] >= MSR_MC0_CTL
            && (uint32_t)env->regs[R_ECX] < MSR_MC0_CTL +
            (4 * env->mcg_cap & 0xff)) {
            uint32_t offset = (uint32_t)env->regs[R_ECX] - MSR_MC0_CTL;
            if ("""),
    (TARGET + "tcg/sysemu/misc_helper.c", """    default:
        if ((uint32_t)env->regs[R_ECX] >= MSR_MC0_CTL
            && (uint32_t)env->regs[R_ECX] < MSR_MC0_CTL +
            (4 * env->mcg_cap & 0xff)) {
            uint32_t offset = (uint32_t)env->regs[R_ECX] - MSR_MC0_CTL;
            val = """, """
    default:
        if (pmu_rdmsr(env, env->regs[R_ECX], &val)) {
            break;
        }
        if ((uint32_t)env->regs[R_ECX] >= MSR_MC0_CTL
            && (uint32_t)env->regs[R_ECX] < MSR_MC0_CTL +
            (4 * env->mcg_cap & 0xff)) {
            uint32_t offset = (uint32_t)env->regs[R_ECX] - MSR_MC0_CTL;
            val = """),
    (TARGET + "tcg/misc_helper.c", "G_NORETURN void helper_rdpmc(CPUX86State *env)\n{", "void helper_rdpmc(CPUX86State *env)\n{\n    uint64_t val = 0;\n"),
    (TARGET + "tcg/misc_helper.c", """    /* currently unimplemented */
    qemu_log_mask(LOG_UNIMP, "x86: unimplemented rdpmc\\n");
    raise_exception_err(env, EXCP06_ILLOP, 0);""", """
#ifndef CONFIG_USER_ONLY
    if (!pmu_rdpmc(env, env->regs[R_ECX], &val))
#endif
    {
        raise_exception_ra(env, EXCP0D_GPF, GETPC());
    }
    env->regs[R_EAX] = (uint32_t)val;
    env->regs[R_EDX] = (uint32_t)(val >> 32);"""),
    (TARGET + "tcg/translate.c", "        gen_helper_rdpmc(cpu_env);\n        s->base.is_jmp = DISAS_NORETURN;", "        gen_helper_rdpmc(cpu_env);"),
    (TARGET + "tcg/translate.c", "static void gen_jcc(DisasContext *s, int b, int diff)\n{\n    TCGLabel *l1 = gen_new_label();\n", COUNT_BRANCH + """
static void gen_jcc(DisasContext *s, int b, int diff)
{
    TCGLabel *l1 = gen_new_label();

    gen_count_branch(s, false);"""),
    (TARGET + "tcg/translate.c", "    gen_jmp_rel_csize(s, 0, 1);\n    gen_set_label(l1);\n    gen_jmp_rel(s, s->dflag, diff, 0);",
     "    gen_jmp_rel_csize(s, 0, 1);\n    gen_set_label(l1);\n    gen_count_branch(s, true);\n    gen_jmp_rel(s, s->dflag, diff, 0);"),
    (TARGET + "tcg/translate.c", "            gen_update_cc_op(s);\n            b &= 3;", "            gen_update_cc_op(s);\n            gen_count_branch(s, false);\n            b &= 3;"),
    (TARGET + "tcg/translate.c", "            gen_set_label(l1);\n            gen_jmp_rel(s, dflag, diff, 0);",
     "            gen_set_label(l1);\n            gen_count_branch(s, true);\n            gen_jmp_rel(s, dflag, diff, 0);"),
    (TARGET + "tcg/sysemu/svm_helper.c", "    /* maybe we need to inject an event */", "    pmu_vmrun(env);\n\n    /* maybe we need to inject an event */"),
    ("include/hw/i386/apic.h", "void apic_poll_irq(DeviceState *d);", "void apic_poll_irq(DeviceState *d);\nvoid apic_deliver_perf(DeviceState *d);"),
    ("hw/intc/apic.c", "void apic_deliver_pic_intr(DeviceState *dev, int level)", """
void apic_deliver_perf(DeviceState *dev)
{
    apic_local_deliver(APIC(dev), APIC_LVT_PERFORM);
}

void apic_deliver_pic_intr(DeviceState *dev, int level)"""),
    (TARGET + "cpu.c", "          CPUID_EXT3_CR8LEG | CPUID_EXT3_ABM | CPUID_EXT3_SSE4A)",
     "          CPUID_EXT3_CR8LEG | CPUID_EXT3_ABM | CPUID_EXT3_SSE4A | \\\n          CPUID_EXT3_PERFCORE)"),
]


def fetch_qemu():
    """The program; builds it first if the cache has none of these hooks. Errors: LabError."""
    recipe = hashlib.sha256(COUNTER.read_bytes() + pathlib.Path(__file__).read_bytes()).hexdigest()[:16]
    target = CACHE / f"qemu-pmu-{recipe}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # A lock of its own: a build takes minutes, in which other labs fetch their kernels.
    with open(CACHE / ".lock.qemu-pmu", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = target / "qemu-system-x86_64"
        if program.exists():
            return program
        if subprocess.run([ROOT / "tools" / "setup", "--pmu"]).returncode:
            raise LabError(CANNOT, "packages that QEMU is built with are missing (tools/packages-pmu.txt)")
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            work = pathlib.Path(folder)
            source = unpack_source(work)
            add_counter(source)
            built = build(source, CACHE / "qemu-pmu.log")
            (work / "ready").mkdir()
            subprocess.run(["strip", "-o", work / "ready" / program.name, built], check=True)
            for old in CACHE.glob("qemu-pmu-*"):
                shutil.rmtree(old, ignore_errors=True)
            os.rename(work / "ready", target)
        return program


def unpack_source(folder):
    """Debian's source package of QEMU with Debian's patches. The machine's own package lists stay as they are."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "sources.list").write_text(SOURCES)
    apt = ["-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={folder}/lists",
           "-o", "APT::Sandbox::User=root", "-qq"]
    say("fetching the source of QEMU (once, 24 MB)")
    for command in [["apt-get", *apt, "update"], ["apt-get", *apt, "--download-only", "source", "qemu"]]:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise LabError(CANNOT, f"cannot download the source of QEMU: {why}")
    for description in folder.glob("*.dsc"):
        subprocess.run(["dpkg-source", "--no-check", "-x", description.name, "source"], cwd=folder, check=True, capture_output=True)
    return folder / "source"


def add_counter(source):
    """Puts the counter into QEMU's source. Errors: LabError where a place is not what it was in QEMU 7.2."""
    shutil.copy(COUNTER, source / TARGET / "tcg" / "sysemu")
    (source / "configs" / "devices" / "x86_64-softmmu" / "lab.mak").write_text("".join(f"CONFIG_{name}=y\n" for name in DEVICES))
    for name, old, new in HOOKS:
        path = source / name
        text = path.read_text()
        if text.count(old) != 1:
            raise LabError(CANNOT, f"QEMU's {name} has {text.count(old)} places like this one, where one is needed; "
                                   f"tools/lab_machine/pmu_qemu.py fits QEMU 7.2:\n{old}")
        path.write_text(text.replace(old, new.lstrip("\n")))


def build(source, log):
    say(f"building QEMU with a branch counter (once, 15 minutes of processor time; {log})")
    folder = source / "build"
    folder.mkdir()
    with open(log, "w") as output:
        for command in [["../configure", *CONFIGURE, "--cc=ccache gcc"], ["nice", "ninja", "qemu-system-x86_64"]]:
            # Of a folder that is another one each time, ccache must not know the name.
            environment = {**os.environ, "CCACHE_BASEDIR": str(source), "CCACHE_NOHASHDIR": "1"}
            if subprocess.run(command, cwd=folder, stdout=output, stderr=output, env=environment).returncode:
                raise LabError(CANNOT, f"QEMU does not build; see {log}")
    return folder / "qemu-system-x86_64"
