package rootfs

import (
	"os"
	"path/filepath"

	"drover/internal/errs"
)

// TestbedEnv names the environment variable that moves the test bed's folder away from .testbed in the module's root.
const TestbedEnv = "DROVER_TESTBED"

// Testbed is the folder, absolute, that holds everything the test bed makes: root file systems, tools, running beds.
func Testbed() (string, error) {
	if dir := os.Getenv(TestbedEnv); dir != "" {
		return filepath.Abs(dir)
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".testbed"), nil
}

// ModuleRoot is the folder above the working directory that holds go.mod.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", errs.New(errs.Failed, "find the module's root: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", errs.New(errs.NotFound, "find the module's root: no go.mod in %s or above it", dir).
				WithNext("run it from drover's source tree, or set %s", TestbedEnv)
		}
	}
}

// Dir is the built root file system. It fails if there is none or if it was built by another recipe than this one.
func Dir() (string, error) {
	bed, err := Testbed()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(bed, "rootfs")
	if !built(bed) {
		return "", errs.New(errs.NotFound, "%s is missing or was built by an older recipe", dir).
			WithNext("run `make testbed` as root")
	}
	return dir, nil
}

// built says whether the folder holds a root file system of exactly this recipe.
func built(bed string) bool {
	stamp, err := os.ReadFile(stampFile(bed))
	return err == nil && string(stamp) == Recipe()
}

func stampFile(bed string) string { return filepath.Join(bed, "rootfs.stamp") }
