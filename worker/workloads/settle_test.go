package workloads

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/workload"
)

// A worker may die before its record says that the volumes are in their place: the next one settles them again.
func TestVolumesAreSettledTwiceWithoutHarm(t *testing.T) {
	h := &Host{log: slog.New(slog.DiscardHandler)}
	for name, v := range map[string]volume{
		"staged": {Staged: "db.drover-incoming"},
		"aside":  {Aside: "db.drover-aside", Brought: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			v.Volume = workload.Volume{Host: "db"}
			old, brought := "db", v.Staged
			if v.Aside != "" {
				old, brought = v.Aside, "db"
			}
			for dir, file := range map[string]string{old: "old", brought: "new"} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				r := record{Place: place{Volumes: []volume{v}}}
				if err := h.settleVolumes(&r); err != nil {
					t.Fatal(err)
				}
				if is := r.Place.Volumes[0]; is.Staged != "" || is.Aside != "" || !is.Brought {
					t.Errorf("the record says %+v", is)
				}
				for _, file := range []string{"db/new", "db.drover-replaced/old"} {
					if _, err := os.Stat(file); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}
