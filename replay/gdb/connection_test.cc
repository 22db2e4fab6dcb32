// Acknowledgements, repetitions, Ctrl-C, and debuggers that send rubbish or vanish.
#include "replay/gdb/connection.h"

#include <gtest/gtest.h>

#include "replay/gdb/byte_stream_fake.h"

namespace reprise::replay::gdb {
namespace {

class ConnectionTest : public ::testing::Test {
 protected:
  // The next packet; "(end)" or "(error)" if there is none.
  std::string receive() {
    const auto packet = connection_.receive();
    return !packet ? "(error)" : packet->value_or("(end)");
  }
  std::string sent() { return std::exchange(stream_.sent, ""); }

  FakeByteStream stream_;
  Connection connection_{stream_};
};

TEST_F(ConnectionTest, PacketsAreAcknowledgedUntilThatIsStopped) {
  stream_.arriving = {"+$g#67", "$?#3f"};
  EXPECT_EQ(receive(), "g");
  EXPECT_EQ(sent(), "+");
  connection_.stop_acknowledging();
  EXPECT_EQ(receive(), "?");
  EXPECT_EQ(sent(), "");
  EXPECT_EQ(receive(), "(end)");
}

TEST_F(ConnectionTest, AnswerIsFramed) {
  ASSERT_TRUE(connection_.send("OK"));
  EXPECT_EQ(sent(), "$OK#9a");
}

TEST_F(ConnectionTest, DamagedPacketIsAskedForAgain) {
  stream_.arriving = {"$g#68", "$g#67"};
  EXPECT_EQ(receive(), "g");
  EXPECT_EQ(sent(), "-+");
}

TEST_F(ConnectionTest, DamagedPacketIsAnErrorIfNothingIsAcknowledged) {
  connection_.stop_acknowledging();
  stream_.arriving = {"$g#68"};
  EXPECT_EQ(receive(), "(end)");
  EXPECT_TRUE(sent().starts_with("$E.a packet with a wrong checksum"));
}

TEST_F(ConnectionTest, OverlongPacketIsAnError) {
  stream_.arriving = {frame(std::string(kMaxPacketBytes + 1, 'm')), "$g#67"};
  EXPECT_EQ(receive(), "g");
  EXPECT_TRUE(sent().starts_with("+$E.a packet of more than 32768 bytes"));
}

TEST_F(ConnectionTest, RefusedAnswerIsRepeatedButNotForEver) {
  ASSERT_TRUE(connection_.send("OK"));
  stream_.arriving = {"-", "-", "$g#67"};
  EXPECT_EQ(receive(), "g");
  EXPECT_EQ(sent(), "$OK#9a$OK#9a$OK#9a+");
  stream_.arriving = {std::string(1000, '-')};
  EXPECT_EQ(receive(), "(error)");
  EXPECT_EQ(sent().size(), kMaxRepeats * std::string_view("$OK#9a").size());
}

TEST_F(ConnectionTest, EndWithinAPacketIsTheEnd) {
  stream_.arriving = {"$g#67$m4000"};
  EXPECT_EQ(receive(), "g");
  EXPECT_EQ(receive(), "(end)");
  EXPECT_EQ(receive(), "(end)");
}

TEST_F(ConnectionTest, BrokenStreamIsAnError) {
  stream_.broken = true;
  EXPECT_EQ(receive(), "(error)");
  EXPECT_FALSE(connection_.send("OK"));
  EXPECT_TRUE(connection_.interrupted());
}

TEST_F(ConnectionTest, InterruptIsSeenOnceAndWithoutWaiting) {
  EXPECT_FALSE(connection_.interrupted());
  stream_.early = {"\x03"};
  EXPECT_TRUE(connection_.interrupted());
  EXPECT_FALSE(connection_.interrupted());
}

TEST_F(ConnectionTest, InterruptBehindThePacketThatStartsTheMachineCounts) {
  stream_.arriving = {"$c#63\x03"};
  EXPECT_EQ(receive(), "c");
  EXPECT_TRUE(connection_.interrupted());
}

TEST_F(ConnectionTest, InterruptOfAMachineThatStandsIsDropped) {
  stream_.arriving = {"\x03$g#67"};
  EXPECT_EQ(receive(), "g");
  EXPECT_FALSE(connection_.interrupted());
}

TEST_F(ConnectionTest, PacketThatComesWhileTheMachineRunsIsKept) {
  stream_.early = {"$g#67\x03"};
  EXPECT_TRUE(connection_.interrupted());
  EXPECT_EQ(receive(), "g");
}

TEST_F(ConnectionTest, FloodWhileTheMachineRunsIsNotReadForEver) {
  for (int i = 0; i < 2000; ++i) stream_.early.push_back(frame(std::string(1000, 'x')));
  for (int i = 0; i < 2000; ++i) EXPECT_FALSE(connection_.interrupted());
  EXPECT_GT(stream_.early.size(), 1900u);
}

}  // namespace
}  // namespace reprise::replay::gdb
