/* What there is to change. */
#include "storm.h"

char *found[KINDS][4096];
unsigned count[KINDS];

void remember(int kind, const char *path) {
  if (count[kind] < 4096) found[kind][count[kind]++] = strdup(path);
}

void collect(const char *dir) {
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
char *take(int kind) {
  if (!count[kind]) return NULL;
  unsigned at = below(count[kind]);
  char *path = found[kind][at];
  found[kind][at] = found[kind][--count[kind]];
  return path;
}

char *any_dir(void) { return found[DIRS][below(count[DIRS])]; }

/* A directory that is sure to stay: no operation removes one that has something in it. */
char *new_path(void) {
  for (;;) {
    char *dir = any_dir();
    int empty = 0;
    for (unsigned i = 0; i < count[EMPTY]; i++) empty |= dir == found[EMPTY][i] || !strcmp(dir, found[EMPTY][i]);
    if (!empty) return fresh(dir);
  }
}
