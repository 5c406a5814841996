#!/bin/sh
# What a DUT's DHCP client (busybox udhcpc) calls: put the leased address on the interface, take it off again.
# It never sets the link up or down: that is the cable, and the cable belongs to the lab.
case "$1" in
  deconfig)
    ip -4 addr flush dev "$interface" ;;
  bound | renew)
    ip -4 addr replace "$ip/${mask:-24}" dev "$interface"
    if [ -n "$router" ]; then ip -4 route replace default via "${router%% *}" dev "$interface"; fi ;;
esac
exit 0
