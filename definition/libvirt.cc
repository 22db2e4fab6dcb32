#include "definition/libvirt.h"

#include <dlfcn.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <cstdlib>

namespace reprise::definition {
namespace {

constexpr const char* kLibrary = "libvirt.so.0";

// What is called of the library, under its own names. Source: https://libvirt.org/html/index.html
struct Functions {
  decltype(&::virConnectOpenReadOnly) virConnectOpenReadOnly;
  decltype(&::virConnectClose) virConnectClose;
  decltype(&::virConnectListAllDomains) virConnectListAllDomains;
  decltype(&::virDomainLookupByName) virDomainLookupByName;
  decltype(&::virDomainGetName) virDomainGetName;
  decltype(&::virDomainIsActive) virDomainIsActive;
  decltype(&::virDomainGetXMLDesc) virDomainGetXMLDesc;
  decltype(&::virDomainFree) virDomainFree;
  decltype(&::virGetLastError) virGetLastError;
  decltype(&::virSetErrorFunc) virSetErrorFunc;
};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

// Once loaded, it stays: it has threads of its own.
Result<Functions> load() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return fail(ErrorCode::kHost,
                "libvirt cannot be asked: {}; install it (Debian: libvirt0), or name a definition with "
                "--domain-xml",
                ::dlerror());
  Functions found{};
#define FIND(name) find(library, #name, found.name)
  const bool all = FIND(virConnectOpenReadOnly) && FIND(virConnectClose) && FIND(virConnectListAllDomains) &&
                   FIND(virDomainLookupByName) && FIND(virDomainGetName) && FIND(virDomainIsActive) &&
                   FIND(virDomainGetXMLDesc) && FIND(virDomainFree) && FIND(virGetLastError) &&
                   FIND(virSetErrorFunc);
#undef FIND
  if (!all) return fail(ErrorCode::kHost, "libvirt cannot be asked: {} is no libvirt", kLibrary);
  return found;
}

class LoadedLibvirt final : public Libvirt {
 public:
  explicit LoadedLibvirt(const Functions& functions) : call_(functions) {
    // Else it writes to standard error by itself.
    call_.virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
  }
  ~LoadedLibvirt() override {
    if (connection_ != nullptr) call_.virConnectClose(connection_);
  }
  LoadedLibvirt(const LoadedLibvirt&) = delete;
  LoadedLibvirt& operator=(const LoadedLibvirt&) = delete;

  Status open(const std::optional<std::string>& uri) {
    connection_ = call_.virConnectOpenReadOnly(uri.has_value() ? uri->c_str() : nullptr);
    if (connection_ != nullptr) return {};
    return failed(uri.has_value() ? fmt::format("libvirt does not answer at {}", *uri)
                                  : "libvirt does not answer (--connect says where it is)");
  }

  Result<ListedDomain> domain(const std::string& name) override {
    virDomain* const found = call_.virDomainLookupByName(connection_, name.c_str());
    if (found == nullptr) {
      const virError* const error = call_.virGetLastError();
      if (error != nullptr && error->code == VIR_ERR_NO_DOMAIN)
        return fail(ErrorCode::kNotFound,
                    "libvirt has no domain {}: `reprise domains` lists those that it has", name);
      return failed(fmt::format("libvirt does not say what domain {} is", name));
    }
    auto listed = look_at(found);
    call_.virDomainFree(found);
    return listed;
  }

  Result<std::vector<ListedDomain>> domains() override {
    virDomain** all = nullptr;
    const int count = call_.virConnectListAllDomains(connection_, &all, 0);
    if (count < 0) return failed("libvirt does not list its domains");
    std::vector<ListedDomain> listed;
    Status looked;
    for (int i = 0; i < count; ++i) {
      auto one = look_at(all[i]);
      if (one)
        listed.push_back(std::move(*one));
      else if (const virError* const error = call_.virGetLastError();
               error == nullptr || error->code != VIR_ERR_NO_DOMAIN)  // it may be gone by now
        looked = tl::unexpected(one.error());
      call_.virDomainFree(all[i]);
    }
    std::free(all);  // NOLINT(cppcoreguidelines-no-malloc): libvirt's
    TRY(looked);
    std::ranges::sort(listed, {}, &ListedDomain::name);
    return listed;
  }

 private:
  Result<ListedDomain> look_at(virDomain* domain) {
    const char* const name = call_.virDomainGetName(domain);
    const int is_active = call_.virDomainIsActive(domain);
    char* const xml = call_.virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE);
    if (name == nullptr || is_active < 0 || xml == nullptr) {
      std::free(xml);  // NOLINT(cppcoreguidelines-no-malloc)
      return failed("libvirt does not show a domain's definition");
    }
    ListedDomain listed{.name = name, .is_running = is_active == 1, .xml = xml};
    std::free(xml);  // NOLINT(cppcoreguidelines-no-malloc)
    return listed;
  }

  [[nodiscard]] tl::unexpected<Error> failed(const std::string& what) const {
    const virError* const error = call_.virGetLastError();
    return fail(ErrorCode::kHost, "{}: {}", what,
                error != nullptr && error->message != nullptr ? error->message : "no reason given");
  }

  const Functions call_;
  virConnect* connection_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Libvirt>> Libvirt::connect(const std::optional<std::string>& uri) {
  TRY_ASSIGN(const Functions functions, load());
  auto libvirt = std::make_unique<LoadedLibvirt>(functions);
  TRY(libvirt->open(uri));
  return libvirt;
}

}  // namespace reprise::definition
