// Numbers of the local APIC in xAPIC mode. Source: Intel SDM vol. 3, chapter 11 "APIC" (table 11-1: offsets).
#pragma once

#include <cstdint>

namespace reprise::vmm::apic {

inline constexpr uint64_t kId = 0x020;
inline constexpr uint64_t kVersion = 0x030;
inline constexpr uint64_t kTaskPriority = 0x080;
inline constexpr uint64_t kArbitrationPriority = 0x090;
inline constexpr uint64_t kProcessorPriority = 0x0a0;
inline constexpr uint64_t kEndOfInterrupt = 0x0b0;
inline constexpr uint64_t kRemoteRead = 0x0c0;
inline constexpr uint64_t kLogicalDestination = 0x0d0;
inline constexpr uint64_t kDestinationFormat = 0x0e0;
inline constexpr uint64_t kSpuriousVector = 0x0f0;
inline constexpr uint64_t kInService = 0x100;    // 8 registers, 0x10 apart
inline constexpr uint64_t kTriggerMode = 0x180;  // 8 registers
inline constexpr uint64_t kRequested = 0x200;    // 8 registers
inline constexpr uint64_t kErrorStatus = 0x280;
inline constexpr uint64_t kCommandLow = 0x300;
inline constexpr uint64_t kCommandHigh = 0x310;
inline constexpr uint64_t kLvtFirst = 0x320;  // timer, thermal, performance, LINT0, LINT1, error
inline constexpr uint64_t kLvtLast = 0x370;
inline constexpr uint64_t kTimerInitial = 0x380;
inline constexpr uint64_t kTimerCurrent = 0x390;
inline constexpr uint64_t kTimerDivide = 0x3e0;

inline constexpr uint32_t kBroadcast = 0xff;  // a destination: 11.6.2.1

// 11.4.8: version 0x14 (integrated APIC), highest LVT entry 5, no suppression of EOI broadcasts.
inline constexpr uint32_t kVersionValue = 5u << 16 | 0x14;

inline constexpr uint32_t kSoftwareEnable = 1u << 8;  // SVR, 11.9
inline constexpr uint32_t kSpuriousBits = 0x3ff;      // SVR: vector, enable, focus check
inline constexpr uint32_t kLvtMasked = 1u << 16;      // 11.5.1
inline constexpr uint32_t kTimerPeriodic = 1u << 17;  // 11.5.4
inline constexpr uint32_t kTimerDivideBits = 0xb;     // bits 0, 1, 3
inline constexpr uint8_t kFirstLegalVector = 16;      // 11.5.2

// ICR, 11.6.1.
inline constexpr uint32_t kCommandBits = 0xccfff;  // all but the delivery status, which always reads "idle"
inline constexpr uint32_t kLogicalMode = 1u << 11;
inline constexpr uint32_t kLevelAssert = 1u << 14;
inline constexpr uint32_t kLevelTriggered = 1u << 15;
enum class Delivery : uint8_t { kFixed = 0, kLowestPriority = 1, kNmi = 4, kInit = 5, kStartup = 6 };
enum class Shorthand : uint8_t { kNone = 0, kSelf = 1, kAll = 2, kOthers = 3 };

// ESR, 11.5.3.
inline constexpr uint32_t kSendIllegalVector = 1u << 5;
inline constexpr uint32_t kReceiveIllegalVector = 1u << 6;
inline constexpr uint32_t kIllegalRegister = 1u << 7;

}  // namespace reprise::vmm::apic
