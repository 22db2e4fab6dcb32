#include "analysis/symbols.h"

#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>

#include <cstdlib>

namespace reprise::analysis {
namespace {

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};

// Without the parameters, which say nothing that the line does not: up to the parenthesis that the last one
// closes, unless it belongs to a name within ("f(int)::{lambda(int)#1}::operator()").
std::string without_parameters(std::string name) {
  if (const size_t end = name.rfind(" const"); end != std::string::npos && end + 6 == name.size())
    name.resize(end);
  if (name.empty() || name.back() != ')') return name;
  size_t open = name.size();
  for (int depth = 0; open > 0;) {
    --open;
    depth += name[open] == ')' ? 1 : name[open] == '(' ? -1 : 0;
    if (depth == 0) break;
  }
  if (open >= 8 && name.compare(open - 8, 8, "operator") == 0 && open + 2 == name.size()) return name;
  return name.substr(0, open);
}

// What compilers append to parts of an object or function (".0", ".isra.0") is left as it is.
std::string demangled(const std::string& name) {
  const size_t suffix = std::min(name.find('.'), name.size());
  int status = 0;
  const std::unique_ptr<char, Free> text(
      abi::__cxa_demangle(name.substr(0, suffix).c_str(), nullptr, nullptr, &status));
  return status == 0 ? text.get() + name.substr(suffix) : name;
}

std::string function_name(Dwarf_Die& function) {
  Dwarf_Attribute attribute;
  if (dwarf_attr_integrate(&function, DW_AT_linkage_name, &attribute) != nullptr)
    if (const char* name = dwarf_formstring(&attribute)) return without_parameters(demangled(name));
  const char* name = dwarf_diename(&function);
  return name == nullptr ? std::string() : std::string(name);
}

int number_of(Dwarf_Die& die, unsigned which) {
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  if (dwarf_attr(&die, which, &attribute) == nullptr || dwarf_formudata(&attribute, &value) != 0) return 0;
  return static_cast<int>(value);
}

// As the compiler was told: without the folder that it ran in.
std::string told(Dwarf_Die& unit, const char* file) {
  std::string name = file == nullptr ? "" : file;
  Dwarf_Attribute attribute;
  const char* folder = dwarf_formstring(dwarf_attr(&unit, DW_AT_comp_dir, &attribute));
  if (folder != nullptr && name.starts_with(std::string(folder) + "/"))
    name.erase(0, std::string_view(folder).size() + 1);
  return name;
}

std::string call_file(Dwarf_Die& unit, Dwarf_Die& inlined) {
  Dwarf_Files* files = nullptr;
  size_t count = 0;
  if (dwarf_getsrcfiles(&unit, &files, &count) != 0) return {};
  return told(
      unit, dwarf_filesrc(files, static_cast<size_t>(number_of(inlined, DW_AT_call_file)), nullptr, nullptr));
}

// Whether functions can be in it that its own ranges do not cover, for it has none.
bool only_groups(int tag) {
  return tag == DW_TAG_namespace || tag == DW_TAG_class_type || tag == DW_TAG_structure_type ||
         tag == DW_TAG_module;
}

// Adds the functions around `address` in `parent`, the outermost first. (dwarf_getscopes() does not look into
// namespaces.)
void add_functions(Dwarf_Die& parent, uint64_t address, std::vector<Dwarf_Die>& functions) {
  Dwarf_Die child;
  for (int left = dwarf_child(&parent, &child); left == 0; left = dwarf_siblingof(&child, &child)) {
    const int tag = dwarf_tag(&child);
    const bool is_function = tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine;
    if (!only_groups(tag) &&
        !((is_function || tag == DW_TAG_lexical_block) && dwarf_haspc(&child, address) > 0))
      continue;
    const size_t known = functions.size();
    if (is_function) functions.push_back(child);
    add_functions(child, address, functions);
    if (functions.size() != known) return;
  }
}

// The innermost first, with the place in each.
std::vector<CodeFrame> frames_of(Dwarf_Die& unit, uint64_t address) {
  std::vector<Dwarf_Die> functions;
  add_functions(unit, address, functions);
  CodeFrame place;
  if (Dwarf_Line* line = dwarf_getsrc_die(&unit, address)) {
    place.file = told(unit, dwarf_linesrc(line, nullptr, nullptr));
    dwarf_lineno(line, &place.line);
  }
  std::vector<CodeFrame> frames;
  while (!functions.empty()) {
    Dwarf_Die& function = functions.back();
    place.function = function_name(function);
    place.inlined = dwarf_tag(&function) == DW_TAG_inlined_subroutine;
    frames.push_back(place);
    place = {.function = {}, .file = call_file(unit, function), .line = number_of(function, DW_AT_call_line)};
    functions.pop_back();
  }
  return frames;
}

}  // namespace

void Symbols::End::operator()(Dwfl* dwfl) const {
  dwfl_end(dwfl);
}

Symbols::Symbols(std::unique_ptr<Dwfl, End> dwfl, Dwfl_Module* module, uint64_t moved)
    : dwfl_(std::move(dwfl)), module_(module), moved_(moved) {
  Dwarf_Addr bias = 0;
  for (Dwarf_Die* unit = nullptr; (unit = dwfl_module_nextcu(module_, unit, &bias)) != nullptr;) {
    Dwarf_Addr base = 0, begin = 0, end = 0;
    for (ptrdiff_t at = 0; (at = dwarf_ranges(unit, at, &base, &begin, &end)) > 0;)
      units_.insert_or_assign(begin + bias, Unit{end + bias, bias, unit});
  }
}
Symbols::Symbols(Symbols&&) noexcept = default;
Symbols& Symbols::operator=(Symbols&&) noexcept = default;
Symbols::~Symbols() = default;

Result<Symbols> Symbols::open(const std::filesystem::path& file, uint64_t moved) {
  static const Dwfl_Callbacks kCallbacks{.find_elf = dwfl_build_id_find_elf,
                                         .find_debuginfo = dwfl_standard_find_debuginfo,
                                         .section_address = dwfl_offline_section_address,
                                         .debuginfo_path = nullptr};
  std::unique_ptr<Dwfl, End> dwfl(dwfl_begin(&kCallbacks));
  Dwfl_Module* module =
      dwfl == nullptr ? nullptr : dwfl_report_elf(dwfl.get(), "guest", file.c_str(), -1, 0, true);
  if (module == nullptr)
    return fail(ErrorCode::kBadImage, "{} has no symbols that can be read: {}", file.string(),
                dwfl_errmsg(-1));
  dwfl_report_end(dwfl.get(), nullptr, nullptr);
  return Symbols(std::move(dwfl), module, moved);
}

std::vector<CodeFrame> Symbols::code(Gva address) const {
  const uint64_t at = address.raw - moved_;
  if (const auto after = units_.upper_bound(at); after != units_.begin()) {
    const Unit& unit = std::prev(after)->second;
    auto frames = at < unit.end ? frames_of(*unit.die, at - unit.bias) : std::vector<CodeFrame>();
    if (!frames.empty()) return frames;
  }
  const char* name = dwfl_module_addrname(module_, at);
  if (name == nullptr) return {};
  CodeFrame frame{.function = without_parameters(demangled(name)), .file = {}};
  if (Dwfl_Line* line = dwfl_module_getsrc(module_, at)) {
    const char* file = dwfl_lineinfo(line, nullptr, &frame.line, nullptr, nullptr, nullptr);
    frame.file = file == nullptr ? "" : file;
  }
  return {frame};
}

std::string Symbols::data(Gva address) const {
  GElf_Off offset = 0;
  GElf_Sym symbol;
  const char* name =
      dwfl_module_addrinfo(module_, address.raw - moved_, &offset, &symbol, nullptr, nullptr, nullptr);
  if (name == nullptr) return {};
  // What is behind the last object is not part of it; labels of assembly have no size.
  if (symbol.st_size != 0 && offset >= symbol.st_size) return {};
  return demangled(name) + (offset == 0 ? "" : fmt::format("+{:#x}", offset));
}

}  // namespace reprise::analysis
