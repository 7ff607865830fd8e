/* The writer of the storm: a static program that plants a tree, tells what is in one, and changes it in random ways.
 *
 *   storm plant DIR UID SEED    makes a tree of files of many kinds and names, owned by UID
 *   storm manifest DIR          prints a line for each file below DIR, the mounts of a container left out
 *   storm serve                 in a container: says `ready`, then obeys the lines on its stdin
 *
 * Lines that `serve` obeys: `manifest`; `run SEED UID` (one random sequence of operations by that user);
 * `remount` (everything that might make / writable). It says what it is about to do *before* it does it, since it is
 * killed for it: `op NAME PATH...`, paths in hex, the one that has to be told first. Every line of its own begins with a
 * newline and ends with ` .`, so that one that was cut short by the end is told from a whole one. */
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

/* ---- chance: splitmix64, so that a seed is a sequence on every machine ---- */

static uint64_t state;

static uint64_t chance(void) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

static unsigned below(unsigned n) { return chance() % n; }

/* ---- what is said ---- */

static char said[256 << 10];
static size_t said_len;

static void add(const char *format, ...) {
  va_list list;
  va_start(list, format);
  int n = vsnprintf(said + said_len, sizeof said - said_len, format, list);
  va_end(list);
  if (n < 0 || (size_t)n >= sizeof said - said_len) abort();
  said_len += n;
}

static void add_hex(const char *text) {
  for (; *text; text++) add("%02x", (unsigned char)*text);
}

static void flush(void) {
  for (size_t at = 0; at < said_len;) {
    ssize_t n = write(1, said + at, said_len - at);
    if (n < 0 && errno != EINTR) _exit(3);
    if (n > 0) at += n;
  }
  said_len = 0;
}

static const char *doing = "nothing";

/* Says what is about to change; the path that has to be told comes first. */
static void announce(const char *name, ...) {
  va_list list;
  va_start(list, name);
  doing = name;
  add("\nop %s", name);
  for (const char *path; (path = va_arg(list, const char *));) {
    add(" ");
    add_hex(path);
  }
  add(" .\n");
  va_end(list);
  flush();
}

/* ---- the manifest ---- */

static uint64_t fnv(uint64_t hash, const void *bytes, size_t len) {
  for (const unsigned char *b = bytes; len--; b++) hash = (hash ^ *b) * 0x100000001b3;
  return hash;
}

#define FNV 0xcbf29ce484222325

static uint64_t content(const char *path, const struct stat *st) {
  static char bytes[1 << 16];
  ssize_t n;
  uint64_t hash = FNV;
  if (S_ISLNK(st->st_mode)) {
    n = readlink(path, bytes, sizeof bytes);
    return n < 0 ? 0 : fnv(hash, bytes, n);
  }
  if (!S_ISREG(st->st_mode)) return 0;
  int fd = open(path, O_RDONLY | O_NOFOLLOW);
  if (fd < 0) return errno;
  while ((n = read(fd, bytes, sizeof bytes)) > 0) hash = fnv(hash, bytes, n);
  close(fd);
  return n < 0 ? (uint64_t)errno : hash;
}

static uint64_t attributes(const char *path) {
  static char names[1 << 16], value[1 << 16];
  ssize_t len = llistxattr(path, names, sizeof names);
  uint64_t sum = 0;
  for (ssize_t at = 0; at < len; at += strlen(names + at) + 1) {
    ssize_t n = lgetxattr(path, names + at, value, sizeof value);
    sum += fnv(fnv(FNV, names + at, strlen(names + at) + 1), value, n < 0 ? 0 : n);
  }
  return sum;
}

static uint64_t manifest_sum;
static unsigned manifest_count;

static void list_one(const char *path, size_t root, int print) {
  struct stat st;
  const char *name = path + root;
  if (!path[0]) path = "/";
  if (lstat(path, &st)) return;
  int dir = S_ISDIR(st.st_mode);
  size_t start = said_len;
  add("/");
  add_hex(name);
  /* A directory's size and links are the filesystem's own business. */
  add(" %o %u:%u %lld %u %ld.%09ld %lx %llx %llx", st.st_mode, st.st_uid, st.st_gid, dir ? 0 : (long long)st.st_size,
      dir ? 0 : (unsigned)st.st_nlink, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long)st.st_rdev,
      (unsigned long long)attributes(path), (unsigned long long)content(path, &st));
  manifest_sum += fnv(FNV, said + start, said_len - start);
  manifest_count++;
  if (print) add("\n"), flush();
  else said_len = start;
}

/* /proc, /dev and /sys are mounts in a container; what the image has there can't be seen. */
static void list_tree(const char *path, size_t root, int print) {
  static const char *const mounts[] = {"/proc", "/dev", "/sys"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(path + root, mounts[i])) return;
  list_one(path, root, print);
  DIR *dir = opendir(path[0] ? path : "/");
  if (!dir) return;
  for (struct dirent *e; (e = readdir(dir));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    char *name;
    if (asprintf(&name, "%s/%s", path, e->d_name) < 0) abort();
    struct stat st;
    if (!lstat(name, &st) && S_ISDIR(st.st_mode)) list_tree(name, root, print);
    else list_one(name, root, print);
    free(name);
  }
  closedir(dir);
}

static void manifest(const char *root, int print) {
  manifest_sum = manifest_count = 0;
  list_tree(root, strlen(root), print);
}

/* ---- names ---- */

static char *fresh(const char *dir) {
  unsigned n = chance();
  char name[256], *path;
  switch (below(12)) {
  case 0: sprintf(name, "new file %x", n); break;
  case 1: sprintf(name, "new\nline\n%x", n); break;
  case 2: sprintf(name, "\xff\xfe\x80%x", n); break;
  case 3: memset(name, 'L', 255); name[255] = 0; name[sprintf(name, "%08x", n)] = 'L'; break;
  case 4: sprintf(name, ".hidden-%x", n); break;
  case 5: sprintf(name, "#%x", n); break;
  case 6: sprintf(name, ".wh.%x", n); break;
  case 7: sprintf(name, "\xc3\xbcn\xc3\xaf-%x", n); break;
  case 8: sprintf(name, " \t\x01'\"$(id)\\%x ", n); break;
  default: sprintf(name, "new-%x", n);
  }
  if (asprintf(&path, "%s/%s", strcmp(dir, "/") ? dir : "", name) < 0) abort();
  return path;
}

/* ---- planting ---- */

static void check(int failed, const char *what) {
  if (failed) perror(what), exit(2);
}

static void age(const char *path) {
  struct timespec then = {1000000000 + below(500000000), below(1000000000)}, times[2] = {then, then};
  check(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), path);
}

static void plant(const char *dir, unsigned uid, int depth) {
  static const mode_t modes[] = {0644, 0600, 0755, 02755, 04755, 0666};
  static const unsigned sizes[] = {1, 40, 4096, 5000, 100000};
  static char bytes[100000];
  check(mkdir(dir, 0755) && errno != EEXIST, dir);
  for (int i = 0; i < 4; i++) {
    char *path = fresh(dir), *other = fresh(dir);
    unsigned size = sizes[below(5)];
    for (unsigned k = 0; k < size; k++) bytes[k] = chance();
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    check(fd < 0 || write(fd, bytes, size) != (ssize_t)size || fchown(fd, uid, uid) || fchmod(fd, modes[below(6)]), path);
    if (i == 0) check(fsetxattr(fd, "user.planted", "value", 5, 0), "setxattr");
    if (i == 1) check(link(path, other), "link");
    if (i == 2) check(symlink(path, other) || lchown(other, uid, uid), "symlink");
    if (i == 3) check(mkfifo(other, 0600) || lchown(other, uid, uid), "mkfifo");
    close(fd);
    age(path);
    if (i > 0) age(other);
    free(path);
    free(other);
  }
  for (int i = 0; i < 3; i++) {
    char *below_it = fresh(dir);
    if (i == 0 || depth == 0) check(mkdir(below_it, 0755) || chown(below_it, uid, uid), below_it), age(below_it);
    else plant(below_it, uid, depth - 1);
    free(below_it);
  }
  check(chown(dir, uid, uid), dir);
  age(dir);
}

/* ---- what there is to change ---- */

enum { FILES, DIRS, EMPTY, LINKS, KINDS };
static char *found[KINDS][4096];
static unsigned count[KINDS];

static void remember(int kind, const char *path) {
  if (count[kind] < 4096) found[kind][count[kind]++] = strdup(path);
}

static void collect(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) return;
  int any = 0;
  remember(DIRS, dir);
  for (struct dirent *e; (e = readdir(d));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    any = 1;
    char *path;
    struct stat st;
    if (asprintf(&path, "%s/%s", dir, e->d_name) < 0) abort();
    if (!lstat(path, &st)) {
      if (S_ISDIR(st.st_mode)) collect(path);
      else if (S_ISREG(st.st_mode) && st.st_size > 0) remember(FILES, path);
      else if (S_ISLNK(st.st_mode)) remember(LINKS, path);
    }
    free(path);
  }
  if (!any) remember(EMPTY, dir);
  closedir(d);
}

/* Taken out of the list, so that no two operations of a sequence meet at one path. */
static char *take(int kind) {
  if (!count[kind]) return NULL;
  unsigned at = below(count[kind]);
  char *path = found[kind][at];
  found[kind][at] = found[kind][--count[kind]];
  return path;
}

static char *any_dir(void) { return found[DIRS][below(count[DIRS])]; }

/* A directory that is sure to stay: no operation removes one that has something in it. */
static char *new_path(void) {
  for (;;) {
    char *dir = any_dir();
    int empty = 0;
    for (unsigned i = 0; i < count[EMPTY]; i++) empty |= dir == found[EMPTY][i] || !strcmp(dir, found[EMPTY][i]);
    if (!empty) return fresh(dir);
  }
}

/* ---- the operations: 0, or the errno of the step that failed ---- */

static unsigned user;
/* Another group of the user's: giving a file to it is the one chown that an unprivileged process may do. */
#define GROUP 2000
static const char TEXT[] = "not from the image";

#define TRY(call) do { if ((call) < 0) return errno; } while (0)
#define NEED(path) do { if (!(path)) return ENOENT; } while (0)

static int closed(int fd, int failed) {
  int code = failed ? errno : 0;
  close(fd);
  return code;
}

static int op_create(void) {
  char *path = new_path();
  announce("create", path, NULL);
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0640);
  TRY(fd);
  return closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
}

static int op_mkdir(void) {
  char *path = new_path();
  announce("mkdir", path, NULL);
  TRY(mkdir(path, 0750));
  return 0;
}

static int op_nested_create(void) {
  char *a = new_path(), *b = fresh(a), *c = fresh(b), *file = fresh(c);
  announce("nested-create", a, b, c, file, NULL);
  TRY(mkdir(a, 0755));
  TRY(mkdir(b, 0755));
  TRY(mkdir(c, 0755));
  int fd = open(file, O_CREAT | O_WRONLY, 0600);
  TRY(fd);
  return closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
}

static int written(const char *name, int flags, off_t at) {
  char *path = take(FILES);
  NEED(path);
  announce(name, path, NULL);
  int fd = open(path, flags);
  TRY(fd);
  if (at > 0 && lseek(fd, at, SEEK_SET) < 0) return closed(fd, 1);
  return closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
}

static int op_append(void) { return written("append", O_WRONLY | O_APPEND, 0); }
static int op_overwrite(void) { return written("overwrite", O_WRONLY | O_TRUNC, 0); }
static int op_write_within(void) { return written("write-within", O_RDWR, below(64)); }
static int op_write_synced(void) { return written("write-synced", O_RDWR | O_DSYNC, 0); }

static int op_mmap(void) {
  char *path = take(FILES);
  int hold = below(2);
  NEED(path);
  announce(hold ? "mmap-held" : "mmap", path, NULL);
  int fd = open(path, O_RDWR);
  TRY(fd);
  char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  int code = closed(fd, at == MAP_FAILED);
  if (code) return code;
  at[0] ^= 0x55;
  if (!hold) TRY(munmap(at, 4096));
  return 0;
}

static int op_truncate(void) {
  char *path = take(FILES);
  NEED(path);
  announce("truncate", path, NULL);
  TRY(truncate(path, below(2) ? 0 : 200000));
  return 0;
}

static int op_fallocate(void) {
  char *path = take(FILES);
  int mode = below(2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
  NEED(path);
  announce(mode ? "punch-hole" : "fallocate", path, NULL);
  int fd = open(path, O_RDWR);
  TRY(fd);
  return closed(fd, fallocate(fd, mode, 0, 8192) < 0);
}

static int op_rename(void) {
  char *old = take(FILES), *new = new_path();
  NEED(old);
  announce("rename", new, old, NULL);
  TRY(rename(old, new));
  return 0;
}

static int op_rename_over(void) {
  char *old = take(FILES), *new = take(FILES);
  NEED(old && new);
  struct stat a, b;
  /* rename(2) does nothing where both are names of one file. */
  if (!stat(old, &a) && !stat(new, &b) && a.st_ino == b.st_ino && a.st_dev == b.st_dev) return ENOENT;
  announce("rename-over", new, old, NULL);
  TRY(rename(old, new));
  return 0;
}

static int op_rename_link(void) {
  char *old = take(LINKS), *new = new_path();
  NEED(old);
  announce("rename-symlink", new, old, NULL);
  TRY(rename(old, new));
  return 0;
}

static int op_replace(void) {
  char *path = take(FILES), *temporary = new_path();
  NEED(path);
  announce("replace", path, temporary, NULL);
  int fd = open(temporary, O_CREAT | O_EXCL | O_WRONLY, 0644);
  TRY(fd);
  int code = closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
  if (code) return code;
  TRY(rename(temporary, path));
  return 0;
}

static int op_exchange(void) {
  char *a = take(FILES), *b = take(FILES);
  NEED(a && b);
  announce("exchange", a, b, NULL);
  TRY(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE));
  return 0;
}

static int op_link(void) {
  char *old = take(FILES), *new = new_path();
  NEED(old);
  announce("link", new, old, NULL);
  TRY(link(old, new));
  return 0;
}

static int op_symlink(void) {
  char *path = new_path();
  announce("symlink", path, NULL);
  TRY(symlink("/etc/passwd", path));
  return 0;
}

static int op_fifo(void) {
  char *path = new_path();
  announce("mknod-fifo", path, NULL);
  TRY(mknod(path, S_IFIFO | 0600, 0));
  return 0;
}

static int op_device(void) {
  if (user) return op_fifo();
  char *path = new_path();
  announce("mknod-device", path, NULL);
  TRY(mknod(path, S_IFCHR | 0600, makedev(1, 3)));
  return 0;
}

static int op_unlink(void) {
  char *path = take(below(4) ? FILES : LINKS);
  NEED(path);
  announce("unlink", path, NULL);
  TRY(unlink(path));
  return 0;
}

static int op_recreate(void) {
  char *path = take(FILES);
  NEED(path);
  announce("unlink-create", path, NULL);
  TRY(unlink(path));
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
  TRY(fd);
  return closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
}

static int op_rmdir(void) {
  char *path = take(EMPTY);
  NEED(path);
  announce("rmdir", path, NULL);
  TRY(rmdir(path));
  return 0;
}

static int op_rmdir_mkdir(void) {
  char *path = take(EMPTY);
  NEED(path);
  announce("rmdir-mkdir", path, NULL);
  TRY(rmdir(path));
  TRY(mkdir(path, 0700));
  return 0;
}

static int op_create_remove(void) {
  char *path = new_path();
  announce("create-unlink", path, NULL);
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
  TRY(fd);
  int code = closed(fd, write(fd, TEXT, sizeof TEXT) < 0);
  if (code) return code;
  TRY(unlink(path));
  return 0;
}

static char *file_or_dir(void) { return below(3) ? take(FILES) : any_dir(); }

static int op_chmod(void) {
  char *path = file_or_dir();
  struct stat st;
  NEED(path && !stat(path, &st));
  announce("chmod", path, NULL);
  TRY(chmod(path, (st.st_mode ^ 0111) & 07777));
  return 0;
}

static int op_chown(void) {
  char *path = file_or_dir();
  NEED(path);
  announce("chown", path, NULL);
  TRY(chown(path, user ? user : 33, user ? GROUP : 33));
  return 0;
}

static int op_lchown(void) {
  char *path = take(LINKS);
  NEED(path);
  announce("lchown", path, NULL);
  TRY(lchown(path, user ? user : 33, user ? GROUP : 33));
  return 0;
}

static int op_utimes(void) {
  char *path = file_or_dir();
  struct timespec times[2] = {{below(1000000000), 1}, {below(1000000000), 2}};
  int only = below(2);
  NEED(path);
  if (only) times[0].tv_nsec = UTIME_OMIT;
  struct stat st;
  announce(!stat(path, &st) && S_ISDIR(st.st_mode) ? "utimes-dir" : only ? "utimes-modified" : "utimes", path, NULL);
  TRY(utimensat(AT_FDCWD, path, times, 0));
  return 0;
}

static int op_setxattr(void) {
  char *path = file_or_dir();
  const char *name = user || below(2) ? "user.mark" : "trusted.mark";
  NEED(path);
  announce("setxattr", path, NULL);
  TRY(setxattr(path, name, "1", 1, 0));
  return 0;
}

static int op_file_capability(void) {
  static const unsigned char value[20] = {0, 0, 0, 2, 0xff};
  char *path = take(FILES);
  NEED(path);
  if (user) return op_setxattr();
  announce("file-capability", path, NULL);
  TRY(setxattr(path, "security.capability", value, sizeof value, 0));
  return 0;
}

static int op_removexattr(void) {
  for (unsigned i = 0; i < count[FILES]; i++) {
    char *path = found[FILES][i];
    if (getxattr(path, "user.planted", NULL, 0) <= 0) continue;
    found[FILES][i] = found[FILES][--count[FILES]];
    announce("removexattr", path, NULL);
    TRY(removexattr(path, "user.planted"));
    return 0;
  }
  return ENOENT;
}

enum way { RANGE, SENDFILE, SPLICE };

static int copied(const char *name, enum way way) {
  /* copy_file_range(2) stays within a filesystem, and the image is on another one: a file that is copied up, to its end. */
  char *to = way == RANGE || below(2) ? take(FILES) : new_path(), *from = way == RANGE ? to : take(FILES);
  NEED(from && to);
  announce(name, to, NULL);
  int out = open(to, O_CREAT | O_WRONLY, 0600), in = open(from, O_RDONLY), ends[2], code = 0;
  off_t end = 200000;
  TRY(out);
  TRY(in);
  if (way == RANGE) code = copy_file_range(in, NULL, out, &end, 1, 0) < 0;
  if (way == SENDFILE) code = sendfile(out, in, NULL, 1) < 0;
  if (way == SPLICE) {
    TRY(pipe(ends));
    code = splice(in, NULL, ends[1], NULL, 1, 0) < 0 || splice(ends[0], NULL, out, NULL, 1, 0) < 0;
    close(ends[0]), close(ends[1]);
  }
  close(in);
  return closed(out, code);
}

static int op_copy_file_range(void) { return copied("copy_file_range", RANGE); }
static int op_sendfile(void) { return copied("sendfile", SENDFILE); }
static int op_splice(void) { return copied("splice", SPLICE); }

static int op_tmpfile(void) {
  char *path = new_path(), *dir = strdup(path), name[64];
  *strrchr(dir, '/') = 0;
  announce("tmpfile-linkat", path, NULL);
  int fd = open(dir[0] ? dir : "/", O_TMPFILE | O_RDWR, 0600);
  TRY(fd);
  if (write(fd, TEXT, sizeof TEXT) < 0) return closed(fd, 1);
  sprintf(name, "/proc/self/fd/%d", fd);
  return closed(fd, linkat(AT_FDCWD, name, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0);
}

/* ---- io_uring, by its system calls ---- */

struct ring {
  int fd;
  char *rings;
  struct io_uring_sqe *entries;
  struct io_uring_params p;
};

static int submit(struct ring *r, struct io_uring_sqe *sqe) {
  unsigned *tail = (unsigned *)(r->rings + r->p.sq_off.tail), *array = (unsigned *)(r->rings + r->p.sq_off.array);
  unsigned mask = *(unsigned *)(r->rings + r->p.sq_off.ring_mask), at = *tail & mask;
  r->entries[at] = *sqe;
  array[at] = at;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) return -errno;
  unsigned *head = (unsigned *)(r->rings + r->p.cq_off.head);
  unsigned done = *head & *(unsigned *)(r->rings + r->p.cq_off.ring_mask);
  int result = ((struct io_uring_cqe *)(r->rings + r->p.cq_off.cqes))[done].res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return result;
}

static int op_io_uring(void) {
  struct ring r = {0};
  char *path = below(2) ? take(FILES) : new_path();
  NEED(path);
  r.fd = syscall(SYS_io_uring_setup, 4, &r.p);
  if (r.fd < 0) {
    add("\nabsent io_uring %d .\n", errno);
    flush();
    return op_create();
  }
  announce("io_uring", path, NULL);
  if (!(r.p.features & IORING_FEAT_SINGLE_MMAP)) return ENOSYS;
  size_t a = r.p.sq_off.array + r.p.sq_entries * 4, b = r.p.cq_off.cqes + r.p.cq_entries * sizeof(struct io_uring_cqe);
  r.rings = mmap(NULL, a > b ? a : b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQ_RING);
  r.entries = mmap(NULL, r.p.sq_entries * sizeof *r.entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd,
                   IORING_OFF_SQES);
  if (r.rings == MAP_FAILED || r.entries == MAP_FAILED) return errno;
  struct io_uring_sqe opening = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)path, .len = 0600};
  opening.open_flags = O_CREAT | O_WRONLY;
  int fd = submit(&r, &opening);
  if (fd < 0) return closed(r.fd, 0), -fd;
  struct io_uring_sqe writing = {.opcode = IORING_OP_WRITE, .fd = fd, .addr = (uintptr_t)TEXT, .len = sizeof TEXT};
  int n = submit(&r, &writing);
  close(fd), close(r.fd);
  return n < 0 ? -n : 0;
}

/* ---- a sequence ---- */

static int (*const OPS[])(void) = {
    op_create,       op_mkdir,       op_nested_create, op_append,       op_overwrite,    op_write_within,    op_write_synced,
    op_mmap,         op_mmap,        op_truncate,      op_fallocate,    op_fallocate,    op_rename,          op_rename_over,
    op_rename_link,  op_replace,     op_exchange,      op_link,         op_symlink,      op_fifo,            op_device,
    op_unlink,       op_recreate,    op_rmdir,         op_rmdir_mkdir,  op_create_remove, op_chmod,          op_chown,
    op_lchown,       op_utimes,      op_utimes,        op_setxattr,     op_file_capability, op_removexattr,
    op_copy_file_range, op_sendfile, op_splice,        op_tmpfile,      op_io_uring,
};

static void run(uint64_t seed, unsigned uid) {
  static const char *const roots[] = {"/srv/tree", "/srv/tree", "/srv/tree", "/etc", "/srv/user", "/usr/sbin"};
  state = seed * 0x9e3779b97f4a7c15 + 1;
  user = uid;
  if (uid) {
    gid_t group = GROUP;
    if (setgroups(1, &group) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) _exit(4);
    collect("/srv/user");
  } else {
    collect(roots[below(6)]);
    remember(DIRS, "/");
  }
  /* Half of the sequences are one operation, so that each kind is often the only one. */
  for (unsigned left = below(2) ? 1 : 2 + below(3); left;) {
    int code = OPS[below(sizeof OPS / sizeof *OPS)]();
    /* What it needs is not in this tree: another one. */
    if (code == ENOENT) continue;
    add("\ndone %s %d .\n", doing, code);
    flush();
    left--;
  }
}

static void in_child(uint64_t seed, unsigned uid) {
  pid_t child = fork();
  if (child == 0) run(seed, uid), _exit(0);
  int status = -1;
  waitpid(child, &status, 0);
  add("\nend %d .\n", status);
  flush();
}

/* Everything that might make / writable; none of it may help, whatever the calls return. */
static void remount(void) {
  int results[5];
  results[0] = mount(NULL, "/", NULL, MS_REMOUNT, NULL) ? errno : 0;
  results[1] = mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) ? errno : 0;
  struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};
  results[2] = syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr) ? errno : 0;
  results[3] = unshare(CLONE_NEWNS) ? errno : 0;
  results[4] = mount(NULL, "/", NULL, MS_REMOUNT, "rw") ? errno : 0;
  add("\nremounted %d %d %d %d %d .\n", results[0], results[1], results[2], results[3], results[4]);
  flush();
}

static int serve(void) {
  char line[128];
  size_t len = 0;
  manifest("", 0);
  add("\nready %llx %u .\n", (unsigned long long)manifest_sum, manifest_count);
  flush();
  /* One byte at a time: what was read is lost when this is killed, and the next one needs the line after it. */
  while (read(0, line + len, 1) == 1) {
    unsigned long long seed;
    unsigned uid;
    if (line[len] != '\n') {
      if (++len == sizeof line) return 5;
      continue;
    }
    line[len] = 0;
    len = 0;
    if (sscanf(line, "run %llu %u", &seed, &uid) == 2) in_child(seed, uid);
    else if (!strcmp(line, "remount")) remount();
    else if (!strcmp(line, "manifest")) manifest("", 1), add("\nlisted %llx %u .\n", (unsigned long long)manifest_sum, manifest_count), flush();
    else return 6;
  }
  return 0;
}

int main(int argc, char **argv) {
  umask(0);
  if (argc == 5 && !strcmp(argv[1], "plant")) return state = atoi(argv[4]), plant(argv[2], atoi(argv[3]), 2), 0;
  if (argc == 3 && !strcmp(argv[1], "manifest")) {
    manifest(argv[2], 1);
    add("\nlisted %llx %u .\n", (unsigned long long)manifest_sum, manifest_count);
    return flush(), 0;
  }
  if (argc == 2 && !strcmp(argv[1], "serve")) return serve();
  fprintf(stderr, "usage: storm plant DIR UID SEED | manifest DIR | serve\n");
  return 2;
}
