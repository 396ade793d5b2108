/* Keeps a core awake, and ends with its parent: to be run at the lowest priority, on one core. */
#include <signal.h>
#include <sys/prctl.h>

int main(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (;;) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
}
