/* Chance, what is said, manifests of trees, and planting them. */
#include "storm.h"

/* ---- chance: splitmix64, so that a seed is a sequence on every machine ---- */

uint64_t state;

uint64_t chance(void) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

unsigned below(unsigned n) { return chance() % n; }

/* ---- what is said ---- */

static char said[256 << 10];
static size_t said_len;

void add(const char *format, ...) {
  va_list list;
  va_start(list, format);
  int n = vsnprintf(said + said_len, sizeof said - said_len, format, list);
  va_end(list);
  if (n < 0 || (size_t)n >= sizeof said - said_len) abort();
  said_len += n;
}

void add_hex(const char *text) {
  for (; *text; text++) add("%02x", (unsigned char)*text);
}

void flush(void) {
  for (size_t at = 0; at < said_len;) {
    ssize_t n = write(1, said + at, said_len - at);
    if (n < 0 && errno != EINTR) _exit(3);
    if (n > 0) at += n;
  }
  said_len = 0;
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

uint64_t manifest_sum;
unsigned manifest_count;

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

void manifest(const char *root, int print) {
  manifest_sum = manifest_count = 0;
  list_tree(root, strlen(root), print);
}

/* ---- names ---- */

char *fresh(const char *dir) {
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

void plant(const char *dir, unsigned uid, int depth) {
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

