#!/bin/sh
# Has every program that starts from now on load a library first.
#
# docker:  lands
# enforce: write /etc/ld.so.preload
# observe: forbidden write /etc/ld.so.preload
echo /data/evil.so >/etc/ld.so.preload && echo landed
