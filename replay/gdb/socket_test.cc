#include "replay/gdb/socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace reprise::replay::gdb {
namespace {

class SocketTest : public ::testing::Test {
 protected:
  SocketTest() {
    std::string name = (std::filesystem::temp_directory_path() / "reprise-socket-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ / "gdb";
  }
  ~SocketTest() override { std::filesystem::remove_all(folder_); }

  Result<std::unique_ptr<Listener>> listen() { return Listener::create("unix:" + path_.string()); }
  UniqueFd connect() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address = {.sun_family = AF_UNIX};
    std::memcpy(address.sun_path, path_.c_str(), path_.native().size() + 1);
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
               ? std::move(fd)
               : UniqueFd();
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

TEST_F(SocketTest, BytesGoBothWaysUntilTheOtherSideCloses) {
  const auto listener = listen();
  ASSERT_TRUE(listener) << listener.error().message;
  UniqueFd client = connect();
  auto accepted = (*listener)->accept();
  ASSERT_TRUE(accepted);
  SocketStream stream(std::move(*accepted));
  std::array<uint8_t, 8> bytes = {};
  EXPECT_EQ(stream.read(bytes, false).value(), 0u);
  ASSERT_EQ(::write(client.get(), "abc", 3), 3);
  EXPECT_EQ(stream.read(bytes, true).value(), 3u);
  EXPECT_EQ(bytes[2], 'c');
  ASSERT_TRUE(stream.write(std::span(bytes).first(3)));
  EXPECT_EQ(::read(client.get(), bytes.data(), bytes.size()), 3);
  client = UniqueFd();
  EXPECT_EQ(stream.read(bytes, true).value(), std::nullopt);
}

TEST_F(SocketTest, DebuggerThatIsGoneIsAnErrorToWriteToAndNoSignal) {
  const auto listener = listen();
  ASSERT_TRUE(listener);
  { const UniqueFd client = connect(); }
  SocketStream stream((*listener)->accept().value());
  EXPECT_FALSE(stream.write(std::array<uint8_t, 1>{}));
}

TEST_F(SocketTest, SocketOfSomebodyWhoWasKilledIsReplaced) {
  {
    const UniqueFd killed(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address = {.sun_family = AF_UNIX};
    std::memcpy(address.sun_path, path_.c_str(), path_.native().size() + 1);
    ASSERT_EQ(::bind(killed.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  const auto listener = listen();
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_TRUE(connect().valid());
}

TEST_F(SocketTest, SocketInUseAndOtherFilesAreNotReplaced) {
  {
    const auto listener = listen();
    ASSERT_TRUE(listener);
    EXPECT_FALSE(listen());
    EXPECT_TRUE(connect().valid());
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::ofstream(path_) << "precious";
  EXPECT_FALSE(listen());
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
}

TEST_F(SocketTest, TcpListensOnLoopbackUnlessToldOtherwise) {
  for (const char* where : {"", "0", ":0", "127.0.0.1:0"}) {
    const auto listener = Listener::create(where);
    ASSERT_TRUE(listener) << where << ": " << listener.error().message;
    EXPECT_TRUE((*listener)->address().starts_with("127.0.0.1:")) << (*listener)->address();
    EXPECT_FALSE((*listener)->address().ends_with(":0"));
  }
}

TEST_F(SocketTest, OtherPlacesAreRefused) {
  for (const char* where : {"nowhere", "host:", "127.0.0.1:port", "127.0.0.1:123456", "unix:", "1.2.3.4.5:0"})
    EXPECT_FALSE(Listener::create(where)) << where;
  EXPECT_FALSE(Listener::create("unix:/" + std::string(200, 'x')));
}

}  // namespace
}  // namespace reprise::replay::gdb
