#!/bin/sh
# Takes away a mount that hides or protects something.
#
# docker:  refused by the default filter, which has umount2 only with CAP_SYS_ADMIN
# enforce: syscall umount2
# observe: forbidden syscall umount2 | forbidden denied syscall umount2
umount -l /dev/shm && echo landed
