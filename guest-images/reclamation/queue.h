// Michael and Scott's queue. `head` leads to a node that is not in the queue any more; the first element is
// behind it. `tail` may lag behind by one node, and who sees that helps.
//
// Source: Michael, Scott, "Simple, fast, and practical non-blocking and blocking concurrent queue
// algorithms", PODC 1996; with hazard pointers: Michael, "Hazard pointers: safe memory reclamation for
// lock-free objects", TPDS 2004.
#pragma once

#include "reclamation/scheme.h"

namespace reprise::guest::reclamation {

template <typename Scheme>
class Queue {
 public:
  using Worker = typename Scheme::Worker;

  // `first`: the node before the first element.
  Queue(Scheme& scheme, SharedWords& words, Worker& worker, Node* first)
      : scheme_(scheme), guard_(scheme.guard(words)), head_(words.make<Link>()), tail_(words.make<Link>()) {
    scheme_.point(worker, *head_, word_of(first));
    scheme_.point(worker, *tail_, word_of(first));
    scheme_.published(worker, first);
  }

  void push(Worker& worker, Node* node) {
    scheme_.enter(worker, guard_, Access::kWrite);
    for (;;) {
      const Word tail = scheme_.protect(worker, 0, *tail_);
      Node* last = node_of(tail);
      const Word next = last->next.load(std::memory_order_acquire);  // not followed
      check_use(last);
      worker.in_operation();
      if (tail_->load(std::memory_order_acquire) != tail) continue;
      if (next != 0) {
        scheme_.swing(worker, *tail_, tail, next);
        continue;
      }
      if (!scheme_.swing(worker, last->next, 0, word_of(node))) continue;
      scheme_.swing(worker, *tail_, tail, word_of(node));
      break;
    }
    scheme_.published(worker, node);
    scheme_.exit(worker, guard_, Access::kWrite);
  }

  // Takes the first element's value. False: the queue is empty.
  bool pop(Worker& worker, uint64_t& value) {
    scheme_.enter(worker, guard_, Access::kWrite);
    const bool found = take_first(worker, value);
    scheme_.exit(worker, guard_, Access::kWrite);
    return found;
  }

  // Reads the first element's value.
  bool peek(Worker& worker, uint64_t& value) {
    scheme_.enter(worker, guard_, Access::kRead);
    Word head, next;
    do {
      head = scheme_.protect(worker, 0, *head_);
      next = scheme_.protect(worker, 1, node_of(head)->next);
      check_use(node_of(head));
      worker.in_operation();
    } while (head_->load(std::memory_order_acquire) != head);
    if (next != 0) {
      value = node_of(next)->value.load(std::memory_order_acquire);
      check_use(node_of(next));
    }
    scheme_.exit(worker, guard_, Access::kRead);
    return next != 0;
  }

  // Calls visit(node) for each element; not for the node before them. Requires: nobody else is at work.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const Node* node = node_of(node_of(head_->load())->next.load()); node;
         node = node_of(node->next.load()))
      visit(*node);
  }

 private:
  bool take_first(Worker& worker, uint64_t& value) {
    for (;;) {
      const Word head = scheme_.protect(worker, 0, *head_);
      const Word tail = tail_->load(std::memory_order_acquire);
      const Word next = scheme_.protect(worker, 1, node_of(head)->next);
      check_use(node_of(head));
      worker.in_operation();
      if (head_->load(std::memory_order_acquire) != head) continue;
      if (next == 0) return false;
      if (head == tail) {
        scheme_.swing(worker, *tail_, tail, next);
        continue;
      }
      value = node_of(next)->value.load(std::memory_order_acquire);
      check_use(node_of(next));
      if (!scheme_.swing(worker, *head_, head, next)) continue;
      scheme_.retire(worker, node_of(head));
      return true;
    }
  }

  Scheme& scheme_;
  [[no_unique_address]] typename Scheme::Guard guard_;
  Link* head_;
  Link* tail_;
};

}  // namespace reprise::guest::reclamation
