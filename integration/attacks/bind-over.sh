#!/bin/sh
# Mounts a file of its own over a program.
#
# docker:  refused by the default filter, which has mount only with CAP_SYS_ADMIN
# enforce: syscall mount
# observe: forbidden syscall mount | forbidden denied syscall mount
cp /usr/bin/busybox /data/own && mount -o bind /data/own /usr/sbin/victim && echo landed
