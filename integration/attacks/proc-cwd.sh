#!/bin/sh
# The same through a process's working directory and a relative path.
#
# docker:  lands
# enforce: write /etc/through
# observe: forbidden write /etc/through
cd /proc/self/cwd/../../../../etc && echo 'through' >through && echo landed
