// Words of the command line that make no sense: what a person may have meant.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace reprise::cli {

// The one of `words` that `word` differs from in the fewest letters (inserted, left out, replaced or
// exchanged with the next). Nothing: in more than a third of its letters, but at least two.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& words);

}  // namespace reprise::cli
