// What the log costs: one append on a vCPU's thread, encoding, and bytes per event. Run by hand.
#include <benchmark/benchmark.h>

#include <vector>

#include "log/block_reader.h"
#include "log/event_codec.h"
#include "log/recording_writer.h"
#include "log/sample_recording.h"

namespace reprise::log {
namespace {

uint64_t mix(uint64_t i) {
  i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9ull;
  return i ^ i >> 27;
}

// A Gain, two Losses and a Digest now and then, on a working set of 512 pages.
Event sharing_event(uint64_t i) {
  const Position position = {i / 2, Ticks(i * 900 + mix(i) % 1500)};
  const PageStep step = {PageNumber(0x400 + mix(i / 2) % 512), static_cast<uint32_t>(i / 100)};
  if (i % 16 == 15) return {position, Digest{mix(i) * 31}};
  if (i % 2 == 0) return {position, Gain{Ticket(i * 3 + mix(i) % 3), Right::kWrite, {step}}};
  return {position, Loss{Ticket(i * 3 + mix(i) % 3), Right::kNone, step}};
}

Event time_event(uint64_t i) {
  return {{i, Ticks(i * 2000 + mix(i) % 300)}, Value{Source::kTime, i * 25000 + mix(i) % 9000}};
}

Event digest_event(uint64_t i) {
  return {{i, Ticks(i * 2000 + mix(i) % 300)}, Digest{mix(i) * 31}};
}

Event interrupt_event(uint64_t i) {
  return {{i * 7, Ticks(i * 100'000 + mix(i) % 5000)}, ApicMessage{ApicMessageKind::kTimer, 0}};
}

using Make = Event (*)(uint64_t);

void append(benchmark::State& state, Make make) {
  const TemporaryFolder folder;
  auto writer = *RecordingWriter::create(folder / "r", sample_manifest(1), {});
  VcpuLogWriter& log = writer->vcpu(VcpuId(0));
  uint64_t i = 0;
  for ([[maybe_unused]] auto _ : state) log.append(make(i++));
  state.counters["events"] = benchmark::Counter(static_cast<double>(i), benchmark::Counter::kIsRate);
  writer.reset();
  state.counters["file_B_per_event"] =
      static_cast<double>(read_bytes(folder / "r/vcpu-0.log").size()) / static_cast<double>(i);
}
BENCHMARK_CAPTURE(append, sharing, sharing_event)->Iterations(2'000'000);
BENCHMARK_CAPTURE(append, time, time_event)->Iterations(2'000'000);
BENCHMARK_CAPTURE(append, digest, digest_event)->Iterations(2'000'000);
BENCHMARK_CAPTURE(append, interrupt, interrupt_event)->Iterations(2'000'000);

void make_only(benchmark::State& state, Make make) {
  uint64_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    Event event = make(i++);
    benchmark::DoNotOptimize(event);
  }
}
BENCHMARK_CAPTURE(make_only, sharing, sharing_event)->Iterations(2'000'000);
BENCHMARK_CAPTURE(make_only, time, time_event)->Iterations(2'000'000);

void append_alone(benchmark::State& state) {
  WakeUp wake_up;
  EventQueue queue(wake_up, 64 << 20);
  std::vector<Event> taken;
  uint64_t i = 0;
  for ([[maybe_unused]] auto _ : state) {
    queue.append(time_event(i++));
    if (i % 4096 != 0) continue;
    queue.take(taken);
    taken.clear();
  }
}
BENCHMARK(append_alone);

void encode_and_write(benchmark::State& state, Make make) {
  std::vector<Event> events;
  for (uint64_t i = 0; i < 200'000; ++i) events.push_back(make(i));
  for ([[maybe_unused]] auto _ : state) {
    const TemporaryFolder folder;
    auto writer = *BlockWriter::create(folder / "", VcpuId(0));
    BlockEncoder encoder;
    uint64_t raw = 0;
    for (const Event& event : events) {
      raw += encoder.add(event);
      if (encoder.bytes() >= static_cast<size_t>(state.range(0))) (void)writer->write(encoder);
    }
    if (encoder.count() > 0) (void)writer->write(encoder);
    const auto count = static_cast<double>(events.size());
    state.counters["raw_B_per_event"] = static_cast<double>(raw) / count;
    state.counters["file_B_per_event"] = static_cast<double>(writer->bytes_written()) / count;
  }
  state.SetItemsProcessed(static_cast<int64_t>(events.size()) * state.iterations());
}
BENCHMARK_CAPTURE(encode_and_write, sharing, sharing_event)->Arg(16 << 10)->Arg(64 << 10)->Arg(256 << 10);
BENCHMARK_CAPTURE(encode_and_write, time, time_event)->Arg(64 << 10);
BENCHMARK_CAPTURE(encode_and_write, digest, digest_event)->Arg(64 << 10);
BENCHMARK_CAPTURE(encode_and_write, interrupt, interrupt_event)->Arg(64 << 10);

void read(benchmark::State& state, Make make) {
  const TemporaryFolder folder;
  const uint64_t count = 200'000;
  {
    auto writer = *RecordingWriter::create(folder / "r", sample_manifest(1), {});
    for (uint64_t i = 0; i < count; ++i) writer->vcpu(VcpuId(0)).append(make(i));
  }
  for ([[maybe_unused]] auto _ : state) {
    auto reader = *BlockReader::open(folder / "r", VcpuId(0));
    std::vector<Event> events;
    while (reader->next(events).value_or(false)) benchmark::DoNotOptimize(events.data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(count) * state.iterations());
}
BENCHMARK_CAPTURE(read, sharing, sharing_event);
BENCHMARK_CAPTURE(read, time, time_event);

}  // namespace
}  // namespace reprise::log

BENCHMARK_MAIN();
