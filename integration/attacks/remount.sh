#!/bin/sh
# Makes the root file system writable again, however it was mounted.
#
# docker:  refused by the default filter, which has mount only with CAP_SYS_ADMIN
# enforce: syscall mount
# observe: forbidden syscall mount | forbidden denied syscall mount
mount -o remount,rw / && echo landed
