#!/bin/sh
# Writes to the root file system through another process's view of it.
#
# docker:  lands
# enforce: write /srv/www/cgi-bin/through | write /proc/1/root/srv/www/cgi-bin/through
# observe: would-refuse write /srv/www/cgi-bin/through
echo 'through' >/proc/1/root/srv/www/cgi-bin/through && echo landed
