/* pivot [-u] ROOT COMMAND… - the least that a container start can be: clone3 with new mount, pid, ipc and uts namespaces
 * (and a user namespace with -u), a bind of ROOT, /proc, pivot_root, exec. The measure for our own launcher. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long result, const char *what) {
    if (result >= 0) return;
    perror(what);
    _exit(125);
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    check(fd, path);
    check(write(fd, text, strlen(text)), path);
    close(fd);
}

static void enter(const char *root, char **command, const char *uid_map, const char *gid_map) {
    if (uid_map) {
        put("/proc/self/setgroups", "deny");
        put("/proc/self/uid_map", uid_map);
        put("/proc/self/gid_map", gid_map);
    }
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    check(mount(root, root, NULL, MS_BIND | MS_REC, NULL), "bind the root");
    check(chdir(root), "chdir to the root");
    check(mount("proc", "proc", "proc", 0, NULL), "mount proc");
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "unmount the old root");
    check(chdir("/"), "chdir /");
    execv(command[0], command);
    perror("exec");
    _exit(127);
}

int main(int argc, char **argv) {
    int user = argc > 1 && strcmp(argv[1], "-u") == 0;
    argv += 1 + user;
    if (argc < 3 + user) return 2;
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof uid_map, "0 %d 1\n", getuid());
    snprintf(gid_map, sizeof gid_map, "0 %d 1\n", getgid());
    struct clone_args how = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (user ? CLONE_NEWUSER : 0),
        .exit_signal = SIGCHLD,
    };
    long child = syscall(SYS_clone3, &how, sizeof how);
    check(child, "clone3");
    if (child == 0) enter(argv[0], argv + 1, user ? uid_map : NULL, gid_map);
    int status;
    check(waitpid(child, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
