// Names and lines of guest addresses, from the symbol table and the debugging information of an ELF file.
#pragma once

#include <elfutils/libdwfl.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace reprise::analysis {

// A function that is being executed, and where. What is unknown is empty, or 0.
struct CodeFrame {
  std::string function;  // as a person writes it, without parameters
  std::string file;      // as the compiler was told
  int line = 0;
  bool inlined = false;  // into the next one
  bool operator==(const CodeFrame&) const = default;
};

// By libdw. Threads: confined to one.
class Symbols {
 public:
  // `moved`: how much higher the guest has it than the file says. Errors: kBadImage.
  static Result<Symbols> open(const std::filesystem::path& file, uint64_t moved = 0);
  Symbols(Symbols&&) noexcept;
  Symbols& operator=(Symbols&&) noexcept;
  ~Symbols();

  // The function that this instruction belongs to, behind those that are inlined there: the innermost first.
  // Empty: none.
  [[nodiscard]] std::vector<CodeFrame> code(Gva address) const;
  // The object, or what else has a symbol there: "counter" or "table+0x10"; empty: none.
  [[nodiscard]] std::string data(Gva address) const;

 private:
  struct End {
    void operator()(Dwfl* dwfl) const;
  };
  Symbols(std::unique_ptr<Dwfl, End> dwfl, Dwfl_Module* module, uint64_t moved);

  // A range of code of a compilation unit, from its beginning on. Clang makes no table of them.
  struct Unit {
    uint64_t end = 0;
    uint64_t bias = 0;
    Dwarf_Die* die = nullptr;
  };

  std::unique_ptr<Dwfl, End> dwfl_;
  Dwfl_Module* module_;
  uint64_t moved_;
  std::map<uint64_t, Unit> units_;
};

}  // namespace reprise::analysis
