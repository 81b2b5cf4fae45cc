package workloads

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
)

// Files of a checkpoint beside CRIU's images.
const (
	manifestFile = "drover-manifest.json"
	digestFile   = "drover-manifest.sha256"
)

// manifest says what a checkpoint holds. A directory is complete when its digest file is there: it is written last.
type manifest struct {
	Format      int                  `json:"format"` // 1
	Spec        workload.Spec        `json:"spec"`
	Epoch       migration.Epoch      `json:"epoch"`
	Final       migration.FinalState `json:"final_state"`
	Engine      string               `json:"engine"` // CRIU's version
	Made        time.Time            `json:"made"`
	Options     engine.Options       `json:"options"`
	KeepStopped []int                `json:"keep_stopped,omitempty"`
	Files       []imageFile          `json:"files"`
}

type imageFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const (
	maxManifest = 16 << 20
	maxImages   = 100_000
)

// isImage says whether a file of the directory belongs to the image; CRIU's logs and statistics do not, they change.
func isImage(name string) bool {
	return name != manifestFile && name != digestFile && !strings.HasSuffix(name, ".log") && !strings.HasPrefix(name, "stats-")
}

// closeToOthers makes every file of the directory root's alone: images are memory, and CRIU leaves them readable.
func closeToOthers(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, e.Name()), 0o600))
	}
	return err
}

// seal lists every image of the directory, safe on the disk. It returns the manifest's digest and the
// images' size.
func seal(dir string, m manifest) (digest string, size int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		if !isImage(e.Name()) {
			continue
		}
		f, err := digestOf(filepath.Join(dir, e.Name()), true)
		if err != nil {
			return "", 0, err
		}
		m.Files = append(m.Files, f)
		size += f.Size
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return "", 0, err
	}
	sum := sha256.Sum256(b)
	digest = hex.EncodeToString(sum[:])
	if err := replace(filepath.Join(dir, manifestFile), b); err != nil {
		return "", 0, err
	}
	return digest, size, replace(filepath.Join(dir, digestFile), []byte(digest+"\n"))
}

// unseal reads a checkpoint's manifest and compares every file with it.
func unseal(dir string) (manifest, error) {
	m, err := sealed(dir)
	if err != nil {
		return m, err
	}
	return m, m.compare(dir)
}

// sealed reads a checkpoint's manifest.
func sealed(dir string) (manifest, error) {
	var m manifest
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return m, errs.New(errs.NotFound, "there is no checkpoint in %s: it is not a directory on this host", dir).WithNext("give the directory that `drover checkpoint` wrote, and --host where it is")
	}
	b, err := readAtMost(filepath.Join(dir, manifestFile), maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return m, errs.New(errs.Refused, "%s is not a checkpoint of drover's: it has no %s", dir, manifestFile).WithNext("give the directory that `drover checkpoint` wrote")
	}
	if err != nil {
		return m, errs.New(errs.Refused, "checkpoint %s: %w", dir, err)
	}
	want, err := readAtMost(filepath.Join(dir, digestFile), 1024)
	if err != nil {
		return m, torn(dir, "its writing was not finished")
	}
	sum := sha256.Sum256(b)
	if hex.EncodeToString(sum[:]) != strings.TrimSpace(string(want)) {
		return m, torn(dir, "its manifest has been changed")
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Format != 1 || len(m.Files) > maxImages {
		return m, torn(dir, "its manifest cannot be read")
	}
	return m, nil
}

// compare finds files that are missing, changed or foreign.
func (m manifest) compare(dir string) error {
	listed := map[string]bool{}
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) || !isImage(f.Name) {
			return torn(dir, "its manifest names "+f.Name)
		}
		listed[f.Name] = true
		got, err := digestOf(filepath.Join(dir, f.Name), false)
		switch {
		case err != nil:
			return torn(dir, f.Name+" is missing")
		case got != f:
			return torn(dir, f.Name+" has been changed")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isImage(e.Name()) && !listed[e.Name()] {
			return torn(dir, e.Name()+" does not belong to it")
		}
	}
	return nil
}

func torn(dir, why string) error {
	return errs.New(errs.Refused, "checkpoint %s is torn: %s", dir, why).WithNext("restore from another one")
}

// digestOf reads a regular file through; sync puts it on the disk.
func digestOf(path string, sync bool) (imageFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return imageFile{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return imageFile{}, errors.Join(err, errs.New(errs.Refused, "%s is not a regular file", path))
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && sync {
		err = f.Sync()
	}
	return imageFile{Name: filepath.Base(path), Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errs.New(errs.Refused, "%s is larger than %d bytes", path, limit)
	}
	return b, err
}
