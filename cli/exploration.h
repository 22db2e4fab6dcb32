// What `reprise explore` found out so far: a folder with one file of results per shard, a line of JSON for
// each seed, and the recordings that were kept. Whoever finds it again goes on where it was left; the files
// of several shards, copied into one folder, are the results of all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace reprise::cli {

// Of the seeds 1 to `seeds` those with seed % count == number % count.
struct Shard {
  uint64_t number = 1;  // 1 to count
  uint64_t count = 1;
  [[nodiscard]] bool has(uint64_t seed) const { return seed % count == number % count; }
};

struct SeedResult {
  uint64_t seed = 0;
  bool failed = false;
  std::string why;                       // of a failure, as a sentence's part
  std::optional<std::string> recording;  // its folder's name, if it was kept
  uint64_t wall_ns = 0;
};

// Threads: confined to one. One process at a time writes the results of a shard.
class Exploration {
 public:
  // Makes `folder` if it is not there. Errors: kOutput; kDamaged if a file of results is none.
  static Result<Exploration> open(const std::filesystem::path& folder, const Shard& shard);

  [[nodiscard]] bool is_known(uint64_t seed) const;
  // Of all shards whose results are in the folder, by seed.
  [[nodiscard]] const std::vector<SeedResult>& results() const { return results_; }
  // The first that failed, or that did not, whose recording is there.
  [[nodiscard]] const SeedResult* kept(bool failed) const;
  [[nodiscard]] uint64_t count(bool failed) const;

  // Where the seed's recording is made; what a process that was killed has left there is removed.
  // Errors: kOutput.
  Result<std::filesystem::path> begin(uint64_t seed);
  // Keeps that recording under a name that says how it ended, or removes it, and writes the result.
  // Errors: kOutput.
  Status end(SeedResult result, bool keep);

 private:
  Exploration(std::filesystem::path folder, const Shard& shard);
  Status read();
  [[nodiscard]] std::filesystem::path part(uint64_t seed) const;
  void add(SeedResult result);

  std::filesystem::path folder_;
  std::filesystem::path own_;        // this shard's file
  std::vector<SeedResult> results_;  // by seed, each once
};

}  // namespace reprise::cli
