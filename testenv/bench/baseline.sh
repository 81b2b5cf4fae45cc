# Moves the tree of process PID to the host TARGET as people do by hand, with CRIU, tar, zstd and SSH; runs on the source, in bash.
# Set: PID TARGET LOG (the tree's log file, which is moved along) ADDRESS (of a redis, else empty)
# Says: begun, dumped and restored, each with the time in nanoseconds, and how many bytes the images are.
set -eo pipefail
options="--tcp-established --manage-cgroups=ignore"
complain() { grep -a -e Error "$1" >&2; exit 1; }

rm -rf /run/images
mkdir /run/images
echo begun "$(date +%s%N)"
criu dump -t "$PID" -D /run/images -o dump.log $options --network-lock nftables || complain /run/images/dump.log
echo dumped "$(date +%s%N)"
[ -z "$ADDRESS" ] || ip address del "$ADDRESS/24" dev eth0
tar -C / -cf - run/images "${LOG#/}" | zstd -1 -q -c | ssh -S /run/ssh-master "root@$TARGET" "
	set -eo pipefail
	rm -rf /run/images
	zstd -d -q -c | tar -C / -xf -
	[ -z '$ADDRESS' ] || ip address add '$ADDRESS/24' dev eth0
	criu restore -D /run/images -o restore.log -d $options || { grep -a -e Error /run/images/restore.log >&2; exit 1; }
	echo restored \$(date +%s%N)
	[ -z '$ADDRESS' ] || arping -q -U -c 1 -I eth0 '$ADDRESS' </dev/null >/dev/null 2>&1 &
	rm -rf /run/images"
echo images "$(du -s -B 1 /run/images | cut -f 1)"
# What the dump locked the connections with is still there, and would be in the way of a move back.
nft list tables | while read -r _ family table; do
	case $table in CRIU-*) nft delete table "$family" "$table" ;; esac
done
