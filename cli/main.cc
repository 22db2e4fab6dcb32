// The command line: composition root. Nothing else knows everything.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/usage.h"
#include "cli/verbs.h"

namespace reprise::cli {
namespace {

// A sentence about how `verb` is used; none: about the program.
ExitCode usage_error(const std::string& verb, std::string_view sentence) {
  complain(verb.empty() ? "reprise" : "reprise " + verb, sentence);
  return kUsageError;
}

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  return verbs;
}

// `reprise help VERB` is `reprise VERB --help`.
std::vector<std::string> words_of(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "help") {
    words.resize(std::min<size_t>(words.size(), 2));
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  return words;
}

ExitCode no_such_verb(const std::vector<std::string>& verbs, const std::string& word) {
  const auto meant = nearest(word, verbs);
  return usage_error(
      "", meant.has_value()
              ? fmt::format("there is no verb '{}': did you mean '{}'?", word, *meant)
              : fmt::format("there is no verb '{}': the verbs are {}", word, fmt::join(verbs, ", ")));
}

// What CLI11 found wrong, as one sentence.
ExitCode not_parsed(const CLI::App& app, const std::string& verb, const CLI::ParseError& error) {
  std::ostringstream out, err;
  if (app.exit(error, out, err) == 0) {  // --help or --version
    print_text(out.str());
    return kOk;
  }
  std::string what = error.what();
  std::ranges::replace(what, '\n', ' ');
  return usage_error(
      verb, fmt::format("{} (`reprise help{}` shows the options)", what, verb.empty() ? "" : " " + verb));
}

int parse_and_act(int argc, char** argv) {
  CLI::App app(
      "Reprise records a whole multi-vCPU virtual machine while it runs, and replays exactly that run.",
      "reprise");
  app.set_version_flag("--version", "reprise " REPRISE_VERSION);
  app.require_subcommand(1);
  Action action;
  add_record(app, action);
  add_replay(app, action);
  add_gdb(app, action);
  add_checkpoint(app, action);
  add_explore(app, action);
  add_run(app, action);
  add_info(app, action);
  add_dump(app, action);
  add_verify(app, action);
  add_pack(app, action);
  add_domains(app, action);
  add_domain_xml(app, action);
  add_doctor(app, action);
  app.add_subcommand("help", "show what a verb does, and its options")->add_option("verb");
  auto words = words_of(argc, argv);
  if (words.empty())
    return usage_error("", "which verb? They are " + fmt::format("{}", fmt::join(verbs_of(app), ", ")));
  const bool has_verb = !words[0].starts_with('-');
  const auto verbs = verbs_of(app);
  if (has_verb && std::ranges::find(verbs, words[0]) == verbs.end()) return no_such_verb(verbs, words[0]);
  const std::string verb = has_verb ? words[0] : "";
  try {
    std::ranges::reverse(words);  // as CLI11 wants them
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return not_parsed(app, verb, error);
  }
  auto result = action();
  if (result) return *result;
  const Error& error = result.error();
  if (error.code == ErrorCode::kUsage) return usage_error(verb, error.message);
  // That output cannot be written is said in the end, once.
  if (error.code == ErrorCode::kDivergence)
    say_lines(error.message);
  else if (output_status())
    say("{}", error.message);
  return exit_code(error.code);
}

int run(int argc, char** argv) {
  const int code = parse_and_act(argc, argv);
  const Status written = finish_output();
  if (written) return code;
  if (written.error().os_error == EPIPE) return kInterruptedBy + SIGPIPE;
  say("{}", written.error().message);
  return exit_code(written.error().code);
}

}  // namespace
}  // namespace reprise::cli

int main(int argc, char** argv) {
  using namespace reprise::cli;
  try {
    take_standard_descriptors();
    handle_interrupts();
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    (void)std::fputs("reprise: this host has not enough memory\n", stderr);
    return kHostCannot;
  } catch (const std::exception& exception) {
    (void)std::fprintf(stderr, "reprise: internal error: %s\n", exception.what());
    return kInternalError;
  }
}
