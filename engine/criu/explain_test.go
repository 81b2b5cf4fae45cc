package criu

import (
	"strings"
	"testing"
)

// lines has a real log line for every signature, by name; what is expected of the explanation stands after the arrow.
var lines = []struct{ name, line, want string }{
	{"io_uring", `pie: 1018: Error (criu/pie/parasite.c:588): send_fds failed (-22)`, "io_uring"},
	{"connection in flight", `(00.250987) Error (criu/sk-inet.c:185): inet: In-flight connection (l) for 98433`, "try again"},
	{"userfaultfd", `(00.012345) Error (criu/files-ext.c:91): Can't dump file 5 of that type [600] (unknown /anon_inode:[userfaultfd])`, "userfaultfd"},
	{"mptcp", `(00.010123) Error (criu/sk-inet.c:190): inet: Unsupported proto 262 for socket 4f3a`, "GODEBUG=multipathtcp=0"},
	{"inet protocol", `(00.010123) Error (criu/sk-inet.c:190): inet: Unsupported proto 132 for socket 4f3a`, "protocol 132"},
	{"socket option", `(00.010200) Error (criu/sockets.c:412): sockets: Can't get 1:16 opt: Operation not supported`, "CRIU 4.2"},
	{"sysv shm", `(00.004100) Error (criu/ipc_ns.c:98): Task with SysVIPC shmem map @7f0000000000 doesn't live in IPC ns`, "IPC namespace"},
	{"tcp without flag", `(00.008121) Error (criu/sk-inet.c:188): inet: Connected TCP socket, consider using --tcp-established option.`, "established TCP"},
	{"file locks", `(00.009001) Error (criu/file-lock.c:112): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.`, "file locks"},
	{"ghost file", `(00.009001) Error (criu/files-reg.c:966): Can't dump ghost file /tmp/big of 2097152 size, increase limit`, "/tmp/big of 2097152 bytes"},
	{"link remap", `(00.009001) Error (criu/files-reg.c:1211): Can't create link remap for /tmp/x. Use --link-remap option.`, "/tmp/x"},
	{"terminal", `(00.053177) Error (criu/tty.c:410): tty: Found slave peer index 0 without correspond master peer`, "terminal"},
	{"session leader", `(00.001212) Error (criu/pstree.c:620): A session leader of 77(77) is outside of its pid namespace`, "session leader"},
	{"unsupported descriptor", `(00.012345) Error (criu/files-ext.c:91): Can't dump file 5 of that type [20666] (chr 10:232 /dev/kvm)`, "/dev/kvm"},
	{"external unix socket", `(00.011000) Error (criu/sk-unix.c:842): unix: External socket is used. Consider using --ext-unix-sk option.`, "other end is outside"},
	{"external pipe", `(00.011000) Error (criu/pipes.c:301): pipes: Found an external pipe 4711`, "pipe"},
	{"traced", `(00.004117) Warn  (compel/src/lib/infect.c:129): Unable to interrupt task: 1104 (Operation not permitted)`, "debugger"},
	{"tmpfs root", `(00.031010) Error (criu/filesystems.c:377): mnt: Can't dump tmpfs content`, "tmpfs"},
	{"mount lookup", `(00.021034) Error (criu/files-reg.c:1850): Can't lookup mount=24 for fd=10 path=/dev/null`, "descriptor 10 (/dev/null)"},
	{"mount", `(00.021034) Error (criu/mount.c:988): mnt: Mount 412 ./sys/fs/bpf (master_id: 0 shared_id: 0) is unreachable`, "mount"},
	{"rlimit", `(00.004343) Error (criu/cr-dump.c:307): Can't get rlimit 0: Operation not permitted`, "CAP_SYS_RESOURCE"},
	{"late filter", `(00.057226) Error (compel/src/lib/ptrace.c:27): suspending seccomp failed: Operation not permitted`, "seccomp filter"},
	{"tracking", `(00.000000) Error (criu/config.c:1187): Tracking memory is not available. Consider omitting --track-mem option.`, "--tracker hash"},
	{"parent", `(00.019731) Error (criu/mem.c:369): Pid-reuse detection failed: no parent inventory, check warnings in get_parent_inventory`, "round before"},
	{"gone", `(00.000801) Error (criu/proc_parse.c:2450): Can't open proc file: No such process`, "ended meanwhile"},
	{"build id", `(00.017801) Error (criu/files-reg.c:1931): File usr/lib/x86_64-linux-gnu/libc-2.41.so has bad build-ID`, "libc-2.41.so differs"},
	{"size", `(00.019811) Error (criu/files-reg.c:1993): File var/log/access.log has bad size 0 (expect 315)`, "0 bytes here and had 315"},
	{"mode", `(00.019811) Error (criu/files-reg.c:2010): File srv/data has bad mode 0100755 (expect 0100775)`, "chmod it to 0100775"},
	{"pid taken", `(00.011811) Error (criu/cr-restore.c:1254): Can't fork for 4711: File exists`, "pid 4711 is taken"},
	{"port taken", `(00.021200) Error (criu/sk-inet.c:1116): inet: Can't bind inet socket (id 7): Address already in use`, "taken here"},
	{"address missing", `(00.021200) Error (criu/sk-inet.c:1116): inet: Can't bind inet socket (id 7): Cannot assign requested address`, "address is not on this host"},
	{"route missing", `(00.021200) Error (soccr/soccr.c:573): Can't connect inet socket back: Network is unreachable`, "no route"},
	{"file missing", `(00.013390) Error (criu/files-reg.c:2306): Can't open file srv/app/app.log on restore: No such file or directory`, "srv/app/app.log does not exist"},
	{"cpu", `(00.003390) Error (criu/cpu.c:199): cpu: CPU instruction capabilities do not match run time`, "processor"},
	{"memory", `(00.093390) Error (criu/pie/restorer.c:1021): Unable to map ANON_VMA: Cannot allocate memory`, "memory"},
	{"disk", `(00.193390) Error (criu/page-xfer.c:303): page-xfer: Unable to write data: No space left on device`, "space"},
	{"root mount", `(00.003390) Error (criu/mount.c:48): BUG at criu/mount.c:48`, "mount point"},
	{"restorer hang", `(00.093390) pie: 1: Error (criu/pie/restorer.c:212): Unable to drop capability 24: -1`, "drop capability 24"},
	{"tun", `(00.003390) Error (criu/tun.c:80): tun: Can't open /dev/net/tun: No such file or directory`, "tun"},
	{"nft", `(00.003390) Error (criu/netfilter.c:320): nftables: Locking network failed`, "nftables"},
	{"foreign image", `(00.000390) Error (criu/image.c:601): Magic doesn't match for inventory.img`, "another version"},
	{"torn image", `(00.000390) Error (criu/protobuf.c:77): Unexpected EOF on core-1.img`, "torn"},
	{"freeze timeout", `(10.000390) Error (criu/seize.c:652): Timeout reached. Try to interrupt: 0`, "in time"},
	{"page server", `(00.200390) Error (criu/page-xfer.c:216): page-xfer: Can't write pages to socket: Broken pipe`, "broke"},
	{"permission", `(00.000390) Error (criu/namespaces.c:444): Can't switch net ns: Operation not permitted`, "permission (Can't switch net ns)"},
}

func TestEverySignatureExplainsARealLine(t *testing.T) {
	tested := map[string]bool{}
	for _, l := range lines {
		tested[l.name] = true
		c := Explain("(00.000001) Version: 4.2.1\n" + l.line + "\n(00.3) Error (criu/cr-dump.c:2110): Dumping FAILED.\n")
		if c == nil {
			t.Errorf("%s: not explained: %s", l.name, l.line)
			continue
		}
		if text := c.Why + "; " + c.Next; !strings.Contains(text, l.want) {
			t.Errorf("%s: %q does not say %q", l.name, text, l.want)
		}
		if c.Why == "" || c.Next == "" || c.Is == nil || strings.Contains(c.Why+c.Next, "$") {
			t.Errorf("%s: incomplete: %+v", l.name, c)
		}
	}
	for _, s := range catalogue {
		if !tested[s.name] {
			t.Errorf("signature %q has no line", s.name)
		}
	}
	if len(catalogue) < 25 {
		t.Errorf("%d signatures", len(catalogue))
	}
}

func TestHarmlessLinesAreNotExplained(t *testing.T) {
	if c := Explain("(00.0) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n" +
		"(00.1) Warn (criu/x.c:1): No space left on device\n(00.2) Error (criu/cr-dump.c:2110): Dumping FAILED.\n"); c != nil {
		t.Errorf("explained as %+v", c)
	}
}

func TestLastErrorSkipsConsequences(t *testing.T) {
	log := "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n" +
		"(00.2) Error (criu/x.c:1): the cause\n(00.3) Error (criu/cr-dump.c:2110): Dumping FAILED.\n"
	if got := lastErrors(log); got != "the cause" {
		t.Errorf("got %q", got)
	}
}
