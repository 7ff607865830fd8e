#!/bin/sh
# Copies a program into the scratch of the workload and runs it.
#
# docker:  lands
# enforce: program /tmp/busybox-dropped
# observe: forbidden program /tmp/busybox-dropped
cp /usr/bin/busybox /tmp/busybox-dropped && /tmp/busybox-dropped echo landed
