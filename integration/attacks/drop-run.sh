#!/bin/sh
# Copies a program into /run, where the workload keeps its pid file, and runs it.
#
# docker:  lands
# enforce: program /run/busybox-dropped
# observe: forbidden program /run/busybox-dropped
cp /usr/bin/busybox /run/busybox-dropped && /run/busybox-dropped echo landed
