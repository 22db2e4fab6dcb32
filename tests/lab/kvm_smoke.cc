// Asks a /dev/kvm, with two guests of a few bytes, for the things that Reprise stands on. Needs no other file
// of the tree:
//   g++ -std=c++20 -O2 tests/lab/kvm_smoke.cc -o build/kvm_smoke && tools/kvm-run build/kvm_smoke
// Prints facts about the host, then one line a check, then "N passed, N failed, N skipped".
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kRamSize = 16 * kPage;
constexpr uint64_t kCode = 0x1000;
constexpr uint64_t kData = 0x2000;

int passed = 0, failed = 0;

void check(bool ok, const char* what) {
  ++(ok ? passed : failed);
  std::printf("%s %s\n", ok ? "ok    " : "FAILED", what);
}

[[noreturn]] void die(const char* what) {
  std::printf("FAILED %s: %s\n%d passed, %d failed, 0 skipped\n", what, std::strerror(errno), passed,
              failed + 1);
  std::exit(1);
}

long must(long result, const char* what) {
  if (result < 0) die(what);
  return result;
}

double microseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

// One VM with one vCPU in real mode at kCode, over a mapping of its own of the shared RAM.
struct Vm {
  int vcpu;
  kvm_run* run;
  uint8_t* ram;

  Vm(int kvm, int memfd) {
    const int vm = static_cast<int>(must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM"));
    ram = static_cast<uint8_t*>(mmap(nullptr, kRamSize, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0));
    kvm_userspace_memory_region region{0, 0, 0, kRamSize, reinterpret_cast<uint64_t>(ram)};
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    vcpu = static_cast<int>(must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU"));
    const long size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    run = static_cast<kvm_run*>(
        mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
    kvm_sregs sregs;
    must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    at(kCode);
  }

  void at(uint64_t rip) {
    kvm_regs regs{};
    regs.rip = rip;
    regs.rflags = 2;
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
  }

  kvm_regs regs() const {
    kvm_regs regs;
    must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
    return regs;
  }

  // The exit reason, or minus errno.
  int enter() { return ioctl(vcpu, KVM_RUN, 0) < 0 ? -errno : static_cast<int>(run->exit_reason); }
};

struct Uffd {
  int fd;
  Vm* vm;

  // Whether minor faults and write protection can be had on this VM's mapping, raised as SIGBUS (in KVM_RUN:
  // EFAULT).
  bool open_on(Vm* target) {
    vm = target;
    fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0) return false;
    uffdio_register area{};
    area.range = {reinterpret_cast<uint64_t>(vm->ram), kRamSize};
    area.mode = UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
    if (ioctl(fd, UFFDIO_REGISTER, &area) != 0) return false;
    std::printf("uffd      features %#llx, ioctls %#llx\n", api.features, area.ioctls);
    return true;
  }
  void map(uint64_t gpa) {
    uffdio_continue page{};
    page.range = {reinterpret_cast<uint64_t>(vm->ram + gpa), kPage};
    must(ioctl(fd, UFFDIO_CONTINUE, &page), "UFFDIO_CONTINUE");
  }
  void protect(uint64_t gpa, bool on) {
    uffdio_writeprotect page{};
    page.range = {reinterpret_cast<uint64_t>(vm->ram + gpa), kPage};
    page.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    must(ioctl(fd, UFFDIO_WRITEPROTECT, &page), "UFFDIO_WRITEPROTECT");
  }
  void unmap(uint64_t gpa) { must(madvise(vm->ram + gpa, kPage, MADV_DONTNEED), "MADV_DONTNEED"); }
};

std::string cpu_flags() {
  std::string line, found;
  for (std::ifstream file("/proc/cpuinfo"); std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    for (const char* flag : {"vmx", "svm", "ept", "npt", "nrip_save", "decodeassists", "rdtscp", "rdrand",
                             "constant_tsc", "nonstop_tsc", "x2apic", "xsave", "avx2", "pti"})
      if ((line + " ").find(std::string(" ") + flag + " ") != std::string::npos)
        found += std::string(" ") + flag;
    break;
  }
  return found;
}

void print_facts(int kvm) {
  utsname name;
  uname(&name);
  std::printf("kernel    %s, %ld processors\n", name.release, sysconf(_SC_NPROCESSORS_ONLN));
  std::printf("cpu flags%s\n", cpu_flags().c_str());
  const struct {
    const char* name;
    int number;
  } capabilities[] = {{"NR_VCPUS", KVM_CAP_NR_VCPUS},
                      {"MAX_VCPUS", KVM_CAP_MAX_VCPUS},
                      {"NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS},
                      {"SYNC_MMU", KVM_CAP_SYNC_MMU},
                      {"SYNC_REGS", KVM_CAP_SYNC_REGS},
                      {"IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT},
                      {"SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP},
                      {"X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR},
                      {"X86_MSR_FILTER", KVM_CAP_X86_MSR_FILTER},
                      {"SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG},
                      {"SET_GUEST_DEBUG2", KVM_CAP_SET_GUEST_DEBUG2},
                      {"XSAVE2", KVM_CAP_XSAVE2},
                      {"MEMORY_FAULT_INFO", 232}};
  for (const auto& capability : capabilities)
    std::printf("cap       %s = %#x\n", capability.name, ioctl(kvm, KVM_CHECK_EXTENSION, capability.number));
}

void check_exits(Vm* vm) {
  // again: out 0x10, al; jmp again
  const uint8_t loop[] = {0xe6, 0x10, 0xeb, 0xfc};
  std::memcpy(vm->ram + kCode, loop, sizeof loop);
  vm->at(kCode);
  check(vm->enter() == KVM_EXIT_IO && vm->run->io.port == 0x10, "an out instruction is an exit");
  constexpr int kRounds = 2000;
  const double before = microseconds();
  for (int i = 0; i < kRounds; ++i) vm->enter();
  std::printf("cost      %.1f us for one port exit and re-entry\n", (microseconds() - before) / kRounds);

  vm->ram[kCode + 2] = 0xf4;  // hlt
  check(vm->enter() == KVM_EXIT_HLT, "hlt is an exit");
  vm->run->immediate_exit = 1;
  check(vm->enter() == -EINTR, "immediate_exit ends KVM_RUN with EINTR");
  vm->run->immediate_exit = 0;
}

void check_step(Vm* vm) {
  vm->at(kCode);
  vm->ram[kCode] = vm->ram[kCode + 1] = 0x90;  // nop
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  must(ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
  check(vm->enter() == KVM_EXIT_DEBUG && vm->regs().rip == kCode + 1, "one single-step is one instruction");
  debug.control = 0;
  must(ioctl(vm->vcpu, KVM_SET_GUEST_DEBUG, &debug), "KVM_SET_GUEST_DEBUG");
}

void check_views(Vm* vm, Vm* other) {
  // mov ax, [kData]; inc ax; mov [kData], ax; hlt
  const uint8_t code[] = {0xa1, kData & 0xff, kData >> 8, 0x40, 0xa3, kData & 0xff, kData >> 8, 0xf4};
  std::memcpy(vm->ram + kCode, code, sizeof code);
  vm->ram[kData] = 7;
  Uffd uffd;
  if (!uffd.open_on(vm)) {
    check(false, "userfaultfd: minor faults, write protection and SIGBUS on shared memory");
    return;
  }
  uffd.unmap(kData);
  vm->at(kCode);
  check(vm->enter() == -EFAULT && vm->regs().rip == kCode,
        "a read of an absent page ends KVM_RUN with EFAULT, before it");
  uffd.map(kData);
  uffd.protect(kData, true);
  check(vm->enter() == -EFAULT && vm->regs().rip == kCode + 4 && (vm->regs().rax & 0xffff) == 8,
        "a write to a read-only page ends KVM_RUN with EFAULT, before it");
  uffd.protect(kData, false);
  check(vm->enter() == KVM_EXIT_HLT && vm->ram[kData] == 8, "with the page granted the guest goes on");
  other->at(kCode);
  check(other->enter() == KVM_EXIT_HLT && vm->ram[kData] == 9,
        "a second VM over the same memory needs no grant of the first");

  constexpr int kRounds = 500;
  int faults = 0;
  const double before = microseconds();
  for (int i = 0; i < kRounds; ++i) {
    uffd.unmap(kData);
    vm->at(kCode);
    faults += vm->enter() == -EFAULT;
    uffd.map(kData);
    vm->enter();
  }
  std::printf("cost      %.1f us to take a page, fault, grant it and re-enter\n",
              (microseconds() - before) / kRounds);
  check(faults == kRounds, "each of 500 revocations is seen");
}

}  // namespace

int main() {
  const int kvm = static_cast<int>(must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm"));
  check(ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION, "/dev/kvm speaks version 12");
  print_facts(kvm);
  const int memfd = static_cast<int>(must(memfd_create("ram", MFD_CLOEXEC), "memfd_create"));
  must(ftruncate(memfd, kRamSize), "ftruncate");
  Vm first(kvm, memfd), second(kvm, memfd);
  check_exits(&first);
  check_step(&first);
  check_views(&first, &second);
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
  return failed ? 1 : 0;
}
