package workloads

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/owned"
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
func closeToOthers(dir *checkpointDir) error {
	entries, err := dir.entries()
	for _, e := range entries {
		err = errors.Join(err, dir.root.Chmod(e.Name(), 0o600))
	}
	return err
}

// seal lists every image of the directory, safe on the disk and where it was asked for. It returns the manifest's digest and the
// images' size.
func seal(dir *checkpointDir, m manifest) (digest string, size int64, err error) {
	defer func() {
		if err != nil {
			err = errs.New(errs.KindOf(err), "write to %s: %w", dir.path(), err).WithNext("%s", errs.NextOf(err))
		}
	}()
	entries, err := dir.entries()
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		if !isImage(e.Name()) {
			continue
		}
		f, err := digestOf(dir.root, e.Name(), true)
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
	if err := replaceIn(dir.root, manifestFile, b); err != nil {
		return "", 0, err
	}
	if err := replaceIn(dir.root, digestFile, []byte(digest+"\n")); err != nil {
		return "", 0, err
	}
	return digest, size, dir.inPlace()
}

// unseal opens a checkpoint, reads its manifest and compares every file with it. The caller closes the directory.
func unseal(path string) (*checkpointDir, manifest, error) {
	dir, err := openCheckpointDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, manifest{}, errs.New(errs.NotFound, "there is no checkpoint in %s: it is not a directory on this host", path).WithNext("give the directory that `drover checkpoint` wrote, and --host where it is")
	case err != nil:
		return nil, manifest{}, notOurs(path, err)
	}
	m, err := dir.manifest()
	if err == nil {
		err = m.compare(dir)
	}
	if err != nil {
		dir.Close()
		return nil, m, err
	}
	return dir, m, nil
}

// notOurs is that who restores a checkpoint would do what another user has written there.
func notOurs(path string, err error) error {
	return errs.New(errs.Refused, "checkpoint %s: %w", path, err).
		WithNext("restore from a directory that is root's, with all that is in it, and that nobody else may write; if you know who wrote this one: chown -R root, chmod -R go-w")
}

// sealed reads a checkpoint's manifest.
func sealed(path string) (manifest, error) {
	dir, err := openCheckpointDir(path)
	if err != nil {
		return manifest{}, err
	}
	defer dir.Close()
	return dir.manifest()
}

func (d *checkpointDir) manifest() (manifest, error) {
	var m manifest
	b, err := d.readAtMost(manifestFile, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return m, errs.New(errs.Refused, "%s is not a checkpoint of drover's: it has no %s", d.path(), manifestFile).WithNext("give the directory that `drover checkpoint` wrote")
	}
	if err != nil {
		return m, errs.New(errs.Refused, "checkpoint %s: %w", d.path(), err)
	}
	want, err := d.readAtMost(digestFile, 1024)
	if err != nil {
		return m, torn(d.path(), "its writing was not finished")
	}
	sum := sha256.Sum256(b)
	if hex.EncodeToString(sum[:]) != strings.TrimSpace(string(want)) {
		return m, torn(d.path(), "its manifest has been changed")
	}
	if err := json.Unmarshal(b, &m); err != nil || m.Format != 1 || len(m.Files) > maxImages {
		return m, torn(d.path(), "its manifest cannot be read")
	}
	return m, nil
}

// compare finds files that are missing, changed or foreign, or that another user may still change.
func (m manifest) compare(d *checkpointDir) error {
	dir := d.path()
	listed := map[string]bool{}
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) || !isImage(f.Name) {
			return torn(dir, "its manifest names "+f.Name)
		}
		listed[f.Name] = true
		got, err := digestOf(d.root, f.Name, false)
		switch {
		case err != nil:
			return torn(dir, f.Name+" is missing")
		case got != f:
			return torn(dir, f.Name+" has been changed")
		}
	}
	entries, err := d.entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = owned.Check(e.Name(), info)
		}
		if err != nil {
			return notOurs(dir, err)
		}
		if isImage(e.Name()) && !listed[e.Name()] {
			return torn(dir, e.Name()+" does not belong to it")
		}
	}
	return nil
}

func torn(dir, why string) error {
	return errs.New(errs.Refused, "checkpoint %s is torn: %s", dir, why).WithNext("restore from another one")
}

// digestOf reads a regular file of root through; sync puts it on the disk.
func digestOf(root *os.Root, name string, sync bool) (imageFile, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return imageFile{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return imageFile{}, errors.Join(err, errs.New(errs.Refused, "%s is not a regular file", name))
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err == nil && sync {
		err = f.Sync()
	}
	return imageFile{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

func (d *checkpointDir) readAtMost(name string, limit int64) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errs.New(errs.Refused, "%s is larger than %d bytes", name, limit)
	}
	return b, err
}
