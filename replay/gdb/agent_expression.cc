#include "replay/gdb/agent_expression.h"

#include <array>
#include <limits>
#include <utility>

namespace reprise::replay::gdb {
namespace {

// GDB's conditions have no loops and nest as deep as their source; both bounds are for hostile code.
constexpr unsigned kMaxInstructions = 4096;
constexpr size_t kMaxDepth = 128;

// F.2, "Bytecode Descriptions".
enum class Op : uint8_t {
  kAdd = 0x02,
  kSub = 0x03,
  kMul = 0x04,
  kDivSigned = 0x05,
  kDivUnsigned = 0x06,
  kRemSigned = 0x07,
  kRemUnsigned = 0x08,
  kLsh = 0x09,
  kRshSigned = 0x0a,
  kRshUnsigned = 0x0b,
  kLogNot = 0x0e,
  kBitAnd = 0x0f,
  kBitOr = 0x10,
  kBitXor = 0x11,
  kBitNot = 0x12,
  kEqual = 0x13,
  kLessSigned = 0x14,
  kLessUnsigned = 0x15,
  kExt = 0x16,
  kRef8 = 0x17,
  kRef16 = 0x18,
  kRef32 = 0x19,
  kRef64 = 0x1a,
  kIfGoto = 0x20,
  kGoto = 0x21,
  kConst8 = 0x22,
  kConst16 = 0x23,
  kConst32 = 0x24,
  kConst64 = 0x25,
  kReg = 0x26,
  kEnd = 0x27,
  kDup = 0x28,
  kPop = 0x29,
  kZeroExt = 0x2a,
  kSwap = 0x2b,
  kPick = 0x32,
  kRot = 0x33,
};

constexpr int64_t as_signed(uint64_t value) {
  return static_cast<int64_t>(value);
}

// The lowest `bits` of `value`, the others zeros or copies of the highest of them. All of it for 64 and more;
// GDB has no use for 0.
uint64_t extend(uint64_t value, unsigned bits, bool with_sign) {
  if (bits == 0 || bits >= 64) return value;
  const uint64_t mask = (1ull << bits) - 1;
  value &= mask;
  return with_sign && (value >> (bits - 1)) != 0 ? value | ~mask : value;
}

uint64_t shift(Op op, uint64_t value, uint64_t count) {
  const bool negative = op == Op::kRshSigned && as_signed(value) < 0;
  if (count >= 64) return negative ? ~0ull : 0;
  if (op == Op::kLsh) return value << count;
  return op == Op::kRshSigned ? static_cast<uint64_t>(as_signed(value) >> count) : value >> count;
}

Result<uint64_t> divide(Op op, uint64_t a, uint64_t b) {
  if (b == 0) return fail(ErrorCode::kUsage, "division by zero in a condition");
  const bool overflow = as_signed(a) == std::numeric_limits<int64_t>::min() && as_signed(b) == -1;
  switch (op) {
    case Op::kDivSigned:
      return overflow ? a : static_cast<uint64_t>(as_signed(a) / as_signed(b));
    case Op::kRemSigned:
      return overflow ? 0 : static_cast<uint64_t>(as_signed(a) % as_signed(b));
    case Op::kDivUnsigned:
      return a / b;
    default:
      return a % b;
  }
}

class Machine {
 public:
  Machine(std::span<const uint8_t> code, const ExpressionContext& context) : code_(code), context_(context) {}

  Result<uint64_t> run() {
    for (unsigned count = 0; count < kMaxInstructions; ++count) {
      TRY_ASSIGN(const uint64_t op, operand(1));
      if (static_cast<Op>(op) == Op::kEnd) return pop();
      TRY(execute(static_cast<Op>(op)));
    }
    return fail(ErrorCode::kUsage, "a condition that runs for more than {} instructions", kMaxInstructions);
  }

 private:
  Status execute(Op op) {
    switch (op) {
      case Op::kExt:
      case Op::kZeroExt:
      case Op::kLogNot:
      case Op::kBitNot:
        return unary(op);
      case Op::kRef8:
        return load(1);
      case Op::kRef16:
        return load(2);
      case Op::kRef32:
        return load(4);
      case Op::kRef64:
        return load(8);
      case Op::kIfGoto:
      case Op::kGoto:
        return jump(op == Op::kIfGoto);
      case Op::kConst8:
        return push(operand(1));
      case Op::kConst16:
        return push(operand(2));
      case Op::kConst32:
        return push(operand(4));
      case Op::kConst64:
        return push(operand(8));
      case Op::kReg: {
        TRY_ASSIGN(const uint64_t number, operand(2));
        return push(context_.register_value(static_cast<uint32_t>(number)));
      }
      case Op::kDup:
      case Op::kPick:
      case Op::kSwap:
      case Op::kRot:
      case Op::kPop:
        return rearrange(op);
      default:
        return binary(op);
    }
  }

  Status unary(Op op) {
    uint64_t bits = 0;
    if (op == Op::kExt || op == Op::kZeroExt) {
      TRY_ASSIGN(bits, operand(1));
    }
    TRY_ASSIGN(const uint64_t value, pop());
    if (op == Op::kLogNot) return push(value == 0 ? 1 : 0);
    if (op == Op::kBitNot) return push(~value);
    return push(extend(value, static_cast<unsigned>(bits), op == Op::kExt));
  }

  Status binary(Op op) {
    TRY_ASSIGN(const uint64_t b, pop());
    TRY_ASSIGN(const uint64_t a, pop());
    switch (op) {
      case Op::kAdd:
        return push(a + b);
      case Op::kSub:
        return push(a - b);
      case Op::kMul:
        return push(a * b);
      case Op::kDivSigned:
      case Op::kDivUnsigned:
      case Op::kRemSigned:
      case Op::kRemUnsigned:
        return push(divide(op, a, b));
      case Op::kLsh:
      case Op::kRshSigned:
      case Op::kRshUnsigned:
        return push(shift(op, a, b));
      case Op::kBitAnd:
        return push(a & b);
      case Op::kBitOr:
        return push(a | b);
      case Op::kBitXor:
        return push(a ^ b);
      case Op::kEqual:
        return push(a == b ? 1 : 0);
      case Op::kLessSigned:
        return push(as_signed(a) < as_signed(b) ? 1 : 0);
      case Op::kLessUnsigned:
        return push(a < b ? 1 : 0);
      default:
        return fail(ErrorCode::kUsage, "a condition with the unsupported bytecode {:#x}",
                    static_cast<unsigned>(op));
    }
  }

  Status rearrange(Op op) {
    uint64_t from_top = 0;
    if (op == Op::kPick) {
      TRY_ASSIGN(from_top, operand(1));
    }
    const size_t needed = op == Op::kSwap ? 2 : op == Op::kRot ? 3 : from_top + 1;
    if (needed > depth_)
      return fail(ErrorCode::kUsage, "a condition that takes more from its stack than is there");
    uint64_t* const top = &stack_[depth_ - 1];
    switch (op) {
      case Op::kSwap:
        std::swap(top[0], top[-1]);
        return {};
      case Op::kRot: {  // a b c => c a b
        const uint64_t c = top[0];
        top[0] = top[-1];
        top[-1] = top[-2];
        top[-2] = c;
        return {};
      }
      case Op::kPop:
        --depth_;
        return {};
      default:
        return push(stack_[depth_ - needed]);
    }
  }

  Status load(size_t bytes) {
    TRY_ASSIGN(const uint64_t address, pop());
    std::array<uint8_t, 8> data = {};
    TRY(context_.read(Gva(address), std::span(data).first(bytes)));
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(data[i]) << (8 * i);
    return push(value);
  }

  Status jump(bool conditional) {
    TRY_ASSIGN(const uint64_t target, operand(2));
    if (conditional) {
      TRY_ASSIGN(const uint64_t value, pop());
      if (value == 0) return {};
    }
    next_ = target;
    return {};
  }

  // The next `bytes` of the code, highest first.
  Result<uint64_t> operand(size_t bytes) {
    if (next_ > code_.size() || bytes > code_.size() - next_)
      return fail(ErrorCode::kUsage, "a condition whose code ends too early");
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value = value << 8 | code_[next_++];
    return value;
  }

  Status push(const Result<uint64_t>& value) {
    TRY(value);
    if (depth_ == kMaxDepth)
      return fail(ErrorCode::kUsage, "a condition that needs more than {} values on its stack", kMaxDepth);
    stack_[depth_++] = *value;
    return {};
  }

  Result<uint64_t> pop() {
    if (depth_ == 0)
      return fail(ErrorCode::kUsage, "a condition that takes more from its stack than is there");
    return stack_[--depth_];
  }

  std::span<const uint8_t> code_;
  const ExpressionContext& context_;
  size_t next_ = 0;
  std::array<uint64_t, kMaxDepth> stack_ = {};
  size_t depth_ = 0;
};

}  // namespace

Result<uint64_t> evaluate(std::span<const uint8_t> code, const ExpressionContext& context) {
  if (code.size() > kMaxExpressionBytes)
    return fail(ErrorCode::kUsage, "a condition of {} bytes; at most {}", code.size(), kMaxExpressionBytes);
  return Machine(code, context).run();
}

}  // namespace reprise::replay::gdb
