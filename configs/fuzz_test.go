package configs

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoad: a configuration is taken whole and valid, or refused with what is wrong.
func FuzzLoad(f *testing.F) {
	for _, kind := range []string{"worker", "coordinator", "client"} {
		text, err := Sample(kind)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("listen: [a, &b *b]\nlog: {level: 1}\n"))
	file := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := LoadWorker(file, nil); err == nil && c.Validate() != nil {
			t.Errorf("taken: %+v", c)
		}
		if c, err := LoadCoordinator(file, nil); err == nil && c.Validate() != nil {
			t.Errorf("taken: %+v", c)
		}
		if c, err := LoadClient(file, nil); err == nil && c.Validate() != nil {
			t.Errorf("taken: %+v", c)
		}
	})
}
