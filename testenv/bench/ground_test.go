package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/engine/track"
	"drover/testenv/bench/report"
	"drover/testenv/cluster"
	"drover/testenv/host"
	"drover/testenv/host/hosttest"
)

// ground is where everything is measured: a cluster, a client, and SSH from each worker's host to the other.
type ground struct {
	*cluster.Cluster
	client   *host.Host
	trackers []string // those that work here, drover's own choice first, or those asked for
	// softDirty says whether the kernel tracks pages by it, without which CRIU makes no rounds of its own.
	softDirty bool
	leftOut   []string   // why what is not measured is not
	cable     host.Shape // of the link that is measured
	loop      float64    // what bareLoop said of the first redis; 0 before
}

func newGround(b *testing.B) *ground {
	b.Helper()
	c, client := newHosts(b)
	g := &ground{Cluster: c, client: client}
	hosttest.Install(b, "./testenv/victims/dirtier", "/usr/local/bin/dirtier", c.Workers[0].Host, c.Workers[1].Host)
	for _, m := range c.Workers {
		if err := os.WriteFile(m.Path(heapProgram), heapSource, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	g.findTrackers(b)
	if g.softDirty {
		hosttest.Install(b, "./testenv/bench/phaul", phaulProgram, c.Workers[0].Host, c.Workers[1].Host)
	}
	g.joinBySSH(b)
	return g
}

// findTrackers asks drover which trackers work with what its workers found on their hosts.
func (g *ground) findTrackers(b *testing.B) {
	b.Helper()
	var hosts []api.Host
	if err := g.JSON(b.Context(), &hosts, "hosts"); err != nil {
		b.Fatal(err)
	}
	features := hosts[0].Facts.Engine
	own, err := track.Choose(features, "")
	if err != nil {
		b.Fatal(err)
	}
	_, err = track.Choose(features, "softdirty")
	if g.softDirty = err == nil; !g.softDirty {
		g.leftOut = append(g.leftOut, "Here, CRIU's own iterative pre-dump, go-criu's phaul, and drover with the tracker softdirty: this kernel has no soft-dirty tracking.")
	}
	if g.trackers = []string{own}; *trackers != "" {
		g.trackers = strings.Split(*trackers, ",")
		return
	}
	for _, name := range []string{"wp", "softdirty", "hash"} {
		if name == own || name == "softdirty" && !g.softDirty {
			continue
		}
		if _, err := track.Choose(features, name); err != nil {
			g.leftOut = append(g.leftOut, fmt.Sprintf("drover with the tracker %s: %v.", name, err))
			continue
		}
		g.trackers = append(g.trackers, name)
	}
}

// joinBySSH lets root of each worker's host into the other, as an administrator would: a key, and an sshd.
func (g *ground) joinBySSH(b *testing.B) {
	b.Helper()
	alpha, beta := g.Workers[0].Host, g.Workers[1].Host
	hosttest.Run(b, alpha, "sh", "-ec", "mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys")
	hosttest.Run(b, beta, "mkdir", "-p", "-m", "700", "/root/.ssh")
	for _, file := range []string{"id_ed25519", "authorized_keys"} {
		text, err := os.ReadFile(alpha.Path("/root/.ssh/" + file))
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(beta.Path("/root/.ssh/"+file), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, h := range []*host.Host{alpha, beta} {
		hosttest.Run(b, h, "mkdir", "-p", "/run/sshd")
		hosttest.Start(b, h, "sshd", "/usr/sbin/sshd", "-D", "-e", "-o", "PermitRootLogin=yes", "-o", "UsePAM=no")
	}
}

// sent is how many bytes the host's network card has sent.
func sent(h *host.Host) (int64, error) {
	text, err := os.ReadFile(h.Path("/sys/class/net/eth0/statistics/tx_bytes"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// mover is a way to move one program between the workers' hosts.
type mover interface {
	// move moves the program to the other host and fills in all of the run but what the load saw. It tells see when the program is
	// copied while it runs, and when its memory is filled in.
	move(ctx context.Context, see *sights) (report.Run, error)
	// log is the end of what the program has said.
	log(ctx context.Context) (string, error)
	// address is where a redis is reached.
	address() string
	// end ends the program.
	end(ctx context.Context) error
}
