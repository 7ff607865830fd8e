#!/bin/sh
# Leaves a shell in scratch that makes whoever runs it root.
#
# docker:  lands
# enforce: syscall chmod | syscall fchmodat | syscall fchmod
# observe: would-refuse syscall chmod | would-refuse syscall fchmodat | would-refuse syscall fchmod
cp /usr/bin/busybox /tmp/rootshell && chmod 4755 /tmp/rootshell && [ -u /tmp/rootshell ] && echo landed
