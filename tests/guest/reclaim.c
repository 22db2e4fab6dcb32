// LD_PRELOAD: does to the process what a host that is short of memory does: every RECLAIM_US microseconds all
// mappings of guest memory lose their pages, which stay where they are (in the memfd). KVM is told as it is told
// of reclaim (MMU notifier).
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void drop_mappings(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  if (maps == NULL) return;
  char line[512];
  while (fgets(line, sizeof line, maps) != NULL) {
    unsigned long begin = 0, end = 0;
    if (strstr(line, "memfd:guest-ram") == NULL || sscanf(line, "%lx-%lx", &begin, &end) != 2) continue;
    madvise((void*)begin, end - begin, MADV_DONTNEED);
  }
  fclose(maps);
}

static void* reclaim(void* microseconds) {
  for (;;) {
    usleep((useconds_t)(size_t)microseconds);
    drop_mappings();
  }
  return NULL;
}

__attribute__((constructor)) static void start(void) {
  const char* text = getenv("RECLAIM_US");
  pthread_t thread;
  if (text != NULL) pthread_create(&thread, NULL, reclaim, (void*)(size_t)atol(text));
}
