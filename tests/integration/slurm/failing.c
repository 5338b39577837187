/* A SPANK plugin that fails where its control file says, on the node's side alone.
 *
 *   plugstack.conf:   required /path/failing.so /path/control
 *   control:          the name of a callback (without slurm_spank_), or exit: then task_init ends the task with 77
 */
#include <slurm/spank.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

SPANK_PLUGIN(failing, 1);

static char control[4096];

static void wanted(char *name, size_t size) {
    FILE *file = fopen(control, "r");
    name[0] = 0;
    if (!file) return;
    if (fgets(name, size, file)) name[strcspn(name, "\n")] = 0;
    fclose(file);
}

static int result(spank_t spank, const char *callback) {
    char name[64];
    if (spank_remote(spank) != 1) return 0;
    wanted(name, sizeof name);
    if (strcmp(callback, "task_init") == 0 && strcmp(name, "exit") == 0) {
        slurm_spank_log("failing: leaving with 77");
        _exit(77);
    }
    return strcmp(name, callback) == 0 ? -1 : 0;
}

int slurm_spank_init(spank_t spank, int count, char **words) {
    if (count > 0) snprintf(control, sizeof control, "%s", words[0]);
    return result(spank, "init");
}
#define CALLBACK(name) \
    int slurm_spank_##name(spank_t spank, int count, char **words) { \
        (void)count; (void)words; \
        return result(spank, #name); \
    }
CALLBACK(init_post_opt)
CALLBACK(user_init)
CALLBACK(task_init_privileged)
CALLBACK(task_init)
CALLBACK(task_post_fork)
CALLBACK(task_exit)
