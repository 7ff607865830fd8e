#!/bin/sh
# Adds a second root without a password.
#
# docker:  lands
# enforce: write /etc/passwd
# observe: forbidden write /etc/passwd
echo 'toor::0:0::/root:/bin/sh' >>/etc/passwd && echo landed
