// What `races` found, as text and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "analysis/races.h"
#include "analysis/suppressions.h"

namespace reprise::cli {

// In the manner of KCSAN's reports, under a header of its own. `folder`: of the recording.
std::string text_of(const analysis::Race& race, const std::string& folder);
std::string text_of(const analysis::FalseSharing& sharing);

nlohmann::json json_of(const analysis::Race& race);
nlohmann::json json_of(const analysis::FalseSharing& sharing);

}  // namespace reprise::cli
