#!/bin/sh
# The same by a file that cron reads below /etc.
#
# docker:  lands
# enforce: write /etc/crontab
# observe: forbidden write /etc/crontab
echo '* * * * * root /data/dropped' >>/etc/crontab && echo landed
