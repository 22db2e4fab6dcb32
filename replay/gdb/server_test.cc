// What each packet means, over the fake target. GDB itself is driven by tests/gdb/run.
#include "replay/gdb/server.h"

#include <gtest/gtest.h>

#include "replay/gdb/byte_stream_fake.h"
#include "replay/gdb/debug_target_fake.h"

namespace reprise::replay::gdb {
namespace {

using ::testing::Test;

class ServerTest : public Test {
 protected:
  // One session in which GDB sends these packets and vanishes: all that it is sent back, but for
  // acknowledgements.
  std::vector<std::string> session(const std::vector<std::string>& packets) {
    FakeByteStream stream;
    stream.early = early_;
    for (const std::string& packet : packets) stream.arriving.push_back(frame(packet));
    Connection connection(stream);
    const auto end = Server(target_, target_, connection, [this](const std::string& sentence) {
                       remarks_.push_back(sentence);
                     }).serve();
    EXPECT_TRUE(end) << end.error().message;
    end_ = end.value_or(SessionEnd::kDisconnected);
    std::vector<PacketReader::Item> items;
    PacketReader().feed({reinterpret_cast<const uint8_t*>(stream.sent.data()), stream.sent.size()}, items);
    std::vector<std::string> answers;
    answers.reserve(items.size());
    for (const auto& item : items) answers.push_back(item.text);
    return answers;
  }
  // The last thing that is sent back.
  std::string last(const std::vector<std::string>& packets) {
    const auto answers = session(packets);
    return answers.empty() ? "(nothing)" : answers.back();
  }
  // What a person sees of a monitor command.
  std::string monitor(const std::string& line) {
    std::string shown;
    const auto answers = session({"qRcmd," + to_hex(line)});
    EXPECT_EQ(answers.back(), "OK");
    for (const std::string& answer : answers)
      if (const auto text = from_hex(std::string_view(answer).substr(1)); answer.starts_with('O') && text)
        shown.append(text->begin(), text->end());
    return shown;
  }
  static std::string number(Gva address) { return to_hex_number(address.raw); }
  // Where the machine stands, as an instruction's number.
  uint64_t at() { return target_.now().event; }

  FakeDebugTarget target_;
  std::deque<std::string> early_;
  std::vector<std::string> remarks_;
  SessionEnd end_ = SessionEnd::kDisconnected;
};

bool is_error(const std::string& answer) {
  return answer.starts_with("E");
}

// --- the session ---

TEST_F(ServerTest, FeaturesAreOffered) {
  const std::string features = last({"qSupported:multiprocess+;swbreak+;hwbreak+"});
  for (const char* feature :
       {"PacketSize=8000", "QStartNoAckMode+", "qXfer:features:read+", "qXfer:threads:read+", "ReverseStep+",
        "ReverseContinue+", "swbreak+", "hwbreak+", "vContSupported+", "ConditionalBreakpoints+"})
    EXPECT_NE(features.find(feature), std::string::npos) << feature;
  EXPECT_EQ(features.find("multiprocess"), std::string::npos);
}

TEST_F(ServerTest, UnknownPacketsAreAnsweredWithNothing) {
  for (const char* packet : {"vMustReplyEmpty", "qTStatus", "qCRC:0,1", "qSymbol::", "QNonStop:1", "x0,1",
                             "~", "", "vFile:setfs:0", "vCtrlC"})
    EXPECT_EQ(last({packet}), "") << packet;
}

TEST_F(ServerTest, NothingIsAcknowledgedAfterNoAckMode) {
  FakeByteStream stream;
  stream.arriving = {frame("QStartNoAckMode"), frame("qC")};
  Connection connection(stream);
  ASSERT_TRUE(Server(target_, target_, connection).serve());
  EXPECT_EQ(stream.sent, "+" + frame("OK") + frame("QC1"));
}

TEST_F(ServerTest, EndOfTheSessionIsTold) {
  EXPECT_EQ(last({"D"}), "OK");
  EXPECT_EQ(end_, SessionEnd::kDetached);
  EXPECT_EQ(last({"k"}), "(nothing)");
  EXPECT_EQ(end_, SessionEnd::kKilled);
  EXPECT_EQ(last({"g"}).size(), 2 * RegisterMap(true).get_all(Registers{}).size() - 0u);
  EXPECT_EQ(end_, SessionEnd::kDisconnected);
}

TEST_F(ServerTest, MachineStaysButBreakpointsAndDiversionGoWithTheSession) {
  session(
      {"Z0," + number(kToyStore) + ",1", "vCont;c", "qRcmd," + to_hex("diversion begin"), "M401000,1:07"});
  EXPECT_EQ(at(), 3u);
  EXPECT_EQ(target_.inserted(), 0u);
  EXPECT_FALSE(target_.in_diversion());
  EXPECT_EQ(last({"m401000,1"}), "00");
}

TEST_F(ServerTest, KilledMachineIsStartedAgainByRun) {
  const auto answers =
      session({"!", "vCont;c", "vKill;1", "?", "g", "vCont;c", "qfThreadInfo", "T1", "vRun;", "?"});
  EXPECT_EQ(answers[2], "OK");
  EXPECT_EQ(answers[3], "W00");
  EXPECT_TRUE(is_error(answers[4]));
  EXPECT_TRUE(is_error(answers[5]));
  EXPECT_EQ(answers[6], "l");
  EXPECT_TRUE(is_error(answers[7]));
  EXPECT_TRUE(answers[8].starts_with("T05"));
  EXPECT_EQ(answers[9], answers[8]);
  EXPECT_EQ(at(), 0u);
}

TEST_F(ServerTest, RunGoesToAMark) {
  EXPECT_TRUE(last({"vRun;;" + to_hex("50")}).starts_with("T05"));
  EXPECT_EQ(at(), 50u);
  EXPECT_TRUE(last({"vRun;;" + to_hex("end")}).starts_with("T05"));
  EXPECT_EQ(at(), target_.end().event);
  EXPECT_TRUE(is_error(last({"vRun;;" + to_hex("nowhere")})));
  EXPECT_TRUE(is_error(last({"vRun;;" + to_hex("100000")})));
  EXPECT_EQ(at(), target_.end().event);
  session({"R00"});
  EXPECT_EQ(at(), 0u);
}

// --- threads ---

TEST_F(ServerTest, ThreadsAreTheVcpus) {
  EXPECT_EQ(last({"qfThreadInfo"}), "m1,2");
  EXPECT_EQ(last({"qsThreadInfo"}), "l");
  EXPECT_EQ(last({"qThreadExtraInfo,2"}), to_hex("waiting for its turn"));
  EXPECT_EQ(last({"T2"}), "OK");
  for (const char* thread : {"T0", "T3", "T", "Tffffffffffffffff", "Tx"})
    EXPECT_TRUE(is_error(last({thread}))) << thread;
  const std::string threads = last({"qXfer:threads:read::0,1000"});
  EXPECT_NE(threads.find(R"(<thread id="2" core="1" name="vCPU 1">waiting for its turn</thread>)"),
            std::string::npos)
      << threads;
}

TEST_F(ServerTest, RegistersAreThoseOfTheSelectedThread) {
  EXPECT_EQ(last({"Hg2", "qC"}), "QC2");
  EXPECT_EQ(last({"Hg1", "p7"}), "0030400000000000");
  EXPECT_EQ(last({"Hg2", "p7"}), "002c400000000000");
  EXPECT_EQ(last({"Hg2", "Hg0", "p7"}), "002c400000000000");
  EXPECT_TRUE(is_error(last({"Hg3"})));
  EXPECT_EQ(last({"Hx1"}), "");
}

TEST_F(ServerTest, DocumentsComeInPieces) {
  std::string xml;
  for (uint64_t offset = 0;; offset += 100) {
    const std::string part = last({fmt::format("qXfer:features:read:target.xml:{:x},64", offset)});
    xml += part.substr(1);
    if (part[0] == 'l') break;
    ASSERT_EQ(part[0], 'm');
  }
  EXPECT_EQ("l" + xml, last({"qXfer:features:read:target.xml:0,8000"}));
  EXPECT_TRUE(is_error(last({"qXfer:features:read:target.xml:ffffffff,64"})));
  EXPECT_EQ(last({"qXfer:features:read:other.xml:0,64"}), "");
}

// --- memory and registers ---

TEST_F(ServerTest, MemoryIsReadAsFarAsItGoes) {
  EXPECT_EQ(last({"m400000,5"}), "e80b000000");
  EXPECT_EQ(last({"m402ffe,8"}), "0000");
  EXPECT_EQ(last({"m403000,8"}), "E14");
  EXPECT_EQ(last({"mffffffffffffffff,ffffffffffffffff"}), "E14");
  EXPECT_EQ(last({"m400000,ffffffffffffffff"}).size(), 2 * kToyBytes);
  EXPECT_TRUE(is_error(last({"m400000"})));
}

TEST_F(ServerTest, PhysicalModeChangesWhatAddressesMean) {
  const auto answers = session({"qqemu.PhyMemMode", "m0,5", "Qqemu.PhyMemMode:1", "qqemu.PhyMemMode", "m0,5",
                                "m400000,5", "Qqemu.PhyMemMode:2"});
  EXPECT_EQ(answers, (std::vector<std::string>{"0", "E14", "OK", "1", "e80b000000", "E14", "E22"}));
}

TEST_F(ServerTest, WritesAreRefusedWithASentence) {
  for (const char* packet : {"P0=0100000000000000", "M401000,1:07", "X401000,1:a"})
    EXPECT_TRUE(last({packet}).starts_with("E.a recording cannot be changed")) << packet;
  EXPECT_EQ(last({"X0,0:"}), "OK");
}

TEST_F(ServerTest, SentenceOfARefusedWriteToMemoryIsRemarked) {
  last({"P0=0100000000000000"});
  EXPECT_TRUE(remarks_.empty());  // GDB shows it
  last({"X0,0:", "M401000,1:07"});
  ASSERT_EQ(remarks_.size(), 1u);
  EXPECT_TRUE(remarks_[0].starts_with("a recording cannot be changed")) << remarks_[0];
  last({"qRcmd," + to_hex("diversion begin"), "M401000,1:07"});
  EXPECT_EQ(remarks_.size(), 1u);
}

TEST_F(ServerTest, DiversionTakesWrites) {
  const std::string begin = "qRcmd," + to_hex("diversion begin");
  EXPECT_EQ(last({begin, "P0=0100000000000000", "p0"}), "0100000000000000");
  EXPECT_EQ(last({begin, "M401000,2:0708", "m401000,2"}), "0708");
  EXPECT_EQ(last({begin, "X401000,2:}\x03x", "m401000,2"}), "2378");
  EXPECT_EQ(last({begin, "Qqemu.PhyMemMode:1", "M1000,1:09", "m1000,1"}), "09");
  EXPECT_TRUE(is_error(last({begin, "P12=01000000"})));  // cs
  EXPECT_TRUE(is_error(last({begin, "M401000,3:0708"})));
  EXPECT_TRUE(is_error(last({begin, "M402fff,2:0708"})));
  EXPECT_EQ(last({begin, "G" + last({"g"})}), "OK");
}

// --- running ---

TEST_F(ServerTest, BreakpointStopsBeforeItsInstruction) {
  const std::string stop =
      last({"qSupported:swbreak+;hwbreak+", "Z0," + number(kToyStore) + ",1", "vCont;c"});
  EXPECT_TRUE(stop.starts_with("T05swbreak:;")) << stop;
  EXPECT_NE(stop.find("10:1b00400000000000;"), std::string::npos) << stop;
  EXPECT_TRUE(stop.ends_with("thread:1;")) << stop;
  EXPECT_EQ(at(), 3u);
}

TEST_F(ServerTest, StopReasonIsOnlyNamedToAGdbThatKnowsIt) {
  EXPECT_TRUE(
      last({"qSupported:hwbreak+", "Z1," + number(kToyBump) + ",1", "vCont;c"}).starts_with("T05hwbreak:;"));
  session({"R00"});
  EXPECT_TRUE(last({"Z1," + number(kToyBump) + ",1", "vCont;c"}).starts_with("T0506:"));
}

TEST_F(ServerTest, ConditionsAreEvaluatedHere) {
  // rcx == 18: register 2, from the third round on. And one on memory: the counter is 3.
  EXPECT_TRUE(last({"Z0," + number(kToyBump) + ",1;X7,26000222121327", "vCont;c"}).ends_with("thread:1;"));
  EXPECT_EQ(target_.registers(VcpuId(0))->general.rcx, 18u);
  session({"R00"});
  last({"Z0," + number(kToyReturn) + ",1;Xa,24004010001a22031327", "vCont;c"});
  EXPECT_EQ(last({"m401000,1"}), "03");
}

TEST_F(ServerTest, ConditionThatCannotBeEvaluatedStops) {
  EXPECT_TRUE(last({"Z0," + number(kToyBump) + ",1;X1,ff", "vCont;c"}).starts_with("T05"));
  EXPECT_EQ(at(), 1u);
}

TEST_F(ServerTest, AnyOfSeveralConditionsStops) {
  last({"Z0," + number(kToyBump) + ",1;X3,220027X3,220127", "vCont;c"});
  EXPECT_EQ(at(), 1u);
  session({"R00"});
  EXPECT_NE(last({"Z0," + number(kToyBump) + ",1;X3,220027X3,220027;cmds:0,X1,ff", "vCont;c"})
                .find("replaylog:end"),
            std::string::npos);
}

TEST_F(ServerTest, WatchpointStopsAfterTheAccessAndBackwardBeforeIt) {
  const std::string watch = "Z2," + number(kToyCounter) + ",8";
  EXPECT_TRUE(last({watch, "vCont;c"}).starts_with("T05watch:401000;"));
  EXPECT_EQ(at(), 4u);
  EXPECT_EQ(last({"m401000,1"}), "01");
  EXPECT_TRUE(last({watch, "bc"}).starts_with("T05watch:401000;"));
  EXPECT_EQ(at(), 3u);
  EXPECT_EQ(last({"m401000,1"}), "00");
  EXPECT_TRUE(last({"Z3," + number(kToyCounter) + ",8", "bc"}).starts_with("T05rwatch:401000;"));
  EXPECT_TRUE(last({"Z4," + number(kToyCounter + 2) + ",1", "vCont;c"}).starts_with("T05awatch:401002;"));
}

TEST_F(ServerTest, EndsOfTheRecordingAreTold) {
  EXPECT_TRUE(last({"vCont;c"}).starts_with("T05replaylog:end;"));
  EXPECT_TRUE(last({"bc"}).starts_with("T05replaylog:begin;"));
  EXPECT_TRUE(last({"bs"}).starts_with("T05replaylog:begin;"));
  EXPECT_TRUE(last({"vCont;c", "vCont;s:1;c"}).starts_with("T05replaylog:end;"));
}

TEST_F(ServerTest, StepIsOneInstructionOfItsThread) {
  EXPECT_TRUE(last({"vCont;s:2;c"}).ends_with("thread:2;"));
  EXPECT_EQ(at(), 12u);  // after the eleven of vCPU 0
  EXPECT_TRUE(last({"vCont;s:1;c"}).ends_with("thread:1;"));
  EXPECT_EQ(at(), 17u);
  EXPECT_TRUE(last({"Hg1", "vCont;s"}).ends_with("thread:1;"));
  EXPECT_EQ(at(), 18u);
  EXPECT_TRUE(last({"Hc2", "s"}).ends_with("thread:2;"));
  EXPECT_EQ(at(), 20u);
}

TEST_F(ServerTest, StepBackUndoesTheStep) {
  for (const char* thread : {"1", "2"}) {
    const auto before = last({"vRun;;" + to_hex("40"), std::string("Hg") + thread, "g"});
    std::vector<std::string> packets = {std::string("Hg") + thread, std::string("Hc") + thread};
    for (int i = 0; i < 25; ++i) packets.push_back(std::string("vCont;s:") + thread + ";c");
    for (int i = 0; i < 25; ++i) packets.emplace_back("bs");
    session(packets);
    EXPECT_EQ(last({std::string("Hg") + thread, "g"}), before) << thread;
  }
}

TEST_F(ServerTest, StepIsStoppedByTheBreakpointOfAnotherThread) {
  const std::string stop = last({"qSupported:swbreak+", "Z0," + number(kToyBump) + ",1", "vCont;s:2;c"});
  EXPECT_TRUE(stop.starts_with("T05swbreak:;")) << stop;
  EXPECT_TRUE(stop.ends_with("thread:1;")) << stop;
}

TEST_F(ServerTest, RangeIsSteppedThroughToItsEnd) {
  last({"vCont;r400000,400005:1;c"});  // the call leads out of it
  EXPECT_EQ(at(), 1u);
  EXPECT_NE(last({"vCont;r400010,400023:1;c"}).find("10:2300400000000000;"), std::string::npos);
  EXPECT_EQ(at(), 4u);
}

TEST_F(ServerTest, OldResumptionsWork) {
  EXPECT_TRUE(last({"s"}).starts_with("T05"));
  EXPECT_EQ(at(), 1u);
  EXPECT_TRUE(last({"S05"}).starts_with("T05"));
  EXPECT_EQ(at(), 2u);
  EXPECT_TRUE(is_error(last({"c400000"})));
  EXPECT_EQ(at(), 2u);
  EXPECT_TRUE(last({"C05"}).starts_with("T05replaylog:end;"));
}

TEST_F(ServerTest, ActionsThatMeanNothingAreErrors) {
  for (const char* packet :
       {"vCont;", "vCont;t", "vCont;s:3", "vCont;r1", "vCont;r1,", "vCont;x", "vCont;s:1:2", "vCont;S"})
    EXPECT_TRUE(is_error(last({packet}))) << packet;
  EXPECT_EQ(at(), 0u);
}

TEST_F(ServerTest, CtrlCStopsTheMachine) {
  early_ = {"\x03"};
  EXPECT_TRUE(last({"vCont;c"}).starts_with("T02"));
  EXPECT_LT(at(), 2u);
}

TEST_F(ServerTest, CtrlCStopsARangeThatIsNeverLeft) {
  early_ = {"+", "+", "\x03"};
  EXPECT_TRUE(last({"vCont;r0,ffffffffffffffff:1;c"}).starts_with("T02"));
  EXPECT_LT(at(), 4u);
}

TEST_F(ServerTest, DivergenceIsToldAndTheSessionGoesOn) {
  target_.fail_at(7);
  const auto answers = session({"vCont;c", "?", "bs"});
  EXPECT_EQ(answers[0], "O" + to_hex("vCPU 0 diverged at 7\n"));
  EXPECT_TRUE(answers[1].starts_with("T06"));
  EXPECT_EQ(answers[2], answers[1]);
  EXPECT_TRUE(answers[3].starts_with("T05"));
  EXPECT_EQ(at(), 6u);
}

// --- breakpoints ---

TEST_F(ServerTest, TenThousandBreakpointsComeAndGo) {
  std::vector<std::string> packets;
  packets.reserve(20'002);
  for (int i = 0; i < 10'000; ++i)
    packets.push_back(fmt::format("Z{},{:x},1;X3,220027", i % 5, 0x500000 + i));
  packets.emplace_back("vCont;c");
  for (int i = 0; i < 10'000; ++i) packets.push_back(fmt::format("z{},{:x},1", i % 5, 0x500000 + i));
  packets.emplace_back("qRcmd," + to_hex("when"));
  const auto answers = session(packets);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "OK"), 20'001);
  EXPECT_EQ(target_.inserted(), 0u);
}

TEST_F(ServerTest, BreakpointsAreBounded) {
  std::vector<std::string> packets;
  packets.reserve(kMaxBreakpoints + 1);
  for (size_t i = 0; i <= kMaxBreakpoints; ++i) packets.push_back(fmt::format("Z0,{:x},1", i));
  EXPECT_TRUE(is_error(last(packets)));
  packets.clear();
  const std::string condition = fmt::format(";X{:x},{}", 4000, std::string(8000, '2'));
  for (size_t i = 0; i <= kMaxConditionBytes / 4000; ++i)
    packets.push_back(fmt::format("Z0,{:x},1{}", i, condition));
  EXPECT_TRUE(is_error(last(packets)));
}

TEST_F(ServerTest, ConditionsAreReplacedAndGoWithTheirBreakpoint) {
  std::vector<std::string> packets;
  packets.reserve(6000);
  for (int i = 0; i < 3000; ++i)
    packets.push_back(fmt::format("Z0,400010,1;X{:x},{}", 4000, std::string(8000, '2')));
  for (int i = 0; i < 3000; ++i) packets.push_back(i % 2 == 0 ? "z0,400010,1" : packets[0]);
  const auto answers = session(packets);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "OK"), 6000);
}

TEST_F(ServerTest, DamagedBreakpointsAreErrors) {
  for (const char* packet :
       {"Z0", "Z0,", "Z0,400010", "Z5,400010,1", "Z2,401000,0", "Z2,ffffffffffffffff,2", "Z0,400010,1;X",
        "Z0,400010,1;Xffffffffffffffff,27", "Z0,400010,1;X2,27", "Z0,400010,1;X1,zz", "Zx,400010,1"})
    EXPECT_TRUE(is_error(last({packet}))) << packet;
}

// --- monitor ---

TEST_F(ServerTest, MonitorListsItsCommands) {
  const std::string help = monitor("help");
  for (const char* command :
       {"when", "seek MARK", "checkpoint", "checkpoints", "restart N", "vcpus", "owners ADDRESS",
        "history ADDRESS", "writers ADDRESS", "transfers", "who-wrote ADDRESS", "physical ADDRESS", "log",
        "digest", "diversion begin|end", "info version"})
    EXPECT_NE(help.find(command), std::string::npos) << command;
  EXPECT_EQ(monitor(""), help);
}

TEST_F(ServerTest, MonitorGoesToMarksAndCheckpoints) {
  EXPECT_TRUE(monitor("seek 20").starts_with("now at 20\n"));
  EXPECT_EQ(monitor("when"), "20; the recording goes from 0 to 282\n");
  EXPECT_EQ(monitor("checkpoint"), "checkpoint 1 at 20\n");
  EXPECT_TRUE(monitor("seek end").starts_with("now at 282\n"));
  EXPECT_EQ(monitor("checkpoints"), "1     20\n");
  EXPECT_TRUE(monitor("restart 1").starts_with("now at 20\n"));
  EXPECT_TRUE(monitor("seek c1").starts_with("now at 20\n"));
  EXPECT_EQ(monitor("restart 2"), "there is no checkpoint 2; 'monitor checkpoints' lists those that are\n");
  EXPECT_EQ(monitor("seek 283"), "283 is not in the recording, which goes from 0 to 282\n");
}

TEST_F(ServerTest, MonitorKnowsWhoWrote) {
  EXPECT_EQ(monitor("who-wrote 0x401000"), "nobody has written 0x1000 since the beginning\n");
  session({"vCont;c"});
  EXPECT_EQ(monitor("who-wrote 0x401007"), monitor("who-wrote phys:0x1000"));
  EXPECT_TRUE(monitor("who-wrote 0x401000").ends_with("by the instruction at 0x40001b\n"));
  EXPECT_EQ(monitor("owners 0x400000"), "page 0x0: vCPU 0 may write it\n");
  EXPECT_EQ(monitor("owners 0x401000"), "page 0x1: vCPU 0 may write it\npage 0x1: vCPU 1 may read it\n");
  EXPECT_EQ(monitor("owners 0x402000"), "page 0x2: each vCPU has its own\n");
  EXPECT_EQ(monitor("owners 0x500000"), "0x500000 is not mapped in the page tables of vCPU 0\n");
}

TEST_F(ServerTest, MonitorAsksAboutTheRecordingAsOfNow) {
  monitor("seek 20");
  EXPECT_EQ(monitor("history phys:0x2fff"), "page 0x2: 100 before 20\n");
  EXPECT_EQ(monitor("history 0x401000 7"), "page 0x1: 7 before 20\n");
  EXPECT_EQ(monitor("writers 0x401000"), "page 0x1: 10 writers before 20\n");
  EXPECT_EQ(monitor("transfers 3"), "3 pages before 20\n");
  EXPECT_EQ(monitor("log"), "20 events around 20\n");
  EXPECT_EQ(monitor("log 0"), "'0' is not between 1 and 100000\n");
  EXPECT_EQ(monitor("history 0x401000 x"), "'x' is no number; give 123 or 0x7b\n");
}

TEST_F(ServerTest, MonitorShowsTheMachine) {
  EXPECT_EQ(monitor("physical 0x2 3"), "0x000000000002: 00 00 00\n");
  EXPECT_EQ(monitor("vcpus"),
            "* thread 1: vCPU 0, rip 0x400000, CPL 0, running\n"
            "  thread 2: vCPU 1, rip 0x400000, CPL 0, waiting for its turn\n");
  EXPECT_EQ(monitor("digest").size(), 17u);
}

TEST_F(ServerTest, MonitorSaysWhatThisIs) {
  EXPECT_EQ(monitor("info version"), "Reprise, a replay; threads are vCPUs\n");
}

TEST_F(ServerTest, MonitorSaysWhatIsWrong) {
  EXPECT_EQ(monitor("info registers"), "use: monitor info version\n");
  EXPECT_EQ(monitor("frobnicate"), "there is no command 'frobnicate'; 'monitor help' lists those that are\n");
  EXPECT_EQ(monitor("seek"), "use: monitor seek MARK\n");
  EXPECT_EQ(monitor("when now"), "use: monitor when \n");
  EXPECT_EQ(monitor("owners counter"), "'counter' is no number; give 123 or 0x7b\n");
  EXPECT_EQ(monitor("diversion end"), "there is no diversion\n");
  EXPECT_EQ(monitor("physical 0x3000"), "0x3000 is not RAM\n");
}

}  // namespace
}  // namespace reprise::replay::gdb
