// A call that survives an exception, as a thread does that has an exit handler.
#pragma once

#include <stdint.h>

namespace reprise::guest {

// Calls function(argument). 0 when it returned; else 1 + the vector of the exception that ended it where it
// was: what it held it holds, no destructor ran. Not to be nested.
extern "C" uint64_t guarded_call(void (*function)(void*), void* argument);

}  // namespace reprise::guest
