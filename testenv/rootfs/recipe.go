package rootfs

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"strings"
)

const (
	suite     = "trixie"
	criuSuite = "forky"
	// toolDir holds, inside the root file system, what only the test bed needs.
	toolDir = "usr/local/lib/drover-testbed"
)

//go:embed files/shim.c
var shimSource []byte

//go:embed files/criu.sh
var criuWrapper []byte

//go:embed files/preferences
var preferences []byte

// packages are what hosts need (criu and what it calls) and the real programs that tests move.
var packages = []string{
	"criu", "iproute2", "nftables", "iptables", "procps", "netcat-openbsd", "iputils-ping", "iputils-arping",
	"redis-server", "nginx-light", "postgresql", "python3-minimal", "nodejs", "openssh-client", "openssh-server", "zstd",
}

// left out: documents nobody reads in a test, and the compiler that postgres uses only for its optional JIT (160 MB).
var leftOut = []string{
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
	"/usr/lib/*/libLLVM*", "/usr/lib/*/libz3*", "/usr/lib/postgresql/*/lib/llvmjit*", "/usr/lib/postgresql/*/lib/bitcode/*",
}

// Recipe identifies everything that decides what the root file system contains; it changes when any of it does. The mirror is
// not part of it, nor is the day: packages of one suite are taken to be equal.
func Recipe() string {
	h := sha256.New()
	fmt.Fprintln(h, suite, criuSuite, packages, leftOut)
	for _, file := range [][]byte{shimSource, criuWrapper, preferences} {
		fmt.Fprintln(h, len(file))
		h.Write(file)
	}
	return fmt.Sprintf("%x\n", h.Sum(nil))
}

// bootstrapArgs are mmdebstrap's arguments to build at dir; the apt sources come on standard input, apt's preferences from a file.
func bootstrapArgs(dir, preferencesFile string) []string {
	args := []string{"--quiet", "--variant=minbase", "--mode=root", "--include=" + strings.Join(packages, ",")}
	for _, pattern := range leftOut {
		args = append(args, "--dpkgopt=path-exclude="+pattern)
	}
	return append(args,
		"--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\"",
		"--setup-hook=cp "+shellQuote(preferencesFile)+" \"$1/etc/apt/preferences.d/criu\"",
		suite, dir, "-")
}

// sources are the apt sources for a mirror. The forky Release file may be past its date on a mirror, which says nothing about
// its packages: those are checked by their signatures all the same.
func sources(mirror string) string {
	return fmt.Sprintf("deb %s %s main\ndeb [check-valid-until=no] %s %s main\n", mirror, suite, mirror, criuSuite)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
