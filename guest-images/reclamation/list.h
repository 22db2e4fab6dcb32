// A sorted list without locks: Harris's two steps (mark the node, then unlink it) in the form of Michael, who
// unlinks one node at a time and checks each pointer that he protects against the link that it came from.
//
// Source: Harris, "A pragmatic implementation of non-blocking linked-lists", DISC 2001; Michael, "High
// performance dynamic lock-free hash tables and list-based sets", SPAA 2002, figures 7 to 9.
#pragma once

#include "reclamation/scheme.h"
#include "runtime/workload.h"

namespace reprise::guest::reclamation {

template <typename Scheme>
class List {
 public:
  using Worker = typename Scheme::Worker;

  List(Scheme& scheme, SharedWords& words)
      : scheme_(scheme), guard_(scheme.guard(words)), head_(words.make<Link>()) {}

  bool contains(Worker& worker, uint64_t key) {
    scheme_.enter(worker, guard_, Access::kRead);
    const bool found = find(worker, key).found;
    scheme_.exit(worker, guard_, Access::kRead);
    return found;
  }

  // `node` is the caller's, with its key. False, and it still is, if there is one with this key.
  bool insert(Worker& worker, Node* node) {
    scheme_.enter(worker, guard_, Access::kWrite);
    const uint64_t key = node->key.load(std::memory_order_relaxed);
    bool done = false;
    for (;;) {
      const Position at = find(worker, key);
      if (at.found) break;
      scheme_.point(worker, node->next, at.current);
      if (scheme_.swing(worker, *at.previous, at.current, word_of(node))) {
        done = true;
        break;
      }
    }
    if (done) scheme_.published(worker, node);
    scheme_.exit(worker, guard_, Access::kWrite);
    return done;
  }

  bool remove(Worker& worker, uint64_t key) {
    scheme_.enter(worker, guard_, Access::kWrite);
    bool done = false;
    for (;;) {
      const Position at = find(worker, key);
      if (!at.found) break;
      Node* node = node_of(at.current);
      if (!scheme_.swing(worker, node->next, at.next, with_mark(at.next))) continue;
      done = true;  // from here on it is not in the list
      if (scheme_.swing(worker, *at.previous, at.current, at.next)) {
        scheme_.retire(worker, node);
      } else {
        find(worker, key);  // somebody unlinks it, or we do
      }
      break;
    }
    scheme_.exit(worker, guard_, Access::kWrite);
    return done;
  }

  // Calls visit(node) for each. Requires: nobody else is at work.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const Node* node = node_of(head_->load()); node; node = node_of(node->next.load())) visit(*node);
  }

 private:
  // Where `key` is or belongs. *previous == current, unmarked; current == 0 is the end; next is current's
  // link.
  struct Position {
    Link* previous;
    Word current, next;
    bool found;
  };

  Position find(Worker& worker, uint64_t key) {
    for (;;) {
      Position at;
      if (try_find(worker, key, at)) return at;
    }
  }

  // False: a link has changed, start again.
  bool try_find(Worker& worker, uint64_t key, Position& at) {
    unsigned previous_slot = 0, current_slot = 1, next_slot = 2;
    at.previous = head_;
    at.current = scheme_.protect(worker, current_slot, *head_);
    for (uint64_t steps = 0;; ++steps) {
      if (at.current == 0) return at.found = false, true;
      if (steps > 2 * pool.size()) report_misuse("endless list", node_of(at.current));
      Node* node = node_of(at.current);
      const Word next = scheme_.protect(worker, next_slot, node->next);
      const uint64_t here = node->key.load(std::memory_order_acquire);
      check_use(node);
      worker.in_operation();
      // Still linked: so `next` was reachable when it was protected. And *previous is not marked.
      if (at.previous->load(std::memory_order_acquire) != at.current) return false;
      if (marked(next)) {
        if (!scheme_.swing(worker, *at.previous, at.current, without_mark(next))) return false;
        scheme_.retire(worker, node);
        const unsigned free_slot = current_slot;
        current_slot = next_slot;
        next_slot = free_slot;
      } else {
        at.next = next;
        if (here >= key) return at.found = here == key, true;
        at.previous = &node->next;
        const unsigned free_slot = previous_slot;
        previous_slot = current_slot;
        current_slot = next_slot;
        next_slot = free_slot;
      }
      at.current = without_mark(next);
    }
  }

  Scheme& scheme_;
  [[no_unique_address]] typename Scheme::Guard guard_;
  Link* head_;
};

}  // namespace reprise::guest::reclamation
