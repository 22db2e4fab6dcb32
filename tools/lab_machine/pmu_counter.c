/*
 *  A branch counter for the lab: AMD's core performance counters with one event,
 *  0xd1, retired conditional branches.  All other events count nothing.
 *
 *  It is compiled into QEMU by pmu_qemu.py, and part of it.
 *
 *  Translated code counts in env->pmu.raw[mode] and calls helper_pmu_hit() when
 *  that is env->pmu.stop[mode]: at the latest where a counter overflows.
 *  mode: bit 0: user (CPL 3), bit 1: guest of SVM.  A counter counts the modes
 *  that its PerfEvtSel selects.
 *
 *  Environment:
 *  QEMU_PMU_SKID=BRANCHES[,INSNS[,SEED]]  the interrupt of an overflow comes 0 to
 *      BRANCHES conditional branches and then 0 to INSNS instructions late
 *  QEMU_PMU_WRONG=vmrun  an entry into a guest counts as a branch of it
 *                =taken  only branches that are taken count
 *                =loses  one branch in 100,003 is not counted
 *
 * This library is free software; you can redistribute it and/or
 * modify it under the terms of the GNU Lesser General Public
 * License as published by the Free Software Foundation; either
 * version 2.1 of the License, or (at your option) any later version.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "hw/i386/apic.h"
#include "tcg/helper-tcg.h"

#define WIDTH       48
#define MASK        MAKE_64BIT_MASK(0, WIDTH)
#define SEL_USER    (1ull << 16)
#define SEL_KERNEL  (1ull << 17)
#define SEL_INT     (1ull << 20)
#define SEL_ENABLE  (1ull << 22)
#define SEL_GUEST   (1ull << 40)
#define SEL_HOST    (1ull << 41)
#define SEL_EVENT   0xf000000ffull
#define EVENT       0xd1
#define LOST_ONE_IN 100003

static unsigned skid_branches, skid_insns;
static uint64_t skid_seed = 1;
static bool counts_vmrun, loses;
bool pmu_counts_taken;

static void __attribute__((constructor)) pmu_read_environment(void)
{
    const char *skid = getenv("QEMU_PMU_SKID");
    const char *wrong = getenv("QEMU_PMU_WRONG");

    if (skid) {
        sscanf(skid, "%u,%u,%" SCNu64, &skid_branches, &skid_insns, &skid_seed);
    }
    counts_vmrun = wrong && !strcmp(wrong, "vmrun");
    pmu_counts_taken = wrong && !strcmp(wrong, "taken");
    loses = wrong && !strcmp(wrong, "loses");
}

/* 0 to `max`. */
static unsigned random_to(CPUX86State *env, unsigned max)
{
    uint64_t x = env->pmu.random;

    if (!x) {
        x = (skid_seed + env_cpu(env)->cpu_index) * 0x9e3779b97f4a7c15ull | 1;
    }
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    env->pmu.random = x;
    return (x >> 20) % (max + 1ull);
}

/* The modes that counter `i` counts, a bit for each. */
static unsigned counted_modes(CPUX86State *env, int i)
{
    uint64_t sel = env->pmu.sel[i];
    bool guest = sel & SEL_GUEST, host = sel & SEL_HOST;
    unsigned modes = (sel & SEL_USER ? 0xa : 0) | (sel & SEL_KERNEL ? 0x5 : 0);

    if (!(sel & SEL_ENABLE) || (sel & SEL_EVENT) != EVENT) {
        return 0;
    }
    return guest == host ? modes : modes & (guest ? 0xc : 0x3);
}

/* Brings counter `i` up to date; true if it has overflowed. */
static bool update(CPUX86State *env, int i)
{
    unsigned modes = counted_modes(env, i);
    uint64_t value = env->pmu.ctr[i];
    int m;

    for (m = 0; m < PMU_MODES; m++) {
        uint64_t now = env->pmu.raw[m], seen = env->pmu.seen[i][m];

        if (modes & (1 << m)) {
            value += now - seen - (loses ? now / LOST_ONE_IN - seen / LOST_ONE_IN : 0);
        }
        env->pmu.seen[i][m] = now;
    }
    env->pmu.ctr[i] = value & MASK;
    return value >> WIDTH;
}

/*
 * Chooses where translated code calls next.  A counter of n modes that is d from
 * its overflow cannot overflow before one of them has made d / n.
 */
static void arm(CPUX86State *env)
{
    int i, m;

    for (m = 0; m < PMU_MODES; m++) {
        uint64_t left = env->pmu.skidding ? env->pmu.due[m] - env->pmu.raw[m] : UINT64_MAX;

        for (i = 0; i < PMU_COUNTERS; i++) {
            unsigned modes = counted_modes(env, i);

            if (modes & (1 << m)) {
                left = MIN(left, DIV_ROUND_UP(MASK + 1 - env->pmu.ctr[i], ctpop8(modes)));
            }
        }
        env->pmu.stop[m] = env->pmu.raw[m] + left;
    }
}

static void interrupt(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    unsigned insns = random_to(env, skid_insns);

    env->pmu.skidding = false;
    qemu_mutex_lock_iothread();
    apic_deliver_perf(env_archcpu(env)->apic_state);
    qemu_mutex_unlock_iothread();
    if (insns) {
        /* The next block has so many instructions, and looks at no interrupt. */
        cs->cflags_next_tb = curr_cflags(cs) | CF_NOIRQ | insns;
    }
}

void helper_pmu_hit(CPUX86State *env)
{
    bool overflow = false, due = false;
    int i, m;

    for (i = 0; i < PMU_COUNTERS; i++) {
        overflow |= update(env, i) && (env->pmu.sel[i] & SEL_INT);
    }
    for (m = 0; m < PMU_MODES; m++) {
        due |= env->pmu.skidding && env->pmu.raw[m] == env->pmu.due[m];
    }
    if (overflow && !env->pmu.skidding) {
        unsigned branches = random_to(env, skid_branches);

        due = branches == 0;
        env->pmu.skidding = true;
        for (m = 0; m < PMU_MODES; m++) {
            env->pmu.due[m] = env->pmu.raw[m] + branches;
        }
    }
    if (due) {
        interrupt(env);
    }
    arm(env);
}

void pmu_vmrun(CPUX86State *env)
{
    int m = 2 + ((env->hflags & HF_CPL_MASK) == 3);

    if (counts_vmrun && ++env->pmu.raw[m] == env->pmu.stop[m]) {
        helper_pmu_hit(env);
    }
}

/* The counter that MSR `msr` belongs to, or -1; `*sel`: it is its PerfEvtSel. */
static int counter_of(uint32_t msr, bool *sel)
{
    if (msr >= MSR_K7_EVNTSEL0 && msr < MSR_K7_EVNTSEL0 + 8) {
        *sel = msr < MSR_K7_PERFCTR0;
        return msr & 3;
    }
    if (msr >= MSR_F15H_PERF_CTL0 && msr < MSR_F15H_PERF_CTL0 + 2 * PMU_COUNTERS) {
        *sel = !(msr & 1);
        return (msr - MSR_F15H_PERF_CTL0) / 2;
    }
    return -1;
}

bool pmu_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    bool sel;
    int each, i = counter_of(msr, &sel);

    if (i < 0) {
        return false;
    }
    /* All, for arm() takes what was read last for the present. */
    for (each = 0; each < PMU_COUNTERS; each++) {
        update(env, each);
    }
    if (sel) {
        env->pmu.sel[i] = val;
    } else {
        env->pmu.ctr[i] = val & MASK;
    }
    arm(env);
    return true;
}

bool pmu_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    bool sel;
    int i = counter_of(msr, &sel);

    if (i < 0) {
        return false;
    }
    update(env, i);
    *val = sel ? env->pmu.sel[i] : env->pmu.ctr[i];
    return true;
}

bool pmu_rdpmc(CPUX86State *env, uint32_t index, uint64_t *val)
{
    return index < PMU_COUNTERS && pmu_rdmsr(env, MSR_F15H_PERF_CTL0 + 1 + 2 * index, val);
}
