/* What the parts of the writer share. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>


/* tree.c: chance, what is said, manifests, names, planting. */
extern uint64_t state;
uint64_t chance(void);
unsigned below(unsigned n);
void add(const char *format, ...);
void add_hex(const char *text);
void flush(void);
extern uint64_t manifest_sum;
extern unsigned manifest_count;
void manifest(const char *root, int print);
char *fresh(const char *dir);
void plant(const char *dir, unsigned uid, int depth);

/* targets.c: files, directories (empty ones once more by themselves) and symlinks to change. */
enum { FILES, DIRS, EMPTY, LINKS, KINDS };
extern char *found[KINDS][4096];
extern unsigned count[KINDS];
void remember(int kind, const char *path);
void collect(const char *dir);
char *take(int kind);
char *any_dir(void);
char *new_path(void);

/* ops.c: one random operation by `user`; 0, or the errno of the step that failed (ENOENT: nothing here to do it to). */
extern unsigned user;
extern const char *doing;
int any_op(void);
/* Another group of the user's: giving a file to it is the one chown that an unprivileged process may do. */
#define GROUP 2000
