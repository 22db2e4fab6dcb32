// What the structures are made of, and the words that link them.
#pragma once

#include <stdint.h>

#include <atomic>

#include "runtime/own_page.h"

namespace reprise::guest::reclamation {

struct Node;

// A link as it stands in memory: the address of a node, or 0. Bit 0 is Harris's mark: the node that holds
// this link is deleted, and the link does not change any more.
using Word = uint64_t;
using Link = std::atomic<Word>;

inline constexpr Word kMark = 1;

inline Node* node_of(Word word) {
  return reinterpret_cast<Node*>(word & ~kMark);
}
inline Word word_of(const Node* node) {
  return reinterpret_cast<Word>(node);
}
inline bool marked(Word word) {
  return (word & kMark) != 0;
}
inline Word with_mark(Word word) {
  return word | kMark;
}
inline Word without_mark(Word word) {
  return word & ~kMark;
}

// The canary. A retired node may still be read; a free one may not.
enum class State : uint64_t {
  kAlive = 0xa11fea11fea11fe0,
  kRetired = 0x4e714ed4e714ed40,
  kFree = 0xf4eef4eef4eef4ee,
};

inline constexpr uint64_t kPoison = 0xdeaddeaddeaddead;  // key and value of a free node

// A cache line. Never on two pages.
struct alignas(kCacheLine) Node {
  Link next;
  std::atomic<uint64_t> key;
  std::atomic<uint64_t> value;
  std::atomic<State> state;
  std::atomic<uint64_t> references;  // of lfrc alone: twice the number of references, plus the claim
  Node* behind;                      // the next one in a NodeList
  uint64_t freed_by;                 // worker
};
static_assert(sizeof(Node) == kCacheLine);

// A list that one worker owns: first in, first out, so that a free node stays poisoned as long as possible.
struct NodeList {
  Node* first = nullptr;
  Node* last = nullptr;
  uint64_t count = 0;

  void push(Node* node) {
    node->behind = nullptr;
    (first ? last->behind : first) = node;
    last = node;
    ++count;
  }
  Node* pop() {
    Node* node = first;
    if (!node) return nullptr;
    first = node->behind;
    --count;
    return node;
  }
  // Takes all of `other`.
  void append(NodeList& other) {
    if (!other.first) return;
    (first ? last->behind : first) = other.first;
    last = other.last;
    count += other.count;
    other = {};
  }
};

// Memory was used that is not there to be used: the guest ends with this status.
inline constexpr uint32_t kExitMisuse = 4;

// Prints what was found, and ends the guest with kExitMisuse.
[[noreturn]] void report_misuse(const char* what, const Node* node);

// After a node's words were read: it was not free when they were. x86 keeps loads in order.
inline void check_use(const Node* node) {
  if (node->state.load(std::memory_order_acquire) == State::kFree) [[unlikely]]
    report_misuse("use after free", node);
}

}  // namespace reprise::guest::reclamation
