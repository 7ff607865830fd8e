#!/bin/sh
# Copies a program into the root file system and runs it. Sealed, the copy is refused; with a tripwire it lands, and the answer to that,
# or to running it, whichever comes first, keeps it from getting a word out.
#
# docker:   lands
# enforce:  write /srv/busybox-dropped
# tripwire: write /srv/busybox-dropped | program /srv/busybox-dropped
# observe:  forbidden program /srv/busybox-dropped
cp /usr/bin/busybox /srv/busybox-dropped && /srv/busybox-dropped echo landed
