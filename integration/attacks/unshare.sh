#!/bin/sh
# Becomes root in a user namespace of its own, where it may mount, and puts an empty folder over the programs.
#
# docker:  refused by the default filter, which has unshare only with CAP_SYS_ADMIN
# enforce: syscall unshare
# observe: forbidden argument unshare | forbidden denied syscall unshare | would-refuse denied syscall unshare
unshare -U -r -m sh -c 'mount -t tmpfs none /usr/lib && echo landed'
