/* fsync and fdatasync that fail with EIO for the files whose path contains the text that is in the
   file named by FAIL_SYNC. Loaded with LD_PRELOAD into the process under test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    const char *control = getenv("FAIL_SYNC");
    char pattern[256], link[64], path[4096];
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, pattern, sizeof pattern - 1);
    close(file);
    if (length <= 0) return 0;
    pattern[length] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strstr(path, pattern) != NULL;
}

static int synced(const char *call, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    return real(fd);
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
