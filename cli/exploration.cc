#include "cli/exploration.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/unique_fd.h"
#include "log/file_io.h"

namespace reprise::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = 256ull << 20;  // of a file of results
constexpr std::string_view kPrefix = "results-", kSuffix = ".jsonl";

std::string to_line(const SeedResult& result) {
  nlohmann::json json{{"seed", result.seed},
                      {"outcome", result.failed ? "failed" : "passed"},
                      {"why", result.why},
                      {"wall_ns", result.wall_ns}};
  if (result.recording.has_value()) json["recording"] = *result.recording;
  return json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

std::optional<SeedResult> from_line(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("seed") || !json["seed"].is_number_unsigned()) return std::nullopt;
  SeedResult result;
  result.seed = json["seed"];
  result.failed = json.value("outcome", nlohmann::json()) == "failed";
  if (const auto why = json.find("why"); why != json.end() && why->is_string()) result.why = *why;
  if (const auto at = json.find("recording"); at != json.end() && at->is_string()) {
    // A name in this folder, and no way out of it.
    const std::string name = *at;
    if (name == fs::path(name).filename() && name != "..") result.recording = name;
  }
  if (const auto wall = json.find("wall_ns"); wall != json.end() && wall->is_number_unsigned())
    result.wall_ns = *wall;
  return result;
}

Status remove_folder(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error)
    return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot remove {}", path.string()));
  return {};
}

}  // namespace

Exploration::Exploration(fs::path folder, const Shard& shard)
    : folder_(std::move(folder)),
      own_(folder_ / fmt::format("{}{}-of-{}{}", kPrefix, shard.number, shard.count, kSuffix)) {}

Result<Exploration> Exploration::open(const fs::path& folder, const Shard& shard) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) TRY(log::create_folder(folder));
  Exploration found(folder, shard);
  TRY(found.read());
  return found;
}

// The last line may be a part, where its writer was killed: that seed is recorded again.
Status Exploration::read() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    TRY_ASSIGN(const auto bytes, log::read_file(entry.path(), kMostBytes));
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    for (size_t number = 1; !text.empty(); ++number) {
      const size_t end = text.find('\n');
      if (end == std::string_view::npos) break;
      auto result = from_line(text.substr(0, end));
      if (!result.has_value())
        return fail(ErrorCode::kDamaged, "{}:{}: is no result of reprise explore", entry.path().string(),
                    number);
      add(std::move(*result));
      text.remove_prefix(end + 1);
    }
  }
  if (error)
    return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot read {}", folder_.string()));
  return {};
}

void Exploration::add(SeedResult result) {
  if (is_known(result.seed)) return;
  const auto place = std::ranges::upper_bound(results_, result.seed, {}, &SeedResult::seed);
  results_.insert(place, std::move(result));
}

bool Exploration::is_known(uint64_t seed) const {
  return std::ranges::binary_search(results_, seed, {}, &SeedResult::seed);
}

const SeedResult* Exploration::kept(bool failed) const {
  const auto found = std::ranges::find_if(results_, [&](const SeedResult& result) {
    std::error_code ignored;
    return result.failed == failed && result.recording.has_value() &&
           fs::is_directory(folder_ / *result.recording, ignored);
  });
  return found == results_.end() ? nullptr : &*found;
}

uint64_t Exploration::count(bool failed) const {
  return static_cast<uint64_t>(std::ranges::count(results_, failed, &SeedResult::failed));
}

fs::path Exploration::part(uint64_t seed) const {
  return folder_ / fmt::format("seed-{}.part", seed);
}

Result<fs::path> Exploration::begin(uint64_t seed) {
  TRY(remove_folder(part(seed)));
  return part(seed);
}

Status Exploration::end(SeedResult result, bool keep) {
  result.recording.reset();
  if (keep) {
    result.recording = fmt::format("{}-{}", result.failed ? "failing" : "passing", result.seed);
    const fs::path kept = folder_ / *result.recording;
    TRY(remove_folder(kept));
    std::error_code error;
    fs::rename(part(result.seed), kept, error);
    if (error)
      return fail_errno(ErrorCode::kOutput, error.value(), fmt::format("cannot make {}", kept.string()));
  } else {
    TRY(remove_folder(part(result.seed)));
  }
  const std::string line = to_line(result);
  const UniqueFd fd(::open(own_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid())
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot write {}", own_.string()));
  TRY(log::write_all(fd.get(), {reinterpret_cast<const uint8_t*>(line.data()), line.size()}, own_));
  add(std::move(result));
  return {};
}

}  // namespace reprise::cli
