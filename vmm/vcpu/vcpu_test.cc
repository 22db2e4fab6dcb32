// A vCPU over a KVM and a journal that the test plays. What it does at a stop may be put off, ended,
// interrupted or looked at by a debugger at every point; each of these is tried at each point of one run,
// which must come to the same end as an undisturbed one.
#include "vmm/vcpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/clock/safepoint_positioner.h"
#include "vmm/clock/stop_positioner.h"
#include "vmm/device/bare_board.h"
#include "vmm/kvm/kvm_vcpu_fake.h"
#include "vmm/vcpu/journal_fake.h"

namespace reprise::vmm {
namespace {

constexpr uint64_t kPages = 8;
constexpr uint64_t kCode = 0x1000, kWritten = 0x2000, kRead = 0x3000, kTrap = 0x100000;
constexpr uint8_t kVector = 0x40;

// One vCPU, and the run that its KVM plays: an interrupt after a halt, a byte and a string to the serial
// port, a page fault, an access to RAM that KVM shows as memory-mapped I/O, a safepoint that stops, the exit
// port.
class Rig {
 public:
  explicit Rig(bool serial, bool domains = false) : serial_(serial), domains_(domains) {
    memory_ = GuestMemory::create({.bytes = kPages * kPageSize}, false).value();
    // mov [0x2000], eax: 32-bit code.
    constexpr std::array<uint8_t, 6> kMove = {0x89, 0x05, 0x00, 0x20, 0x00, 0x00};
    std::ranges::copy(kMove, memory_->writable(Gpa(kCode), kMove.size()).begin());
    memory_->writable(Gpa(kRead), 1)[0] = 0x5a;
    const ViewKind views = serial ? ViewKind::kUnprotected : ViewKind::kMprotect;
    view_ = ViewMemory::create(*memory_, {}, views, 2).value();
    device_memory_.emplace(memory_->for_devices());
    journal.view = &view_->view();
    kvm.calls().sregs.cr0 = 1;
    kvm.calls().sregs.cs = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    kvm.calls().sregs.ds = kvm.calls().sregs.es = kvm.calls().sregs.ss = {
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    io_.claim(IoSpace::kMemory, kLocalApicBase, kLocalApicBytes, apic_);
    board_.claim(VcpuId(0), io_);
    LocalApicState apic = apic_.state();
    apic.spurious_vector = 0x1ff;  // enabled
    apic_.set_state(apic);
    if (serial)
      positioner_ = std::make_unique<StopPositioner>(clock_, kvm, *view_, nullptr);
    else
      positioner_ = std::make_unique<SafepointPositioner>(clock_, kvm);
    vcpu = std::make_unique<Vcpu>(VcpuParts{.id = VcpuId(0),
                                            .kvm = kvm,
                                            .memory = *view_,
                                            .positioner = *positioner_,
                                            .journal = journal,
                                            .apic = apic_,
                                            .io = io_,
                                            .scheduler = scheduler(),
                                            .board = board_,
                                            .device_memory = *device_memory_,
                                            .trap = Gpa(kTrap),
                                            .first_token = PageNumber(kPages)});
    play();
  }

  // Until it leaves or is caught. How often it stood still is counted.
  Status run() {
    for (int turns = 0; turns < 100; ++turns) {
      TRY_ASSIGN(const Vcpu::Advance advanced, vcpu->advance());
      later += advanced == Vcpu::Advance::kLater ? 1 : 0;
      caught += advanced == Vcpu::Advance::kCaught ? 1 : 0;
      if (advanced == Vcpu::Advance::kLeft || advanced == Vcpu::Advance::kCaught) return {};
    }
    return fail(ErrorCode::kHost, "the vCPU never leaves");
  }
  // All that the run has come to.
  [[nodiscard]] bool has_turn() const { return view_->view().right(PageNumber(kPages)) != Right::kNone; }
  [[nodiscard]] std::string outcome() {
    return fmt::format("stops {} ticks {} digest {:x} console '{}' memory {:x} {:x} interrupts {} status {}",
                       vcpu->position().stops, vcpu->position().ticks.raw, vcpu->final_digest(), console,
                       memory_->ram()[kWritten], kvm.calls().regs.rbx, kvm.calls().interrupts,
                       journal.stopped_machine.empty() ? 99 : journal.stopped_machine[0].status);
  }

  // What KVM does with a byte of RAM that it was given: the instruction is carried out.
  FakeCalls::Run read = [](FakeCalls& calls, kvm_run& run) {
    calls.regs.rbx = run.mmio.data[0];
    calls.regs.rip += 2;
    return -EINTR;
  };
  KvmVcpuFake kvm;
  JournalFake journal;
  std::unique_ptr<Vcpu> vcpu;
  std::string console;
  int later = 0, caught = 0;

 private:
  static constexpr uint64_t kInterrupts = 0x200;  // rflags: IF

  [[nodiscard]] const ept::Scheduler& scheduler() const {
    static const ept::SerialScheduler one_at_a_time;
    static const ept::ParallelScheduler parallel;
    static const ept::DomainScheduler domains;
    if (serial_) return one_at_a_time;
    if (domains_) return domains;
    return parallel;
  }
  static void port(kvm_run& run, uint16_t port, std::string_view bytes, uint8_t size = 1) {
    run.io.direction = KVM_EXIT_IO_OUT;
    run.io.port = port;
    run.io.size = size;
    run.io.count = static_cast<uint32_t>(bytes.size() / size);
    run.io.data_offset = kPageSize;
    std::memcpy(reinterpret_cast<uint8_t*>(&run) + kPageSize, bytes.data(), bytes.size());
  }
  void play() {
    kvm.calls().regs.rflags = 2 | kInterrupts;
    journal.when_it_waits.emplace_back(log::ApicMessage{log::ApicMessageKind::kFixed, kVector});
    kvm.exits(KVM_EXIT_HLT, [](FakeCalls& calls, kvm_run&) { ++calls.regs.rip; });
    kvm.exits(KVM_EXIT_IO, [](FakeCalls& calls, kvm_run& run) {
      calls.regs.rip += 2;
      port(run, kCom1Port, "a");
    });
    // rep outsb, which KVM shows in two parts.
    kvm.exits(KVM_EXIT_IO, [](FakeCalls& calls, kvm_run& run) {
      port(run, kCom1Port, "bc");
      calls.parts.emplace_back([](FakeCalls& then, kvm_run& next) {
        then.regs.rip += 2;
        next.exit_reason = KVM_EXIT_IO;
        port(next, kCom1Port, "d");
        return 0;
      });
    });
    if (!serial_) {
      kvm.fails(EFAULT, [](FakeCalls& calls, kvm_run&) { calls.regs.rip = kCode; });
      kvm.exits(KVM_EXIT_MMIO, [this](FakeCalls& calls, kvm_run& run) {
        memory_->writable(Gpa(kWritten), 1)[0] = 0x77;  // the instruction that faulted
        calls.regs.rip += 6;
        run.mmio = {.phys_addr = kRead, .data = {}, .len = 1, .is_write = 0};
        calls.parts.emplace_back(read);
      });
      kvm.exits(KVM_EXIT_MMIO, [this](FakeCalls& calls, kvm_run& run) {
        clock_.count = 7;
        calls.regs.rip += 2;
        run.mmio = {.phys_addr = kTrap, .data = {}, .len = 4, .is_write = 1};
      });
    }
    kvm.exits(KVM_EXIT_IO, [](FakeCalls& calls, kvm_run& run) {
      calls.regs.rip += 2;
      port(run, kExitPort, std::string_view("\x2a\0\0\0", 4), 4);
    });
  }

  const bool serial_;
  const bool domains_;
  ClockPage clock_{};
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ViewMemory> view_;
  std::optional<DmaMemory> device_memory_;
  LocalApic apic_{VcpuId(0), 1};
  IoMap io_;
  BareBoard board_{1, [this](uint8_t byte) { console += static_cast<char>(byte); }};
  std::unique_ptr<Positioner> positioner_;
};

class VcpuTest : public ::testing::TestWithParam<bool> {
 protected:
  // Of an undisturbed run.
  VcpuTest() {
    Rig rig(GetParam());
    const Status ran = rig.run();
    EXPECT_TRUE(ran) << ran.error().message;
    outcome_ = rig.outcome();
    questions_ = rig.journal.questions;
    runs_ = rig.kvm.calls().runs;
  }
  std::string outcome_;
  uint64_t questions_ = 0;
  unsigned runs_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Modes, VcpuTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Serial" : "Parallel"; });

TEST_P(VcpuTest, UndisturbedRunDoesWhatItsKvmPlays) {
  EXPECT_THAT(outcome_, ::testing::HasSubstr("console 'abcd'"));
  EXPECT_THAT(outcome_, ::testing::HasSubstr("interrupts 1 status 42"));
  EXPECT_THAT(outcome_, ::testing::HasSubstr(GetParam() ? "stops 5 ticks 0" : "stops 7 ticks 7"));
  EXPECT_GE(questions_, 8u);
}

TEST_P(VcpuTest, LaterAtAnyQuestionChangesNothing) {
  for (uint64_t at = 1; at <= questions_; ++at) {
    Rig rig(GetParam());
    rig.journal.later_at = at;
    const Status ran = rig.run();
    ASSERT_TRUE(ran) << "question " << at << ": " << ran.error().message;
    EXPECT_EQ(rig.outcome(), outcome_) << "question " << at;
    EXPECT_EQ(rig.later, 1) << "question " << at;
  }
}

TEST_P(VcpuTest, MachineThatStopsAtAnyQuestionIsLeftThere) {
  for (uint64_t at = 1; at <= questions_; ++at) {
    Rig rig(GetParam());
    rig.journal.leave_at = at;
    const Status ran = rig.run();
    ASSERT_TRUE(ran) << "question " << at << ": " << ran.error().message;
    EXPECT_EQ(rig.journal.ends, 1u) << "question " << at;
    EXPECT_EQ(rig.journal.questions, at);  // it asked for nothing any more
    EXPECT_EQ(rig.vcpu->advance().value(), Vcpu::Advance::kLeft);
  }
}

TEST_P(VcpuTest, InterruptionOfAnyEntryChangesNothing) {
  for (unsigned at = 0; at < runs_; ++at) {
    Rig rig(GetParam());
    auto& script = rig.kvm.calls().script;
    script.insert(script.begin() + at, [](FakeCalls&, kvm_run&) { return -EINTR; });
    const Status ran = rig.run();
    ASSERT_TRUE(ran) << "entry " << at << ": " << ran.error().message;
    EXPECT_EQ(rig.outcome(), outcome_) << "entry " << at;
  }
}

TEST_P(VcpuTest, VcpuThatIsGivenUpFailsAtItsNextInterruption) {
  for (unsigned at = 0; at < runs_; ++at) {
    Rig rig(GetParam());
    auto& script = rig.kvm.calls().script;
    script.insert(script.begin() + at, [&rig](FakeCalls&, kvm_run&) {
      rig.kvm.forced_exit().give_up();
      return -EINTR;
    });
    const Status ran = rig.run();
    ASSERT_FALSE(ran) << "entry " << at;
    EXPECT_EQ(ran.error().code, ErrorCode::kGuest);
    EXPECT_EQ(rig.kvm.calls().runs, at + 1);
  }
}

TEST_P(VcpuTest, ExitThatADebuggerCatchesIsNotDealtWith) {
  for (unsigned at = 0; at < runs_; ++at) {
    Rig rig(GetParam());
    unsigned exits = 0;
    uint64_t stops = 0;
    std::string console;
    rig.vcpu->watch({.exit = [&](ExitKind) -> Result<WatchVerdict> {
      if (exits++ != at) return WatchVerdict::kHandle;
      stops = rig.vcpu->position().stops;
      console = rig.console;
      return WatchVerdict::kCaught;
    }});
    const VcpuState start = rig.vcpu->save({}).value();
    const Status ran = rig.run();
    ASSERT_TRUE(ran) << "exit " << at << ": " << ran.error().message;
    EXPECT_EQ(rig.caught, 1);
    EXPECT_EQ(rig.vcpu->position().stops, stops);
    EXPECT_EQ(rig.console, console);
    EXPECT_FALSE(rig.vcpu->can_be_saved());
    ASSERT_TRUE(rig.vcpu->restore(start));
    EXPECT_TRUE(rig.vcpu->can_be_saved() && rig.vcpu->at_position());
    EXPECT_EQ(rig.vcpu->position().stops, 0u);
  }
}

TEST_P(VcpuTest, PartOfAnInstructionThatADebuggerCatchesIsNotDealtWith) {
  Rig rig(GetParam());
  rig.vcpu->watch({.part = [&](ExitKind) { return true; }});
  ASSERT_TRUE(rig.run());
  EXPECT_EQ(rig.caught, 1);
  EXPECT_EQ(rig.console, "abc");
}

TEST(VcpuAccessTest, AccessThatADebuggerCatchesIsCompleted) {
  Rig rig(false);
  rig.vcpu->watch({.access = [&](Gpa, uint64_t, bool) -> Result<bool> { return true; }});
  ASSERT_TRUE(rig.run());
  EXPECT_EQ(rig.caught, 1);
  EXPECT_TRUE(rig.vcpu->can_be_saved());
}

TEST_P(VcpuTest, StateOfAVcpuThatStandsStillLeadsToTheSameEnd) {
  for (uint64_t at = 1; at <= questions_; ++at) {
    Rig rig(GetParam());
    rig.journal.later_at = at;
    for (int turns = 0; turns < 100 && rig.later == 0; ++turns)
      rig.later += rig.vcpu->advance().value() == Vcpu::Advance::kLater ? 1 : 0;
    ASSERT_EQ(rig.later, 1);
    if (!rig.vcpu->can_be_saved()) continue;  // in the middle of an exit
    const VcpuState state = rig.vcpu->save({}).value();
    ASSERT_TRUE(rig.vcpu->restore(state));
    EXPECT_EQ(save_state(const_cast<VcpuState&>(state)), [&] {
      VcpuState again = rig.vcpu->save({}).value();
      return save_state(again);
    }());
    ASSERT_TRUE(rig.run());
    EXPECT_EQ(rig.outcome(), outcome_) << "question " << at;
  }
}

// A page of RAM that KVM shows as memory-mapped I/O was as good as granted, but not the turn.
TEST(VcpuDomainsTest, TurnThatIsLostWhileAPageIsWaitedForIsTakenAgain) {
  Rig undisturbed(false, true);
  ASSERT_TRUE(undisturbed.run());
  int lost = 0;
  for (uint64_t at = 1; at <= undisturbed.journal.questions; ++at) {
    Rig rig(false, true);
    rig.journal.lost_at = at;
    rig.journal.lost = PageNumber(kPages);
    for (int turns = 0; turns < 100; ++turns) {
      const auto advanced = rig.vcpu->advance();
      ASSERT_TRUE(advanced) << advanced.error().message;
      if (*advanced == Vcpu::Advance::kLeft) break;
      lost += *advanced == Vcpu::Advance::kLater ? 1 : 0;
      // It executes, and has executed, with the turn alone.
      EXPECT_EQ(rig.has_turn(), *advanced != Vcpu::Advance::kLater) << "question " << at;
    }
    EXPECT_EQ(rig.outcome(), undisturbed.outcome()) << "question " << at;
  }
  EXPECT_GE(lost, 2);  // an instruction that faulted, and one that KVM emulates
}

// lgdt, on a host whose KVM emulates it: its operand is read a second time after it was given.
TEST(VcpuAccessTest, InstructionThatKvmLeavesUndoneIsStepped) {
  Rig undisturbed(false);
  ASSERT_TRUE(undisturbed.run());
  Rig rig(false);
  rig.read = [&rig](FakeCalls& calls, kvm_run&) {
    calls.script.emplace_front([&rig](FakeCalls& then, kvm_run& run) {
      then.regs.rbx = 0x5a;
      then.regs.rip += 2;
      run.exit_reason = KVM_EXIT_DEBUG;
      return 0;
    });
    return -EINTR;
  };
  ASSERT_TRUE(rig.run());
  EXPECT_EQ(rig.outcome(), undisturbed.outcome());
}

// The same, where the host takes its page away again: it is no other stop.
TEST(VcpuAccessTest, AccessThatOnlyTheHostMadeOfAnUndoneInstructionIsNoStop) {
  Rig undisturbed(false);
  ASSERT_TRUE(undisturbed.run());
  Rig rig(false);
  const FakeCalls::Run carried_out = rig.read;
  rig.read = [&](FakeCalls& calls, kvm_run&) {
    calls.script.emplace_front([&](FakeCalls& then, kvm_run& run) {
      run.exit_reason = KVM_EXIT_MMIO;
      then.parts.emplace_back(carried_out);
      return 0;
    });
    return -EINTR;
  };
  ASSERT_TRUE(rig.run());
  EXPECT_EQ(rig.outcome(), undisturbed.outcome());
}

TEST(VcpuStateTest, InputThatWaitsForTheTurnIsInTheState) {
  const log::Input input{.device = log::InputDevice::kConsole, .bytes = "x"};
  unsigned waited = 0;
  for (uint64_t at = 1; at <= 4; ++at) {
    Rig rig(true), other(true);
    rig.journal.async.emplace_back(input);
    rig.journal.later_at = at;
    ASSERT_TRUE(rig.vcpu->advance());
    if (!rig.vcpu->waiting_for_turn().has_value()) continue;
    ++waited;
    ASSERT_TRUE(other.vcpu->restore(rig.vcpu->save({}).value()));
    EXPECT_EQ(other.vcpu->waiting_for_turn(), input);
  }
  EXPECT_GE(waited, 1u);
}

TEST_P(VcpuTest, PrefixEndsAtTheNextEntry) {
  Rig rig(GetParam());
  rig.journal.over = true;
  ASSERT_TRUE(rig.run());
  EXPECT_EQ(rig.kvm.calls().runs, 0u);
  EXPECT_EQ(rig.journal.ends, 1u);
}

TEST_P(VcpuTest, ExitThatIsUnknownIsAGuestError) {
  Rig rig(GetParam());
  rig.kvm.calls().script.clear();
  rig.kvm.exits(KVM_EXIT_HYPERV);
  ASSERT_TRUE(rig.run());
  ASSERT_EQ(rig.journal.stopped_machine.size(), 1u);
  EXPECT_EQ(rig.journal.stopped_machine[0].reason, StopReason::kGuestError);
  EXPECT_THAT(rig.journal.stopped_machine[0].message, ::testing::HasSubstr("KVM exit reason"));
}

}  // namespace
}  // namespace reprise::vmm
