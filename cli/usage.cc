#include "cli/usage.h"

#include <algorithm>

namespace reprise::cli {
namespace {

// How many letters have to be inserted, left out, replaced or exchanged with the next: the restricted
// Damerau-Levenshtein distance.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> of(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        of[i][j] = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      of[i][j] = std::min({of[i - 1][j] + 1, of[i][j - 1] + 1, of[i - 1][j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        of[i][j] = std::min(of[i][j], of[i - 2][j - 2] + 1);
    }
  }
  return of[a.size()][b.size()];
}

}  // namespace

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& words) {
  constexpr size_t kLongest = 64;  // no verb or option is longer
  if (word.size() > kLongest || words.empty()) return std::nullopt;
  const auto best = std::ranges::min_element(
      words, {}, [&](const std::string& candidate) { return distance(word, candidate); });
  if (distance(word, *best) > std::max<size_t>(2, word.size() / 3)) return std::nullopt;
  return *best;
}

}  // namespace reprise::cli
