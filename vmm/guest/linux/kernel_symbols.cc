#include "vmm/guest/linux/kernel_symbols.h"

#include <fcntl.h>
#include <gelf.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "vmm/guest/linux/kallsyms.h"

namespace reprise::vmm {
namespace {

constexpr std::string_view kFirstSymbol =
    "_text";  // where the kernel begins. Source: arch/x86/kernel/vmlinux.lds.S

struct EndElf {
  void operator()(Elf* elf) const { (void)::elf_end(elf); }
};
using ElfFile = std::unique_ptr<Elf, EndElf>;

// Of the bytes or the file; null: it is no ELF file.
ElfFile open_elf(Bytes bytes) {
  (void)::elf_version(EV_CURRENT);
  // Not written to: elf_memory() takes what it may change only if told to.
  ElfFile elf(::elf_memory(const_cast<char*>(reinterpret_cast<const char*>(bytes.data())), bytes.size()));
  return elf != nullptr && ::elf_kind(elf.get()) == ELF_K_ELF ? std::move(elf) : nullptr;
}

struct Section {
  std::string name;
  GElf_Shdr header;
  Elf_Scn* content;
};

std::vector<Section> sections_of(Elf* elf) {
  std::vector<Section> sections;
  size_t names = 0;
  if (::elf_getshdrstrndx(elf, &names) != 0) return sections;
  for (Elf_Scn* each = ::elf_nextscn(elf, nullptr); each != nullptr; each = ::elf_nextscn(elf, each)) {
    GElf_Shdr header;
    if (::gelf_getshdr(each, &header) == nullptr) continue;
    const char* const name = ::elf_strptr(elf, names, header.sh_name);
    sections.push_back({name != nullptr ? name : "", header, each});
  }
  return sections;
}

std::optional<Kallsyms> kallsyms_of(std::span<const Section> sections) {
  for (const Section& section : sections) {
    if (section.header.sh_type != SHT_PROGBITS ||
        (section.header.sh_flags & (SHF_ALLOC | SHF_EXECINSTR)) != SHF_ALLOC)
      continue;
    const Elf_Data* const data = ::elf_rawdata(section.content, nullptr);
    if (data == nullptr || data->d_buf == nullptr) continue;
    if (auto found = Kallsyms::find({static_cast<const uint8_t*>(data->d_buf), data->d_size})) return found;
  }
  return std::nullopt;
}

std::vector<uint8_t> build_id_of(std::span<const Section> sections) {
  for (const Section& section : sections) {
    Elf_Data* const data =
        section.header.sh_type == SHT_NOTE ? ::elf_getdata(section.content, nullptr) : nullptr;
    size_t next = 0, name = 0, description = 0;
    GElf_Nhdr note;
    for (size_t at = 0; data != nullptr && (next = ::gelf_getnote(data, at, &note, &name, &description)) > 0;
         at = next) {
      const auto* const bytes = static_cast<const uint8_t*>(data->d_buf);
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof ELF_NOTE_GNU &&
          std::equal(bytes + name, bytes + name + note.n_namesz, ELF_NOTE_GNU))
        return {bytes + description, bytes + description + note.n_descsz};
    }
  }
  return {};
}

std::optional<uint64_t> symbol_in(Elf* elf, std::span<const Section> sections, std::string_view name) {
  for (const Section& section : sections) {
    if (section.header.sh_type != SHT_SYMTAB || section.header.sh_entsize == 0) continue;
    Elf_Data* const data = ::elf_getdata(section.content, nullptr);
    for (uint64_t i = 0; data != nullptr && i < section.header.sh_size / section.header.sh_entsize; ++i) {
      GElf_Sym symbol;
      if (::gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr) break;
      const char* const text = ::elf_strptr(elf, section.header.sh_link, symbol.st_name);
      if (text != nullptr && text == name) return symbol.st_value;
    }
  }
  return std::nullopt;
}

// A table of names, each ending in a zero.
class Names {
 public:
  uint32_t add(std::string_view name) {
    const auto at = static_cast<uint32_t>(text_.size());
    text_ += name;
    text_ += '\0';
    return at;
  }
  std::string& text() { return text_; }

 private:
  std::string text_ = std::string(1, '\0');
};

// Writes a file section by section. Threads: confined to one.
class SymbolWriter {
 public:
  explicit SymbolWriter(Elf* elf) : elf_(elf) {}

  bool begin() {
    if (::gelf_newehdr(elf_, ELFCLASS64) == nullptr) return false;
    GElf_Ehdr header;
    if (::gelf_getehdr(elf_, &header) == nullptr) return false;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    return ::gelf_update_ehdr(elf_, &header) != 0;
  }

  // A section at the same addresses, without bytes.
  bool add_place(const Section& section) {
    GElf_Shdr header{};
    header.sh_type = SHT_NOBITS;
    header.sh_flags = section.header.sh_flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR);
    header.sh_addr = section.header.sh_addr;
    header.sh_size = section.header.sh_size;
    header.sh_addralign = section.header.sh_addralign;
    Elf_Scn* const made =
        add(section_names_.add(section.name), header, nullptr, section.header.sh_size, ELF_T_BYTE);
    if (made != nullptr)
      places_.push_back(
          {section.header.sh_addr, section.header.sh_size, static_cast<uint16_t>(::elf_ndxscn(made))});
    return made != nullptr;
  }

  void add_symbol(char type, std::string_view name, Gva address) {
    const auto place = std::ranges::find_if(places_, [&](const Place& each) {
      return address.raw >= each.address && address.raw - each.address < each.bytes;
    });
    if (place == places_.end()) return;
    const bool code = type == 't' || type == 'T' || type == 'w' || type == 'W';
    Elf64_Sym symbol{};
    symbol.st_name = symbol_names_.add(name);
    symbol.st_info =
        ELF64_ST_INFO(std::isupper(static_cast<unsigned char>(type)) != 0 ? STB_GLOBAL : STB_LOCAL,
                      code ? STT_FUNC : STT_OBJECT);
    symbol.st_shndx = place->section;
    symbol.st_value = address.raw;
    (symbol.st_info >> 4 == STB_LOCAL ? locals_ : globals_).push_back(symbol);
  }

  bool end() {
    std::string& text = symbol_names_.text();
    GElf_Shdr header{};
    header.sh_type = SHT_STRTAB;
    Elf_Scn* const names = add(section_names_.add(".strtab"), header, text.data(), text.size(), ELF_T_BYTE);
    if (names == nullptr) return false;
    header.sh_type = SHT_SYMTAB;
    header.sh_link = static_cast<uint32_t>(::elf_ndxscn(names));
    header.sh_entsize = sizeof(Elf64_Sym);
    header.sh_info = static_cast<uint32_t>(locals_.size());
    locals_.insert(locals_.end(), globals_.begin(), globals_.end());
    if (add(section_names_.add(".symtab"), header, locals_.data(), locals_.size() * sizeof(Elf64_Sym),
            ELF_T_SYM) == nullptr)
      return false;
    header = {};
    header.sh_type = SHT_STRTAB;
    const uint32_t name = section_names_.add(".shstrtab");
    Elf_Scn* const last =
        add(name, header, section_names_.text().data(), section_names_.text().size(), ELF_T_BYTE);
    GElf_Ehdr all;
    if (last == nullptr || ::gelf_getehdr(elf_, &all) == nullptr) return false;
    all.e_shstrndx = static_cast<uint16_t>(::elf_ndxscn(last));
    return ::gelf_update_ehdr(elf_, &all) != 0 && ::elf_update(elf_, ELF_C_WRITE) >= 0;
  }

  [[nodiscard]] uint32_t symbols() const { return static_cast<uint32_t>(locals_.size() - 1); }

 private:
  struct Place {
    uint64_t address, bytes;
    uint16_t section;
  };

  Elf_Scn* add(uint32_t name, GElf_Shdr header, void* bytes, size_t size, Elf_Type type) {
    Elf_Scn* const made = ::elf_newscn(elf_);
    Elf_Data* const data = made == nullptr ? nullptr : ::elf_newdata(made);
    if (data == nullptr) return nullptr;
    data->d_buf = bytes;
    data->d_size = size;
    data->d_type = type;
    data->d_align = 8;
    data->d_version = EV_CURRENT;
    header.sh_name = name;
    return ::gelf_update_shdr(made, &header) != 0 ? made : nullptr;
  }

  Elf* elf_;
  Names section_names_;
  Names symbol_names_;
  std::vector<Place> places_;
  std::vector<Elf64_Sym> locals_ = {Elf64_Sym{}};  // the first one of a table means nothing
  std::vector<Elf64_Sym> globals_;
};

}  // namespace

Result<uint32_t> write_kernel_symbols(Bytes kernel, const std::filesystem::path& path) {
  const ElfFile from = open_elf(kernel);
  if (from == nullptr) return bad_image("the kernel is no ELF file");
  const auto sections = sections_of(from.get());
  const auto symbols = kallsyms_of(sections);
  if (!symbols.has_value())
    return bad_image("the kernel carries no symbols (CONFIG_KALLSYMS), or not as Linux 6.1 does");
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid())
    return fail_errno(ErrorCode::kOutput, errno, fmt::format("cannot create {}", path.string()));
  const ElfFile to(::elf_begin(fd.get(), ELF_C_WRITE, nullptr));
  const auto cannot = [&] {
    return fail(ErrorCode::kOutput, "cannot write {}: {}", path.string(), ::elf_errmsg(-1));
  };
  if (to == nullptr) return cannot();
  SymbolWriter writer(to.get());
  if (!writer.begin()) return cannot();
  for (const Section& section : sections)
    if ((section.header.sh_flags & SHF_ALLOC) != 0 && section.header.sh_addr >= kKernelHalf &&
        !writer.add_place(section))
      return cannot();
  symbols->for_each([&](char type, std::string_view name, Gva address) {
    writer.add_symbol(type, name, address);
    return true;
  });
  if (!writer.end()) return cannot();
  return writer.symbols();
}

Result<uint64_t> offset_of_vmlinux(Bytes kernel, const std::filesystem::path& vmlinux) {
  const ElfFile runs = open_elf(kernel);
  if (runs == nullptr) return bad_image("the kernel is no ELF file");
  const UniqueFd fd(::open(vmlinux.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid())
    return fail_errno(ErrorCode::kNotFound, errno, fmt::format("cannot open {}", vmlinux.string()));
  const ElfFile given(::elf_begin(fd.get(), ELF_C_READ_MMAP, nullptr));
  if (given == nullptr || ::elf_kind(given.get()) != ELF_K_ELF)
    return bad_image("{} is no ELF file", vmlinux.string());
  const auto sections = sections_of(runs.get());
  const auto others = sections_of(given.get());
  if (build_id_of(sections).empty() || build_id_of(sections) != build_id_of(others))
    return bad_image("{} is not the kernel that was recorded: their build IDs differ", vmlinux.string());
  const auto linked = symbol_in(given.get(), others, kFirstSymbol);
  if (!linked.has_value())
    return bad_image("{} has no symbol {}: is it stripped?", vmlinux.string(), kFirstSymbol);
  const auto symbols = kallsyms_of(sections);
  const auto at = symbols.has_value() ? symbols->address_of(kFirstSymbol) : std::nullopt;
  // Without symbols of its own it runs where it was linked all the same.
  return at.has_value() ? at->raw - *linked : 0;
}

}  // namespace reprise::vmm
