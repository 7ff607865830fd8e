#!/bin/sh
# Changes the page that everybody sees.
#
# docker:  lands
# enforce: write /srv/www/index.html
# observe: would-refuse write /srv/www/index.html
echo 'defaced' >>/srv/www/index.html && echo landed
