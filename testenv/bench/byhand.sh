# Moves the tree of process PID to the host TARGET as people do by hand, with CRIU, tar, zstd and SSH; runs on the source, in bash.
# Set: PID TARGET LOG (the tree's log file, which is moved along) ADDRESS (of a redis, else empty) ROUNDS (of pre-dump, at most; 0 is
# a dump alone). /run/images is there on both hosts and empty.
# Says: begun, dumped and restored, each with the time in nanoseconds, and of each round the pages that it wrote.
set -eo pipefail
options="--tcp-established --manage-cgroups=ignore"
complain() { grep -a -e Error "$1" >&2; exit 1; }
pack() { tar -C / -cf - "$@" | zstd -1 -q -c; }
to_target() { ssh -S /run/ssh-master "root@$TARGET" "set -eo pipefail; $1"; }

echo begun "$(date +%s%N)"
last=
before=
for ((n = 1; n <= ROUNDS; n++)); do
	dir=/run/images/$n
	mkdir "$dir"
	said=$(criu pre-dump -t "$PID" -D "$dir" -o log --track-mem $last --display-stats $options) || complain "$dir/log"
	pack "${dir#/}" | to_target "zstd -d -q -c | tar -C / -xf -"
	written=$(sed -n 's/.*Memory pages written: \([0-9]*\).*/\1/p' <<<"$said")
	echo round "$written"
	last="--prev-images-dir ../$n"
	# As p.haul and phaul mean it: few pages are left, or they do not become fewer.
	if ((written < 64 || written >= ${before:-written + 1})); then
		break
	fi
	before=$written
done
mkdir /run/images/final
criu dump -t "$PID" -D /run/images/final -o log ${last:+--track-mem $last} $options --network-lock nftables || complain /run/images/final/log
echo dumped "$(date +%s%N)"
[ -z "$ADDRESS" ] || ip address del "$ADDRESS/24" dev eth0
pack run/images/final "${LOG#/}" | to_target "
	zstd -d -q -c | tar -C / -xf -
	[ -z '$ADDRESS' ] || ip address add '$ADDRESS/24' dev eth0
	criu restore -D /run/images/final -o restore.log -d $options || { grep -a -e Error /run/images/final/restore.log >&2; exit 1; }
	echo restored \$(date +%s%N)
	[ -z '$ADDRESS' ] || arping -q -U -c 1 -I eth0 '$ADDRESS' </dev/null >/dev/null 2>&1 &"
