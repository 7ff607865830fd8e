#!/bin/sh
# Lets its master in by ssh.
#
# docker:  lands
# enforce: write /root/.ssh
# observe: forbidden write /root/.ssh
mkdir -p /root/.ssh && echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI evil' >>/root/.ssh/authorized_keys && echo landed
