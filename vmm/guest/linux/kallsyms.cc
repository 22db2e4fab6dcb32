#include "vmm/guest/linux/kallsyms.h"

#include <algorithm>

namespace reprise::vmm {
namespace {

constexpr uint32_t kFewest = 256;      // a kernel has thousands
constexpr uint32_t kMost = 4'000'000;  // ten times what Debian's largest has
constexpr uint32_t kMarked = 256;      // symbols from one marker to the next
constexpr size_t kNameProbe = 64;      // names that must make sense before all are looked at
constexpr int kTries = 64;  // places that pass for names; beyond, the data was made to look like that

constexpr size_t align8(size_t at) {
  return (at + 7) & ~size_t{7};
}

}  // namespace

std::optional<Kallsyms> Kallsyms::find(Bytes data) {
  static constexpr std::array<uint8_t, 20> kDigits = {'0', 0, '1', 0, '2', 0, '3', 0, '4', 0,
                                                      '5', 0, '6', 0, '7', 0, '8', 0, '9', 0};
  for (auto from = data.begin();; ++from) {
    from = std::search(from, data.end(), kDigits.begin(), kDigits.end());
    if (from == data.end()) return std::nullopt;
    Kallsyms found(data);
    if (found.find_tokens(static_cast<size_t>(from - data.begin())) && found.find_names() &&
        found.find_offsets())
      return found;
  }
}

// `digits`: where the token of '0' begins, which is token number '0'.
bool Kallsyms::find_tokens(size_t digits) {
  size_t at = digits;
  for (int token = 0; token < '0'; ++token) {
    if (at < 2) return false;
    do --at;
    while (at > 0 && data_[at - 1] != 0);
  }
  first_token_ = at;
  std::array<uint16_t, kTokens> begins{};
  for (size_t token = 0; token < kTokens; ++token) {
    const auto end = std::find(data_.begin() + static_cast<ptrdiff_t>(at), data_.end(), 0);
    if (end == data_.end()) return false;
    const auto length = static_cast<size_t>(end - data_.begin()) - at;
    tokens_[token] = {reinterpret_cast<const char*>(data_.data() + at), length};
    begins[token] = static_cast<uint16_t>(at - first_token_);
    at += length + 1;
  }
  const size_t index = align8(at);
  after_tokens_ = index + sizeof begins;
  for (size_t token = 0; token < kTokens; ++token)
    if (get<uint16_t>(data_, index + token * sizeof(uint16_t)) != begins[token]) return false;
  return true;
}

// The tokens of the name at `at`, which then is behind it.
std::optional<Bytes> Kallsyms::name_at(size_t& at) const {
  auto length = get<uint8_t>(data_, at++);
  if (!length.has_value() || *length == 0) return std::nullopt;
  size_t tokens = *length;
  if (tokens >= 0x80) {
    const auto more = get<uint8_t>(data_, at++);
    if (!more.has_value()) return std::nullopt;
    tokens = (tokens & 0x7f) | static_cast<size_t>(*more) << 7;
  }
  const auto name = slice(data_, at, tokens);
  at += tokens;
  return name;
}

std::optional<size_t> Kallsyms::end_of_names(size_t names, uint32_t count) const {
  size_t at = names;
  for (uint32_t i = 0; i < count; ++i) {
    const auto name = name_at(at);
    if (!name.has_value() || name->empty() || at > first_token_) return std::nullopt;
    if (tokens_[name->front()].empty()) return std::nullopt;
  }
  return at;
}

bool Kallsyms::has_markers(size_t names, uint32_t count, size_t markers) const {
  size_t at = names;
  for (uint32_t i = 0; i < count; ++i) {
    if (i % kMarked == 0 && word_at(markers + i / kMarked * sizeof(uint32_t)) != at - names) return false;
    if (!name_at(at).has_value()) return false;
  }
  return true;
}

// The number of symbols stands before the names, the markers behind them and before the tokens.
bool Kallsyms::find_names() {
  int tries = 0;
  for (size_t names = first_token_ & ~size_t{7}; names >= 8; names -= 8) {
    const uint32_t count = *word_at(names - 8);
    if (count < kFewest || count > kMost || *word_at(names - 4) != 0 || first_token_ - names < 2ull * count)
      continue;
    if (!end_of_names(names, kNameProbe).has_value()) continue;
    if (++tries > kTries) return false;
    const auto end = end_of_names(names, count);
    if (!end.has_value() || !has_markers(names, count, align8(*end))) continue;
    names_ = names;
    count_ = count;
    return true;
  }
  return false;
}

bool Kallsyms::find_offsets() {
  const size_t bytes = align8(sizeof(int32_t) * count_);
  const auto is_base = [this](size_t at) {
    base_ = get<uint64_t>(data_, at).value_or(0);
    return base_ >= kKernelHalf;
  };
  if (names_ >= 16 + bytes && is_base(names_ - 16))
    offsets_ = names_ - 16 - bytes;
  else if (is_base(after_tokens_ + bytes))
    offsets_ = after_tokens_;
  else
    return false;
  for (uint32_t i = 0; i < count_ && !has_absolute_; ++i)
    has_absolute_ = get<int32_t>(data_, offsets_ + i * sizeof(int32_t)).value_or(0) < 0;
  return true;
}

Gva Kallsyms::address_of_symbol(uint32_t number) const {
  const uint32_t raw = word_at(offsets_ + number * sizeof(uint32_t)).value_or(0);
  if (!has_absolute_) return Gva(base_ + raw);
  const auto offset = static_cast<int32_t>(raw);
  return Gva(offset >= 0 ? static_cast<uint64_t>(offset)
                         : base_ - 1 - static_cast<uint64_t>(static_cast<int64_t>(offset)));
}

void Kallsyms::for_each(const std::function<bool(char, std::string_view, Gva)>& visit) const {
  size_t at = names_;
  std::string text;
  for (uint32_t i = 0; i < count_; ++i) {
    const auto tokens = name_at(at);
    if (!tokens.has_value()) return;
    text.clear();
    for (const uint8_t token : *tokens) text += tokens_[token];
    if (!text.empty() && !visit(text.front(), std::string_view(text).substr(1), address_of_symbol(i))) return;
  }
}

std::optional<Gva> Kallsyms::address_of(std::string_view name) const {
  std::optional<Gva> found;
  for_each([&](char /*type*/, std::string_view each, Gva address) {
    if (each == name) found = address;
    return !found.has_value();
  });
  return found;
}

}  // namespace reprise::vmm
