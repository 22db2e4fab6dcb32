// Clang plugin: puts a safepoint at every function entry and on every loop back-edge.
//
// A safepoint is one tick of the vCPU's software clock, and the place where a VMM can stop the vCPU:
//
//     movq  CLOCK, %r          count, which the guest alone writes
//     incq  %r
//     movq  %r, CLOCK
//     cmpq  CLOCK+8, %r        limit, which the VMM alone writes
//     jb    1f
//     movl  $TRAP, %r32
//     cmpq  %r, %r
//     movl  $0, (%r)           the stop
//     movq  CLOCK, %r
// 1:  cmpq  %r, %r
//
// Whether it stops is the VMM's choice, and may differ between a recording and its replay, as may limit. So
// nothing of that may stay behind: afterwards %r is count and the flags are those of "equal", stopped or not;
// and at the stop itself, where an interrupt may push the flags, they are the same ones already. And nothing
// between the count and the stop may need a page that counting did not need: the fault would be a stop that a
// replay does not make. So all of it lies in one page.
//
// It is one block of assembler rather than IR, so that every safepoint is the same instructions in
// the same order: count is stored before limit is read, and a stop has one exact place. Absolute
// addresses below 2 GiB encode without a base register, and nothing is called. It does not claim to
// change memory, although it does: the program never touches the clock page, so its values may stay
// in registers (with that claim, fft took half as long again).
//
// Every cycle in the flow graph holds an edge that goes back to a block on the depth-first search's
// stack, whatever the shape of the cycle (irreducible ones too); so these edges are where to put it.
// It runs last in the optimizer: loops that were unrolled or deleted by then pay less or nothing. Before that
// it unrolls the innermost loops: in a short one the chain from one count to the next, through memory, is
// most of what an iteration takes.
//
// A function that calls none needs no safepoint at its entry: no recursion goes through it.
//
// Not covered: functions with the annotation "no_safepoint" ([[clang::annotate("no_safepoint")]]), assembler,
// and the retry loops that code generation makes of some atomic operations (check_safepoints finds those).
#include <algorithm>
#include <string>
#include <utility>

#include "kernel/layout.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Analysis/AssumptionCache.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/Analysis/OptimizationRemarkEmitter.h"
#include "llvm/Analysis/ScalarEvolution.h"
#include "llvm/Analysis/TargetTransformInfo.h"
#include "llvm/IR/CFG.h"
#include "llvm/IR/Constants.h"
#include "llvm/IR/Dominators.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Passes/PassPlugin.h"
#include "llvm/Transforms/Utils/LCSSA.h"
#include "llvm/Transforms/Utils/LoopSimplify.h"
#include "llvm/Transforms/Utils/UnrollLoop.h"

namespace {

// An edge, as a successor number of its block's terminator.
struct Edge {
  llvm::BasicBlock* from;
  unsigned successor;
};

// The safepoint itself.
void insert_safepoint(llvm::Instruction* before) {
  const std::string count = std::to_string(CLOCK_PAGE), limit = std::to_string(CLOCK_PAGE + 8);
  // At most 64 bytes: where fewer are left of the page, it begins in the next one.
  const std::string text = ".p2align 12, , 63\n\tmovq " + count + ", $0\n\tincq $0\n\tmovq $0, " + count +
                           "\n\tcmpq " + limit + ", $0\n\tjb 1f\n\tmovl $$" + std::to_string(TRAP_PAGE) +
                           ", ${0:k}\n\tcmpq $0, $0\n\tmovl $$0, ($0)\n\tmovq " + count +
                           ", $0\n1:\tcmpq $0, $0";
  llvm::IRBuilder<> builder(before);
  auto* type = llvm::FunctionType::get(builder.getInt64Ty(), false);
  auto* safepoint =
      llvm::InlineAsm::get(type, text, "=&r,~{flags},~{dirflag},~{fpsr}", /*hasSideEffects=*/true);
  builder.CreateCall(type, safepoint)->setDoesNotThrow();
}

// The edges that close a cycle: those to a block that the depth-first search has entered and not left.
llvm::SmallVector<Edge, 8> back_edges(llvm::Function& function) {
  enum State { kNew, kOnStack, kDone };
  llvm::DenseMap<llvm::BasicBlock*, State> state;
  llvm::SmallVector<Edge, 16> stack;  // the block and the next successor to look at
  llvm::SmallVector<Edge, 8> found;
  stack.push_back({&function.getEntryBlock(), 0});
  state[stack.back().from] = kOnStack;
  while (!stack.empty()) {
    Edge& top = stack.back();
    llvm::Instruction* terminator = top.from->getTerminator();
    if (top.successor == terminator->getNumSuccessors()) {
      state[top.from] = kDone;
      stack.pop_back();
      continue;
    }
    const Edge edge{top.from, top.successor++};
    llvm::BasicBlock* to = terminator->getSuccessor(edge.successor);
    if (state[to] == kOnStack) found.push_back(edge);
    if (state[to] == kNew) {
      state[to] = kOnStack;
      stack.push_back({to, 0});
    }
  }
  return found;
}

// A new block on the edge, or the end of its first block where the edge has no place of its own: the
// only way out, or a jump through a register. (Then it ticks on the other edges of that block as well.)
llvm::Instruction* place_on(const Edge& edge) {
  llvm::Instruction* terminator = edge.from->getTerminator();
  if (terminator->getNumSuccessors() == 1 || !llvm::isa<llvm::BranchInst, llvm::SwitchInst>(terminator))
    return terminator;
  llvm::BasicBlock* to = terminator->getSuccessor(edge.successor);
  auto* middle = llvm::BasicBlock::Create(to->getContext(), "safepoint", to->getParent(), to);
  auto* jump = llvm::BranchInst::Create(to, middle);
  jump->setDebugLoc(terminator->getDebugLoc());
  terminator->setSuccessor(edge.successor, middle);
  // One incoming value of each phi came along this very edge; a switch may have several equal edges.
  for (llvm::PHINode& phi : to->phis()) phi.setIncomingBlock(phi.getBasicBlockIndex(edge.from), middle);
  return jump;
}

// A call of a function; not an intrinsic, nor a piece of assembler.
bool is_call(const llvm::Instruction& instruction) {
  const auto* call = llvm::dyn_cast<llvm::CallBase>(&instruction);
  return call && !call->isInlineAsm() && !llvm::isa<llvm::IntrinsicInst>(call);
}

template <typename Blocks>
bool has_call(const Blocks& blocks) {
  for (const auto& block : blocks)
    for (const llvm::Instruction& instruction : block)
      if (is_call(instruction)) return true;
  return false;
}

class UnrollInnermostLoops : public llvm::PassInfoMixin<UnrollInnermostLoops> {
 public:
  llvm::PreservedAnalyses run(llvm::Function& function, llvm::FunctionAnalysisManager& analyses) {
    auto& loops = analyses.getResult<llvm::LoopAnalysis>(function);
    auto& tree = analyses.getResult<llvm::DominatorTreeAnalysis>(function);
    auto& evolution = analyses.getResult<llvm::ScalarEvolutionAnalysis>(function);
    auto& assumptions = analyses.getResult<llvm::AssumptionAnalysis>(function);
    auto& target = analyses.getResult<llvm::TargetIRAnalysis>(function);
    auto& remarks = analyses.getResult<llvm::OptimizationRemarkEmitterAnalysis>(function);
    bool changed = false;
    for (llvm::Loop* loop : loops.getLoopsInPreorder()) {
      const unsigned times = copies(*loop);
      if (times < 2) continue;
      const llvm::UnrollLoopOptions options{times,
                                            /*Force=*/true,
                                            /*Runtime=*/false,
                                            /*AllowExpensiveTripCount=*/false,
                                            /*UnrollRemainder=*/false,
                                            /*ForgetAllSCEV=*/true};
      changed |= llvm::UnrollLoop(loop, options, &loops, &evolution, &tree, &assumptions, &target, &remarks,
                                  /*PreserveLCSSA=*/true) != llvm::LoopUnrollResult::Unmodified;
    }
    return changed ? llvm::PreservedAnalyses::none() : llvm::PreservedAnalyses::all();
  }

  static bool isRequired() { return true; }

 private:
  static constexpr unsigned kMostCopies = 8;
  static constexpr unsigned kMostInstructions = 320;  // of all copies together

  // Fewer than two: not this one. What a loop calls has safepoints of its own.
  static unsigned copies(const llvm::Loop& loop) {
    if (!loop.isInnermost()) return 0;
    unsigned instructions = 0;
    for (const llvm::BasicBlock* block : loop.blocks()) {
      instructions += block->sizeWithoutDebug();
      for (const llvm::Instruction& instruction : *block)
        if (is_call(instruction)) return 0;
    }
    return std::min(kMostCopies, kMostInstructions / std::max(1u, instructions));
  }
};

class InsertSafepoints : public llvm::PassInfoMixin<InsertSafepoints> {
 public:
  llvm::PreservedAnalyses run(llvm::Module& module, llvm::ModuleAnalysisManager&) {
    const llvm::SmallVector<llvm::Function*, 4> exempt = annotated(module);
    for (llvm::Function& function : module) {
      if (function.isDeclaration() || llvm::is_contained(exempt, &function)) continue;
      for (const Edge& edge : back_edges(function)) insert_safepoint(place_on(edge));
      if (has_call(function)) insert_safepoint(&*function.getEntryBlock().getFirstInsertionPt());
    }
    return llvm::PreservedAnalyses::none();
  }

  static bool isRequired() { return true; }

 private:
  // Functions with [[clang::annotate("no_safepoint")]].
  static llvm::SmallVector<llvm::Function*, 4> annotated(llvm::Module& module) {
    llvm::SmallVector<llvm::Function*, 4> found;
    const auto* all = module.getNamedGlobal("llvm.global.annotations");
    if (!all) return found;
    for (const llvm::Use& entry : llvm::cast<llvm::ConstantArray>(all->getInitializer())->operands()) {
      const auto* fields = llvm::cast<llvm::ConstantStruct>(entry.get());
      auto* function = llvm::dyn_cast<llvm::Function>(fields->getOperand(0)->stripPointerCasts());
      const auto* text = llvm::cast<llvm::GlobalVariable>(fields->getOperand(1)->stripPointerCasts());
      const auto* bytes = llvm::cast<llvm::ConstantDataArray>(text->getInitializer());
      if (function && bytes->getAsCString() == "no_safepoint") found.push_back(function);
    }
    return found;
  }
};

}  // namespace

extern "C" LLVM_ATTRIBUTE_WEAK llvm::PassPluginLibraryInfo llvmGetPassPluginInfo() {
  return {
      LLVM_PLUGIN_API_VERSION, "InsertSafepoints", "1", [](llvm::PassBuilder& builder) {
        builder.registerOptimizerLastEPCallback([](llvm::ModulePassManager& passes, llvm::OptimizationLevel) {
          llvm::FunctionPassManager unrolling;
          unrolling.addPass(llvm::LoopSimplifyPass());
          unrolling.addPass(llvm::LCSSAPass());
          unrolling.addPass(UnrollInnermostLoops());
          passes.addPass(llvm::createModuleToFunctionPassAdaptor(std::move(unrolling)));
          passes.addPass(InsertSafepoints());
        });
      }};
}
