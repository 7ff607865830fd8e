#!/bin/sh
# Has itself started again every minute.
#
# docker:  lands
# enforce: write /var/spool
# observe: forbidden write /var/spool/cron
mkdir -p /var/spool/cron/crontabs && echo '* * * * * /data/dropped' >>/var/spool/cron/crontabs/root && echo landed
