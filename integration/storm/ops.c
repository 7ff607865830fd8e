/* The ways to change a tree. */
#include "storm.h"

const char *doing = "nothing";

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

/* ---- the operations: 0, or the errno of the step that failed ---- */

unsigned user;
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

static int (*const OPS[])(void) = {
    op_create,       op_mkdir,       op_nested_create, op_append,       op_overwrite,    op_write_within,    op_write_synced,
    op_mmap,         op_mmap,        op_truncate,      op_fallocate,    op_fallocate,    op_rename,          op_rename_over,
    op_rename_link,  op_replace,     op_exchange,      op_link,         op_symlink,      op_fifo,            op_device,
    op_unlink,       op_recreate,    op_rmdir,         op_rmdir_mkdir,  op_create_remove, op_chmod,          op_chown,
    op_lchown,       op_utimes,      op_utimes,        op_setxattr,     op_file_capability, op_removexattr,
    op_copy_file_range, op_sendfile, op_splice,        op_tmpfile,      op_io_uring,
};

int any_op(void) { return OPS[below(sizeof OPS / sizeof *OPS)](); }
