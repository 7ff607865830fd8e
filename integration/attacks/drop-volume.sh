#!/bin/sh
# Copies a program into the volume, which outlives every restart, and runs it.
#
# docker:  lands
# enforce: program /data/busybox-dropped
# observe: would-refuse program /data/busybox-dropped
cp /usr/bin/busybox /data/busybox-dropped && /data/busybox-dropped echo landed
