// Traces for tests, a line for each access.
#pragma once

#include "analysis/race_detector.h"

namespace reprise::analysis {

// Accesses of eight bytes, in the order of the calls. Addresses of instructions are the places in the trace,
// if nothing else is said.
class FakeTrace {
 public:
  FakeTrace& read(uint32_t vcpu, uint64_t at) { return add(vcpu, at, true, false, false, false); }
  FakeTrace& write(uint32_t vcpu, uint64_t at) { return add(vcpu, at, false, true, false, false); }
  FakeTrace& atomic(uint32_t vcpu, uint64_t at) { return add(vcpu, at, true, true, true, false); }
  FakeTrace& wait_for(uint32_t vcpu, uint64_t at) { return add(vcpu, at, true, false, false, true); }
  FakeTrace& send(uint32_t vcpu) { return add(Sent{VcpuId(vcpu)}); }
  FakeTrace& receive(uint32_t vcpu) { return add(Received{VcpuId(vcpu)}); }
  FakeTrace& unseen(uint32_t vcpu) { return add(Unseen{VcpuId(vcpu)}); }
  // Of the last access.
  FakeTrace& by(uint64_t rip) {
    std::get<replay::MemoryAccess>(items.back()).rip = Gva(rip);
    return *this;
  }
  FakeTrace& bytes(uint32_t count) {
    std::get<replay::MemoryAccess>(items.back()).bytes = count;
    return *this;
  }

  Trace items;

 private:
  FakeTrace& add(TraceItem item) {
    items.push_back(item);
    return *this;
  }
  FakeTrace& add(uint32_t vcpu, uint64_t at, bool reads, bool writes, bool locked, bool waits) {
    replay::MemoryAccess access{.vcpu = VcpuId(vcpu), .mark = {}, .rip = Gva(0x1000 + items.size())};
    access.start = Gpa(at);
    access.linear = Gva(at);
    access.bytes = 8;
    access.reads = reads;
    access.writes = writes;
    access.locked = locked;
    access.waits = waits;
    return add(TraceItem(access));
  }
};

}  // namespace reprise::analysis
