package criu

import (
	"regexp"
	"strings"

	"drover/engine"
	"drover/internal/errs"
)

// Cause is what a known failure means.
type Cause struct {
	Kind errs.Kind
	Is   error  // the sentinel of package engine, never nil
	Why  string // what is wrong, in a clause
	Next string // what to do
}

// signature is one failure that CRIU's log tells in words of its own. Placeholders $1, $2 in why and next stand for the
// expression's groups.
type signature struct {
	name string
	expr *regexp.Regexp
	kind errs.Kind
	is   error
	why  string
	next string
}

// Explain looks for a known failure in a log of CRIU, nil if there is none. The first signature of the catalogue that is found
// anywhere wins: they stand from the most to the least specific.
func Explain(log string) *Cause {
	log = errorLines(log)
	for _, s := range catalogue {
		m := s.expr.FindStringSubmatch(log)
		if m == nil {
			continue
		}
		fill := func(text string) string {
			for i := len(m) - 1; i > 0; i-- {
				text = strings.ReplaceAll(text, "$"+string(rune('0'+i)), m[i])
			}
			return text
		}
		return &Cause{Kind: s.kind, Is: s.is, Why: fill(s.why), Next: fill(s.next)}
	}
	return nil
}

// errorLines keeps of a log what tells of a failure and is not the consequence of another.
func errorLines(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		failed := strings.Contains(line, "Error (") || strings.Contains(line, "BUG at") || strings.Contains(line, "Unable to interrupt task")
		if failed && !isConsequence(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func sig(name, expr string, kind errs.Kind, is error, why, next string) signature {
	return signature{name, regexp.MustCompile(expr), kind, is, why, next}
}

// catalogue is every failure drover can explain. The expressions match the format strings of CRIU 4.1 and 4.2; each has a real
// log line in explain_test.go.
var catalogue = []signature{
	// what a tree may not have
	sig("io_uring", `anon_inode:\[io_uring\]|send_fds failed \(-22\)`, // the kernel passes every descriptor on but an io_uring's
		errs.Refused, engine.ErrUnsupported,
		"it has an io_uring, which CRIU cannot dump", "start it where io_uring_setup is refused (sysctl kernel.io_uring_disabled=2, or a seccomp filter); programs fall back to epoll"),
	sig("userfaultfd", `anon_inode:\[userfaultfd\]`, errs.Refused, engine.ErrUnsupported,
		"it has a userfaultfd of its own, which CRIU cannot dump", "turn off the feature that makes it (post-copy, some garbage collectors)"),
	sig("mptcp", `Unsupported proto 262`, errs.Refused, engine.ErrUnsupported,
		"it has a multipath TCP socket (Go's listeners are, by default)", "start it with GODEBUG=multipathtcp=0, or call SetMultipathTCP(false)"),
	sig("inet protocol", `[Uu]nsupported proto (\d+)`, errs.Refused, engine.ErrUnsupported,
		"it has a socket of IP protocol $1, which CRIU cannot dump", "close that socket before moving it"),
	sig("socket option", `Can't get 1:(?:16|34) opt: Operation not supported`, errs.Refused, engine.ErrUnsupported,
		"this CRIU is too old for this kernel: it asks sockets for an option they no longer have", "install CRIU 4.2 or later"),
	sig("sysv shm", `doesn't live in IPC ns`, errs.Refused, engine.ErrUnsupported,
		"it uses System V shared memory outside an IPC namespace of its own", "start it with `drover run`, which gives it one"),
	sig("tcp without flag", `Connected TCP socket|connected TCP socket.*consider using`, errs.Refused, engine.ErrUnsupported,
		"it has established TCP connections and --tcp-established was not set", "look again with `drover doctor`: a connection was opened since"),
	sig("connection in flight", `In-flight connection`, errs.Failed, engine.ErrMoment,
		"a connection waits to be accepted by it just now, and would be lost", "try again; if it happens again and again, the program does not accept its connections"),
	sig("file locks", `Some file locks are hold`, errs.Refused, engine.ErrUnsupported,
		"it holds file locks and --file-locks was not set", "look again with `drover doctor`: a lock was taken since"),
	sig("ghost file", `Can't dump ghost file (\S+) of (\d+) size, increase limit`, errs.Refused, engine.ErrUnsupported,
		"it holds the deleted file $1 of $2 bytes, larger than the ghost limit", "close or truncate the file"),
	sig("link remap", `Can't create link remap for (\S+)\. `, errs.Refused, engine.ErrUnsupported,
		"it has $1 open, whose name is gone while other links remain", "look again with `drover doctor`, which sets --link-remap"),
	sig("terminal", `Found dangling tty with sid (\d+)|Found slave peer index \d+ without correspond master peer|Can't dump dead (?:ctty|tty)|is not a session leader|Don't have tty to inherit`, errs.Refused, engine.ErrUnsupported,
		"it belongs to a terminal outside the tree", "start it without one (`drover run`, setsid, or a service)"),
	sig("session leader", `A session leader of (\d+)\((\d+)\) is outside of its pid namespace|No task found with sid|session leader.*outside`, errs.Refused, engine.ErrUnsupported,
		"its session leader is not part of the tree", "start it with setsid, or adopt the session leader"),
	sig("unsupported descriptor", `Can't dump file \d+ of that type \[\d+\] \(([^)]+)\)|Unknown shit \d+ \(([^)]+)\)`, errs.Refused, engine.ErrUnsupported,
		"it has a descriptor that CRIU cannot dump: $1$2", "close it before moving the tree"),
	sig("external unix socket", `[Ee]xternal socket is used|Can't dump half of stream unix connection`, errs.Refused, engine.ErrUnsupported,
		"it has a unix socket whose other end is outside the tree", "disconnect it (a syslog or bus connection, often) before moving the tree"),
	sig("external pipe", `[Ff]ound (?:an )?external (?:pipe|fifo)|Can't (?:restore|open) external (?:pipe|file)`, errs.Refused, engine.ErrUnsupported,
		"it has a pipe whose other end is outside the tree", "let it write to files instead (`drover run` does)"),
	sig("traced", `Unable to interrupt task: \d+ \(Operation not permitted\)|Unseizable non-zombie (\d+)`, errs.Refused, engine.ErrUnsupported,
		"one of its processes cannot be traced: a debugger or tracer has it, or the kernel forbids it", "detach gdb or strace, and see /proc/sys/kernel/yama/ptrace_scope"),
	sig("tmpfs root", `Can't dump tmpfs content|tmpfs.*as a root`, errs.Refused, engine.ErrUnsupported,
		"its root is a tmpfs", "use a root directory on a disk file system"),
	sig("mount lookup", `Can't lookup mount=(\d+) for fd=(-?\d+) path=(\S+)`, errs.Refused, engine.ErrUnsupported,
		"its descriptor $2 ($3) was opened outside its mount namespace", "reopen it from inside; a launcher leaked it"),
	sig("mount", `doesn't have a proper root mount|(\d+):\S+ (?:is )?unreachable sharing|mnt: Mount (\S+) .*is unreachable`, errs.Refused, engine.ErrUnsupported,
		"it has a mount that CRIU cannot rebuild", "unmount it, or give it to the tree as a --volume"),
	sig("rlimit", `Can't get rlimit \d+: Operation not permitted`, errs.Forbidden, engine.ErrUnsupported,
		"CRIU may not read the limits of a process of another user", "give the worker CAP_SYS_RESOURCE"),
	sig("late filter", `suspending seccomp failed: Operation not permitted`, errs.Failed, engine.ErrMoment,
		"it set a seccomp filter while it was about to be dumped", "try again: the dump then begins with the filter known"),
	sig("tracking", `Tracking memory is not available|BUG at criu/mem.c:45|Mem dirty tracking.*not`, errs.Refused, engine.ErrNoTracking,
		"the kernel has no soft-dirty tracking", "use --tracker hash, which works on any kernel"),
	sig("parent", `Pid-reuse detection failed: no parent inventory|No parent image found|Can't open parent`, errs.Failed, engine.ErrBadImage,
		"the images of the round before are missing", "start the migration again"),
	sig("gone", `Can't (?:find|open) (?:task|proc).*No such (?:process|file)|No such process|/proc/(\d+).*No such file or directory|Unable to open /proc/`, errs.NotFound, engine.ErrGone,
		"the tree, or a part of it, ended meanwhile", "see `drover show` for how it ended"),

	// what a target must have
	sig("build id", `File /?(\S+) has bad build-ID`, errs.Refused, engine.ErrConflict,
		"/$1 differs here from the one the tree runs with (another build-id)", "install the same package version on both hosts (`dpkg -S /$1` names it)"),
	sig("size", `File /?(\S+) has bad size (\d+) \(expect (\d+)\)`, errs.Refused, engine.ErrConflict,
		"/$1 has $2 bytes here and had $3 on the source", "copy the file, or carry its directory as a --volume"),
	sig("mode", `File /?(\S+) has bad mode (\S+) \(expect (\S+)\)`, errs.Refused, engine.ErrConflict,
		"/$1 has mode $2 here and had $3 on the source", "chmod it to $3 here"),
	sig("pid taken", `Can't fork for (\d+): File exists|Can't clone with pid (\d+)|Unable to create a thread: -17|err(?:no)?[ =:]*-?17`, errs.Refused, engine.ErrConflict,
		"pid $1$2 is taken here", "start the workload with `drover run`, which gives it pids of its own, or end what has the pid"),
	sig("port taken", `Can't bind (?:inet|unix) socket.*Address already in use|bind.*Address already in use`, errs.Refused, engine.ErrConflict,
		"an address or port it listens on is taken here", "end what listens there (`ss -ltnp`), or give the workload an address of its own"),
	sig("address missing", `Can't bind inet socket.*Cannot assign requested address`, errs.Refused, engine.ErrConflict,
		"its address is not on this host", "give the workload its address (--address), so that drover moves it"),
	sig("route missing", `Can't connect inet socket back.*|connect.*(?:Network is unreachable|No route to host)`, errs.Refused, engine.ErrConflict,
		"a connection of it has no route here", "give this host the same routes as the source"),
	sig("file missing", `Can't open (?:file )?/?(\S+?)(?: on restore| for .*)?: No such file or directory`, errs.Refused, engine.ErrConflict,
		"/$1 does not exist here", "copy it, or carry its directory as a --volume"),
	sig("cpu", `(?:CPU|cpu).*(?:instruction|capabilit|feature).*(?:not |mismatch)`, errs.Refused, engine.ErrConflict,
		"this host's processor lacks features that the tree may use", "choose a host with the same or a newer processor"),
	sig("memory", `Cannot allocate memory|Unable to map .*: -?12|Out of memory`, errs.Refused, engine.ErrConflict,
		"there is not enough memory here, or overcommit is forbidden", "free memory, or see /proc/sys/vm/overcommit_memory"),
	sig("disk", `No space left on device`, errs.Refused, engine.ErrConflict,
		"there is no space left for the images", "free space in the run directory (it is in memory)"),
	sig("root mount", `BUG at criu/mount.c:48|(?:New )?[Rr]oot.*is not a mount point|doesn't have a proper root`, errs.Refused, engine.ErrConflict,
		"the root given for the tree is not a mount point", "this is drover's to do: report it with the log"),
	sig("restorer hang", `(Unable to drop capability \d+|Unable to restore capabilities|Unable to set SECURE_NO_SETUID_FIXUP)`, errs.Forbidden, engine.ErrConflict,
		"the worker lacks a capability that CRIU or the tree needs ($1)", "compare the tree's with the worker's: grep Cap /proc/PID/status; docs/security.md says which it needs"),
	sig("tun", `tun.*(?:not supported|No such device)|Can't open /dev/net/tun`, errs.Refused, engine.ErrConflict,
		"this host has no /dev/net/tun", "load the tun module"),
	sig("nft", `(?:nftables|iptables|nft).*(?:failed|not (?:found|supported))|Can't run .*tables`, errs.Refused, engine.ErrConflict,
		"connections cannot be locked: nftables does not work here", "install nftables and its kernel modules"),

	// images
	sig("foreign image", `Magic doesn't match for (\S+)|Image .*version.*mismatch|Not CRIT image|Unknown image`, errs.Invalid, engine.ErrBadImage,
		"the images are not CRIU's, or another version's", "use the same CRIU version on both hosts"),
	sig("torn image", `Unexpected EOF on (\S+)|Corrupted entry|Unexpected end of (?:file|image)|Can't read .*img|Unable to open .*\.img`, errs.Invalid, engine.ErrBadImage,
		"the images are torn or incomplete", "take them again"),

	// time and transport
	sig("freeze timeout", `Timeout reached|Unable to freeze cgroup|Can't freeze`, errs.Timeout, engine.ErrBusy,
		"its processes could not all be stopped in time", "one may be in an uninterruptible wait (state D): see `ps -eo pid,stat,wchan`"),
	sig("page server", `Can't write pages? to socket|page-xfer:.*(?:Broken pipe|Connection reset)`, errs.Unavailable, engine.ErrLost,
		"the connection that takes the pages broke", "try again"),
	sig("permission", `Error \([^)]*\): (.*): Operation not permitted`, errs.Forbidden, engine.ErrConflict,
		"CRIU lacks a permission ($1)", "run the worker as root with the capabilities that docs/security.md lists"),
}
