#!/bin/sh
# Plants a library where every program would look for it first.
#
# docker:  lands
# enforce: write /usr/lib/libc.so.6
# observe: forbidden write /usr/lib/libc.so.6
cp /usr/bin/busybox /usr/lib/libc.so.6 && echo landed
