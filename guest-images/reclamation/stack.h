// Treiber's stack. The ABA problem (a node is taken, comes back, and the compare-and-swap succeeds with an
// old `next`) cannot occur as long as the node that pop() has protected is not used again.
//
// Source: Treiber, "Systems programming: coping with parallelism", IBM RJ 5118, 1986.
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <typename Scheme>
class Stack {
 public:
  using Worker = typename Scheme::Worker;

  Stack(Scheme& scheme, SharedWords& words)
      : scheme_(scheme), guard_(scheme.guard(words)), top_(words.make<Link>()) {}

  void push(Worker& worker, Node* node) {
    scheme_.enter(worker, guard_, Access::kWrite);
    for (;;) {
      // Protected only because lfrc counts the link that will lead there.
      const Word top = scheme_.protect(worker, 0, *top_);
      scheme_.point(worker, node->next, top);
      if (scheme_.swing(worker, *top_, top, word_of(node))) break;
    }
    scheme_.published(worker, node);
    scheme_.exit(worker, guard_, Access::kWrite);
  }

  // Takes the topmost value. False: the stack is empty.
  bool pop(Worker& worker, uint64_t& value) {
    scheme_.enter(worker, guard_, Access::kWrite);
    const bool found = take_top(worker, value);
    scheme_.exit(worker, guard_, Access::kWrite);
    return found;
  }

  // Reads the topmost value.
  bool peek(Worker& worker, uint64_t& value) {
    scheme_.enter(worker, guard_, Access::kRead);
    const Word top = scheme_.protect(worker, 0, *top_);
    if (top != 0) {
      worker.in_operation();
      value = node_of(top)->value.load(std::memory_order_acquire);
      check_use(node_of(top));
    }
    scheme_.exit(worker, guard_, Access::kRead);
    return top != 0;
  }

  // Calls visit(node) for each. Requires: nobody else is at work.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const Node* node = node_of(top_->load()); node; node = node_of(node->next.load())) visit(*node);
  }

 private:
  bool take_top(Worker& worker, uint64_t& value) {
    for (;;) {
      const Word top = scheme_.protect(worker, 0, *top_);
      if (top == 0) return false;
      Node* node = node_of(top);
      worker.in_operation();
      const Word next = node->next.load(std::memory_order_acquire);
      value = node->value.load(std::memory_order_acquire);
      check_use(node);
      if (!scheme_.swing(worker, *top_, top, next)) continue;
      scheme_.retire(worker, node);
      return true;
    }
  }

  Scheme& scheme_;
  [[no_unique_address]] typename Scheme::Guard guard_;
  Link* top_;
};

}  // namespace reprise::guest::reclamation
