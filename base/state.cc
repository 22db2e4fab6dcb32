#include "base/state.h"

#include <xxhash.h>

#include <algorithm>

namespace reprise {
namespace {

std::string number_bytes(uint64_t number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

}  // namespace

void StateWriter::put(std::string_view name, std::string_view bytes) {
  bytes_ += static_cast<char>(name.size());
  bytes_ += name;
  bytes_ += number_bytes(bytes.size());
  bytes_ += bytes;
}

void StateWriter::fixed(std::string_view name, std::span<std::byte> bytes) {
  put(name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void StateWriter::list(std::string_view name, std::string& bytes) {
  put(name, bytes);
}

void StateWriter::enter(std::string_view name) {
  put(name, {});
}

void StateReader::require(bool holds, std::string_view name) {
  if (holds || misfit_.has_value()) return;
  std::string full;
  for (const std::string& part : inside_)
    if (!part.empty()) full += part + ".";
  misfit_ = full + std::string(name);
}

std::optional<std::string_view> StateReader::next(std::string_view name) {
  if (misfit_.has_value()) return std::nullopt;
  uint64_t size = 0;
  const size_t header = 1 + name.size() + sizeof size;
  const bool is_it = rest_.size() >= header && static_cast<uint8_t>(rest_[0]) == name.size() &&
                     rest_.substr(1, name.size()) == name;
  if (is_it) std::memcpy(&size, rest_.data() + 1 + name.size(), sizeof size);
  const bool fits = is_it && size <= rest_.size() - header;
  require(fits, name);
  if (!fits) return std::nullopt;
  const std::string_view bytes = rest_.substr(header, size);
  rest_.remove_prefix(header + size);
  return bytes;
}

void StateReader::fixed(std::string_view name, std::span<std::byte> bytes) {
  const auto found = next(name);
  if (!found.has_value()) return;
  require(found->size() == bytes.size(), name);
  if (found->size() == bytes.size() && !bytes.empty()) std::memcpy(bytes.data(), found->data(), bytes.size());
}

void StateReader::list(std::string_view name, std::string& bytes) {
  if (const auto found = next(name); found.has_value()) bytes = *found;
}

void StateReader::enter(std::string_view name) {
  const auto found = next(name);
  require(!found.has_value() || found->empty(), name);
  inside_.emplace_back(name);
}

void StateReader::leave() {
  inside_.pop_back();
}

Status StateReader::finish() {
  require(rest_.empty(), "(the end)");
  if (misfit_.has_value())
    return fail(ErrorCode::kDamaged, "what it holds is no state of this machine ({} does not fit)", *misfit_);
  return {};
}

StateDigest::StateDigest() : state_(XXH3_createState()) {
  XXH3_64bits_reset(state_);
}

StateDigest::~StateDigest() {
  XXH3_freeState(state_);
}

void StateDigest::add(std::span<const uint8_t> bytes) {
  XXH3_64bits_update(state_, bytes.data(), bytes.size());
}

uint64_t StateDigest::value() const {
  return XXH3_64bits_digest(state_);
}

void StateDigest::fixed(std::string_view /*name*/, std::span<std::byte> bytes) {
  if (!is_aside()) XXH3_64bits_update(state_, bytes.data(), bytes.size());
}

void StateDigest::list(std::string_view name, std::string& bytes) {
  uint64_t size = bytes.size();
  fixed(name, std::as_writable_bytes(std::span(&size, 1)));
  fixed(name, std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace reprise
