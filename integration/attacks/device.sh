#!/bin/sh
# Makes a node of the disk of its host, to read what no path leads to.
#
# docker:  lands
# enforce: syscall mknod | syscall mknodat
# observe: would-refuse syscall mknod | would-refuse syscall mknodat
mknod /tmp/disk b 254 0 && echo landed
