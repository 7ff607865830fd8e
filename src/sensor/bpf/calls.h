/* Which system calls have something to look at when they return, as tables by x86-64 number. */
#pragma once
#include "record.h"

enum look { NOTHING, FLAGS, OPEN, NAMES, DESCRIPTOR, SOCKET };
#define HERE 0xff /* no directory argument: relative to the working directory */

struct call {
	u8 look;
	u8 what;                  /* operation; for FLAGS: see `flags_of`; for OPEN: the flags' argument */
	u8 dir, name;             /* arguments: the directory's descriptor, the path */
	u8 what2, dir2, name2, pad; /* a second path; none if what2 is 0 */
};

enum flags { ONE, TWO, THREE, CLONE3 };

static const struct call calls[CALLS] = {
	[16] = { FLAGS, TWO },                    /* ioctl */
	[41] = { FLAGS, THREE },                  /* socket */
	[53] = { FLAGS, THREE },                  /* socketpair */
	[56] = { FLAGS, ONE },                    /* clone */
	[101] = { FLAGS, ONE },                   /* ptrace */
	[135] = { FLAGS, ONE },                   /* personality */
	[157] = { FLAGS, ONE },                   /* prctl */
	[158] = { FLAGS, ONE },                   /* arch_prctl */
	[272] = { FLAGS, ONE },                   /* unshare */
	[435] = { FLAGS, CLONE3 },                /* clone3 */
	[2] = { OPEN, 1, HERE, 0 },               /* open */
	[85] = { OPEN, HERE, HERE, 0 },           /* creat */
	[257] = { OPEN, 2, 0, 1 },                /* openat */
	[437] = { OPEN, 2, 0, 1 },                /* openat2: flags by pointer */
	[304] = { OPEN, 2, 0, HERE },             /* open_by_handle_at */
	[76] = { NAMES, WRITE, HERE, 0 },         /* truncate */
	[82] = { NAMES, RENAME, HERE, 0, CREATE, HERE, 1 }, /* rename */
	[83] = { NAMES, CREATE, HERE, 0 },        /* mkdir */
	[84] = { NAMES, REMOVE, HERE, 0 },        /* rmdir */
	[86] = { NAMES, RENAME, HERE, 0, CREATE, HERE, 1 }, /* link */
	[87] = { NAMES, REMOVE, HERE, 0 },        /* unlink */
	[88] = { NAMES, CREATE, HERE, 1 },        /* symlink */
	[90] = { NAMES, ATTRIBUTES, HERE, 0 },    /* chmod */
	[91] = { DESCRIPTOR, ATTRIBUTES, 0 },     /* fchmod */
	[92] = { NAMES, ATTRIBUTES, HERE, 0 },    /* chown */
	[93] = { DESCRIPTOR, ATTRIBUTES, 0 },     /* fchown */
	[94] = { NAMES, ATTRIBUTES, HERE, 0 },    /* lchown */
	[132] = { NAMES, ATTRIBUTES, HERE, 0 },   /* utime */
	[133] = { NAMES, CREATE, HERE, 0 },       /* mknod */
	[188] = { NAMES, ATTRIBUTES, HERE, 0 },   /* setxattr */
	[189] = { NAMES, ATTRIBUTES, HERE, 0 },   /* lsetxattr */
	[190] = { DESCRIPTOR, ATTRIBUTES, 0 },    /* fsetxattr */
	[197] = { NAMES, ATTRIBUTES, HERE, 0 },   /* removexattr */
	[198] = { NAMES, ATTRIBUTES, HERE, 0 },   /* lremovexattr */
	[199] = { DESCRIPTOR, ATTRIBUTES, 0 },    /* fremovexattr */
	[235] = { NAMES, ATTRIBUTES, HERE, 0 },   /* utimes */
	[258] = { NAMES, CREATE, 0, 1 },          /* mkdirat */
	[259] = { NAMES, CREATE, 0, 1 },          /* mknodat */
	[260] = { NAMES, ATTRIBUTES, 0, 1 },      /* fchownat */
	[261] = { NAMES, ATTRIBUTES, 0, 1 },      /* futimesat */
	[263] = { NAMES, REMOVE, 0, 1 },          /* unlinkat */
	[264] = { NAMES, RENAME, 0, 1, CREATE, 2, 3 }, /* renameat */
	[265] = { NAMES, RENAME, 0, 1, CREATE, 2, 3 }, /* linkat */
	[266] = { NAMES, CREATE, 1, 2 },          /* symlinkat */
	[268] = { NAMES, ATTRIBUTES, 0, 1 },      /* fchmodat */
	[280] = { NAMES, ATTRIBUTES, 0, 1 },      /* utimensat */
	[316] = { NAMES, RENAME, 0, 1, CREATE, 2, 3 }, /* renameat2 */
	[452] = { NAMES, ATTRIBUTES, 0, 1 },      /* fchmodat2 */
	[463] = { NAMES, ATTRIBUTES, 0, 1 },      /* setxattrat */
	[466] = { NAMES, ATTRIBUTES, 0, 1 },      /* removexattrat */
	[468] = { NAMES, ATTRIBUTES, 0, 1 },      /* file_setattr */
	[42] = { SOCKET },                        /* connect */
	[44] = { SOCKET },                        /* sendto */
	[46] = { SOCKET },                        /* sendmsg */
	[49] = { SOCKET },                        /* bind */
	[50] = { SOCKET },                        /* listen */
	[307] = { SOCKET },                       /* sendmmsg */
};

#define SOCKETCALL 102
enum { NR_CONNECT = 42, NR_SENDTO = 44, NR_SENDMSG = 46, NR_BIND = 49, NR_LISTEN = 50, NR_SENDMMSG = 307 };
enum { NR_IOCTL = 16, NR_SOCKET = 41, NR_SOCKETPAIR = 53, NR_CLONE = 56, NR_UNSHARE = 272, NR_CLONE3 = 435 };
enum { NR_OPENAT2 = 437 };

/* The x86-64 number of an i386 call that is the same call; 0: there is nothing to look at. */
static const u16 same_as[CALLS] = {
	[5] = 2, [8] = 85, [9] = 86, [10] = 87, [14] = 133, [15] = 90, [16] = 94, [26] = 101, [30] = 132, [38] = 82,
	[39] = 83, [40] = 84, [54] = 16, [83] = 88, [92] = 76, [94] = 91, [95] = 93, [120] = 56, [136] = 135,
	[172] = 157, [182] = 92, [193] = 76, [198] = 94, [207] = 93, [212] = 92, [226] = 188, [227] = 189,
	[228] = 190, [235] = 197, [236] = 198, [237] = 199, [271] = 235, [295] = 257, [296] = 258, [297] = 259,
	[298] = 260, [299] = 261, [301] = 263, [302] = 264, [303] = 265, [304] = 266, [306] = 268, [310] = 272,
	[320] = 280, [342] = 304, [345] = 307, [353] = 316, [359] = 41, [360] = 53, [361] = 49, [362] = 42,
	[363] = 50, [369] = 44, [370] = 46, [384] = 158, [412] = 280, [435] = 435, [437] = 437, [452] = 452,
	[463] = 463, [466] = 466, [468] = 468,
};

/* The same, for the calls within i386's socketcall(2), by its first argument. */
static const u16 socket_calls[32] = {
	[1] = 41, [2] = 49, [3] = 42, [4] = 50, [8] = 53, [11] = 44, [16] = 46, [20] = 307,
};
