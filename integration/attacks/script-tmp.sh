#!/bin/sh
# Writes a script into scratch, makes it a program and runs it.
#
# docker:  lands
# enforce: syscall chmod | syscall fchmodat | program /tmp/dropped.sh
# observe: would-refuse syscall chmod | would-refuse syscall fchmodat | forbidden program /tmp/dropped.sh
printf '#!/bin/sh\necho landed\n' >/tmp/dropped.sh && chmod 755 /tmp/dropped.sh && /tmp/dropped.sh
