// What an object remembers, listed once, for memory, files and digests.
//
// A class that remembers something has one function, `void visit(StateVisitor&)`, which names each field.
// Three visitors do the rest: StateWriter takes the fields down, StateReader puts them back, StateDigest
// hashes them. So a field cannot be in one of these and be missing in another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"

struct XXH3_state_s;

namespace reprise {

class StateVisitor;
template <typename T>
concept VisitedState = requires(T& object, StateVisitor& visitor) {
  object.visit(visitor);
};
// Fields that are their bytes, without padding.
template <typename T>
concept PlainState = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T> &&
                     !std::is_same_v<T, bool> &&
                     !VisitedState<T>;

// Threads: as the objects that it visits.
class StateVisitor {
 public:
  virtual ~StateVisitor() = default;

  // One field. Names are unique within their object and stand in files.
  void operator()(std::string_view name, PlainState auto& value) {
    fixed(name, std::as_writable_bytes(std::span(&value, 1)));
  }
  void operator()(std::string_view name, VisitedState auto& object) {
    enter(name);
    object.visit(*this);
    leave();
  }
  void operator()(std::string_view name, bool& value) {
    auto byte = static_cast<uint8_t>(value);
    (*this)(name, byte);
    require(byte <= 1, name);
    value = byte == 1;
  }
  void operator()(std::string_view name, std::string& value) { list(name, value); }
  template <typename T>
  void operator()(std::string_view name, std::optional<T>& value) {
    bool is_there = value.has_value();
    enter(name);
    (*this)("is_there", is_there);
    if (is_there && !value.has_value()) value.emplace();
    if (!is_there) value.reset();
    if (value.has_value()) (*this)("value", *value);
    leave();
  }
  template <PlainState T>
  void operator()(std::string_view name, std::vector<T>& values) {
    std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    list(name, bytes);
    require(bytes.size() % sizeof(T) == 0, name);
    values.resize(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  }
  template <VisitedState T>
  void operator()(std::string_view name, std::vector<T>& objects) {
    enter(name);
    uint64_t count = objects.size();
    (*this)("count", count);
    resize(count, objects);
    for (T& object : objects) (*this)("", object);
    leave();
  }
  void operator()(std::string_view name, std::vector<bool>& values) {
    std::vector<uint8_t> bytes(values.begin(), values.end());
    (*this)(name, bytes);
    for (const uint8_t byte : bytes) require(byte <= 1, name);
    values.assign(bytes.begin(), bytes.end());
  }

  // A structure of an ABI, which may have padding: kept, but for no digest.
  template <typename T>
  void abi(std::string_view name, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    aside([&] { fixed(name, std::as_writable_bytes(std::span(&value, 1))); });
  }
  // What `fields` visits is kept, but is for no digest: it does not follow from what the guest did.
  template <typename Fields>
  void aside(const Fields& fields) {
    ++aside_;
    fields();
    --aside_;
  }
  // What a field must be like, whoever wrote it. A reader refuses what is not.
  virtual void require(bool /*holds*/, std::string_view /*name*/) {}

 protected:
  [[nodiscard]] bool is_aside() const { return aside_ != 0; }

 private:
  virtual void fixed(std::string_view name, std::span<std::byte> bytes) = 0;
  virtual void list(std::string_view name, std::string& bytes) = 0;
  virtual void enter(std::string_view /*name*/) {}
  virtual void leave() {}
  // How many elements can follow at most.
  [[nodiscard]] virtual uint64_t most() const { return UINT64_MAX; }
  template <typename T>
  void resize(uint64_t count, std::vector<T>& objects) {
    require(count <= most(), "count");
    if (count <= most()) objects.resize(count);
  }

  unsigned aside_ = 0;
};

// Takes fields down, with their names. Threads: confined to one.
class StateWriter final : public StateVisitor {
 public:
  [[nodiscard]] std::string take() { return std::move(bytes_); }

 private:
  void fixed(std::string_view name, std::span<std::byte> bytes) override;
  void list(std::string_view name, std::string& bytes) override;
  void enter(std::string_view name) override;
  void put(std::string_view name, std::string_view bytes);

  std::string bytes_;
};

// Puts back what a StateWriter took down of an object of the same kind; the bytes may come from anywhere.
// What does not fit stays as it was. Threads: confined to one.
class StateReader final : public StateVisitor {
 public:
  // `bytes` outlive this.
  explicit StateReader(std::string_view bytes) : rest_(bytes) {}
  // After the last field. Errors: kDamaged, naming the first field that did not fit.
  [[nodiscard]] Status finish();
  void require(bool holds, std::string_view name) override;

 private:
  void fixed(std::string_view name, std::span<std::byte> bytes) override;
  void list(std::string_view name, std::string& bytes) override;
  void enter(std::string_view name) override;
  void leave() override;
  [[nodiscard]] uint64_t most() const override { return rest_.size(); }
  // The next field's bytes, if it has this name.
  std::optional<std::string_view> next(std::string_view name);

  std::string_view rest_;
  std::vector<std::string> inside_;
  std::optional<std::string> misfit_;
};

// Hashes the bytes of fields in order, without their names: equal objects, equal digests. Threads: confined
// to one.
class StateDigest final : public StateVisitor {
 public:
  StateDigest();
  ~StateDigest() override;
  StateDigest(const StateDigest&) = delete;
  StateDigest& operator=(const StateDigest&) = delete;
  void add(std::span<const uint8_t> bytes);
  [[nodiscard]] uint64_t value() const;

 private:
  void fixed(std::string_view name, std::span<std::byte> bytes) override;
  void list(std::string_view name, std::string& bytes) override;

  XXH3_state_s* state_;
};

// All that `object` remembers, for keeping, and back.
template <VisitedState T>
std::string save_state(T& object) {
  StateWriter writer;
  object.visit(writer);
  return writer.take();
}
template <VisitedState T>
Status restore_state(T& object, std::string_view bytes) {
  StateReader reader(bytes);
  object.visit(reader);
  return reader.finish();
}

}  // namespace reprise
