// LD_PRELOAD: does to the process what a host that is short of memory does: every RECLAIM_US microseconds all
// mappings of guest memory lose their pages, which stay where they are (in the memfd). KVM is told as it is
// told of reclaim (MMU notifier). mmap() waits meanwhile: private pages that a vCPU is given over a part of
// guest memory while the list is read would be dropped, too, and they are in no file.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mapping = PTHREAD_MUTEX_INITIALIZER;

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  pthread_mutex_lock(&mapping);
  const long at = syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
  pthread_mutex_unlock(&mapping);
  return (void*)at;
}

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
    pthread_mutex_lock(&mapping);
    drop_mappings();
    pthread_mutex_unlock(&mapping);
  }
  return NULL;
}

__attribute__((constructor)) static void start(void) {
  const char* text = getenv("RECLAIM_US");
  pthread_t thread;
  if (text != NULL) pthread_create(&thread, NULL, reclaim, (void*)(size_t)atol(text));
}
