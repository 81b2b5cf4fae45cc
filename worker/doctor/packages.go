package doctor

import (
	"cmp"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	workerapi "drover/worker/api"
)

// packagesOf asks dpkg which packages bring these files. Where there is no dpkg or it does not know, the answer is empty: it
// only makes the mending easier.
func packagesOf(ctx context.Context, rootfs string, paths []string) map[string]string {
	found := map[string]string{}
	if len(paths) == 0 {
		return found
	}
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := append([]string{"--admindir=" + filepath.Join(cmp.Or(rootfs, "/"), "var/lib/dpkg"), "-S", "--"}, paths...)
	out, _ := exec.CommandContext(ctx, "dpkg-query", args...).Output() // fails if any of them is unknown
	for line := range strings.Lines(string(out)) {
		if name, path, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			found[path] = name
		}
	}
	return found
}

// wrongFiles are the first few files that are not here as the tree needs them.
func (p *place) wrongFiles(inv workerapi.Inventory) (paths []string) {
	const most = 20
	for _, want := range inv.Files {
		have, here := p.files[want.Path]
		if wrong(want, have, here) != "" && len(paths) < most {
			paths = append(paths, want.Path)
		}
	}
	return paths
}
