package rootfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"drover/internal/errs"
)

// requireDebian fails unless this is root on a system with apt.
func requireDebian() error {
	if os.Geteuid() != 0 {
		return errs.New(errs.Refused, "the test bed needs root: it makes namespaces and mounts").WithNext("run it as root")
	}
	for _, tool := range []string{"apt-get", "dpkg-query"} {
		if _, err := exec.LookPath(tool); err != nil {
			return errs.New(errs.Refused, "the test bed builds on Debian and its relatives: %s is not here", tool).
				WithNext("run it on Debian, or set %s to a folder built there", TestbedEnv)
		}
	}
	return nil
}

// Install makes sure that the Debian packages are on this machine, through apt; it does nothing if they are.
func Install(ctx context.Context, log io.Writer, packages ...string) error {
	if err := requireDebian(); err != nil {
		return err
	}
	var missing []string
	for _, p := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", p).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(log, "installing %s\n", strings.Join(missing, ", "))
	if err := aptUpdate(ctx); err != nil {
		return err
	}
	_, err := apt(ctx, append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)...)
	return err
}

func aptUpdate(ctx context.Context) error {
	_, err := apt(ctx, "update", "-q")
	return err
}

func apt(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", errs.New(errs.Failed, "apt-get %s: %w: %s", strings.Join(args, " "), err, lastLines(string(out), 5)).
			WithNext("see that apt works on this machine: `apt-get update`")
	}
	return string(out), nil
}

// mirror is where this machine's own apt sources get Debian from. An address is never written into a file of the repository:
// each machine has its own.
func mirror(ctx context.Context) (string, error) {
	const format = "$(REPO_URI)\n"
	query := []string{"indextargets", "--format", format, "Created-By: Packages", "Origin: Debian", "Label: Debian"}
	for _, update := range []bool{false, true} { // a fresh machine has no lists yet
		if update {
			if err := aptUpdate(ctx); err != nil {
				return "", err
			}
		}
		out, err := apt(ctx, query...)
		if err != nil {
			return "", err
		}
		if first, _, _ := strings.Cut(strings.TrimSpace(out), "\n"); first != "" {
			return strings.TrimSuffix(first, "/"), nil
		}
	}
	return "", errs.New(errs.NotFound, "find a Debian mirror: this machine's apt sources name none").
		WithNext("add a line like `deb MIRROR %s main` to /etc/apt/sources.list", suite)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// Extract unpacks Debian packages of the hosts' suite, and what they depend on, into a folder without installing them.
func Extract(ctx context.Context, dir string, packages ...string) error {
	if err := requireDebian(); err != nil {
		return err
	}
	from, err := mirror(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=extract", "--mode=root", "--include="+strings.Join(packages, ","), suite, dir, "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("deb %s %s main\n", from, suite))
	if out, err := cmd.CombinedOutput(); err != nil {
		return errs.New(errs.Failed, "mmdebstrap: %w: %s", err, lastLines(string(out), 8))
	}
	return nil
}
