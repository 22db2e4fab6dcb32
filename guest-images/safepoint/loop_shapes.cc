// Every shape of loop that could slip through, for check_safepoints to look at. Compiled, never run.
extern volatile int source;
extern "C" void use(int);

void empty_loop() {
  for (;;) {
  }
}

void spin_on_one_block() {
  while (source) {
  }
}

void nested(int n) {
  for (int i = 0; i < n; ++i) {
    for (int j = i; j < n; ++j) use(source);
  }
}

// Two entries into one cycle: no loop in the compiler's sense.
void irreducible(int n) {
  if (n > 3) goto second;
first:
  use(source);
second:
  if (source) goto first;
  if (source > 2) goto second;
}

// Several cases go back to the same place.
void switch_back(int n) {
again:
  switch (source) {
    case 1:
    case 2:
    case 77:
      goto again;
    case 5:
      use(n);
      goto again;
    default:
      return;
  }
}

// Jumps through a register: the edges cannot be split.
void computed_goto(const int* program) {
  static const void* const targets[] = {&&add, &&print, &&stop};
  int sum = 0;
  goto* targets[*program++];
add:
  sum += source;
  goto* targets[*program++];
print:
  use(sum);
  goto* targets[*program++];
stop:
  return;
}

int tail_recursion(int n, int sum) {
  return n == 0 ? sum : tail_recursion(n - 1, sum + source);
}

int even(int n);
int odd(int n) {
  return source ? 0 : even(n - 1);
}
int even(int n) {
  return source ? 1 : odd(n - 1);
}

void loop_of_calls(void (*function)()) {
  do function();
  while (source);
}

void copy(char* to, const char* from, int n) {
  for (int i = 0; i < n; ++i) to[i] = from[i];
}
