package host

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// The program's other lives: the same binary, started under one of these names, never reaches main.
const (
	bootName  = "drover-testhost-boot"  // makes a host from inside its new namespaces, then becomes pid 1
	pid1Name  = "drover-testhost"       // a host's pid 1
	enterName = "drover-testhost-enter" // runs one command in a host
	tieName   = "drover-testhost-tie"   // becomes that command, once it is sure to die with enter
)

// init stands before main and before every test, because namespaces must be joined and left by the process's first thread.
func init() {
	lives := map[string]func() error{bootName: boot, pid1Name: pid1, enterName: enter, tieName: tie}
	live, ok := lives[os.Args[0]]
	if !ok {
		return
	}
	runtime.LockOSThread()
	if err := live(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(125)
	}
	os.Exit(0)
}

// again is a command that starts this binary under another name.
func again(name string, args ...string) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{name}, args...)}
}
