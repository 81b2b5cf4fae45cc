package vm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"drover/internal/errs"
	"drover/testenv/rootfs"
)

// modules are what the cloud kernel has not built in and a guest needs, in the order in which they load: its disk, what criu
// asks the kernel about sockets, locks, mounts and network namespaces, and what a fence is made of.
var modules = []string{
	"virtio_blk", "libcrc32c", "crc32c_generic", "nfnetlink", "nf_tables", "inet_diag", "tcp_diag", "udp_diag", "raw_diag",
	"unix_diag", "af_packet_diag", "netlink_diag", "nf_defrag_ipv6", "nf_defrag_ipv4", "nf_conntrack", "nf_conntrack_netlink",
	"nft_ct", "nf_reject_ipv4", "nf_reject_ipv6", "nft_reject", "nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet", "x_tables",
	"nft_compat", "tun", "veth", "llc", "stp", "bridge", "macvlan", "overlay", "autofs4",
}

// parts are the files a machine boots from.
type parts struct{ kernel, initramfs, disk string }

// build makes the parts once, under the test bed's folder; it installs what it needs through apt. The guest program is built each
// time: it is the one part that is under development with the tests.
func build(ctx context.Context, log io.Writer) (parts, error) {
	root, err := rootfs.Build(ctx, log)
	if err != nil {
		return parts{}, err
	}
	bed, err := rootfs.Testbed()
	if err != nil {
		return parts{}, err
	}
	dir := filepath.Join(bed, "vm")
	p := parts{filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initramfs"), filepath.Join(dir, "disk.ext4")}
	if err := rootfs.Install(ctx, log, "qemu-system-x86", "mmdebstrap", "xz-utils", "e2fsprogs"); err != nil {
		return p, err
	}
	stamp, recipe := filepath.Join(dir, "stamp"), recipe()
	if have, err := os.ReadFile(stamp); err != nil || string(have) != recipe {
		fmt.Fprintf(log, "building a kernel and a disk for virtual machines in %s\n", dir)
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "modules"), 0o755)); err != nil {
			return p, errs.New(errs.Failed, "make the machines' folder: %w", err)
		}
		if err := fetchKernel(ctx, dir, p.kernel); err != nil {
			return p, err
		}
		if err := run(ctx, "mkfs.ext4", "-q", "-F", "-d", root, p.disk, "2G"); err != nil {
			return p, err
		}
		if err := os.WriteFile(stamp, []byte(recipe), 0o644); err != nil {
			return p, errs.New(errs.Failed, "write the stamp: %w", err)
		}
	}
	return p, packInitramfs(ctx, dir, p.initramfs)
}

func recipe() string {
	return fmt.Sprintf("%x\n", sha256.Sum256([]byte(rootfs.Recipe()+strings.Join(modules, " "))))
}

// fetchKernel unpacks Debian's cloud kernel and keeps of it what a machine boots.
func fetchKernel(ctx context.Context, dir, kernel string) error {
	scratch := filepath.Join(dir, "unpacked")
	defer os.RemoveAll(scratch)
	if err := rootfs.Extract(ctx, scratch, "linux-image-cloud-amd64"); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(scratch, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return errs.New(errs.Failed, "the kernel package holds %d kernels, want one", len(images))
	}
	if err := os.Rename(images[0], kernel); err != nil {
		return errs.New(errs.Failed, "keep the kernel: %w", err)
	}
	found := map[string]string{}
	err = filepath.WalkDir(filepath.Join(scratch, "usr/lib/modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko.xz"); ok {
			found[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return errs.New(errs.Failed, "look through the kernel's modules: %w", err)
	}
	for i, name := range modules {
		if found[name] == "" {
			continue // built in
		}
		plain, err := exec.CommandContext(ctx, "xz", "-dc", found[name]).Output()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "modules", fmt.Sprintf("%02d-%s.ko", i, name)), plain, 0o644)
		}
		if err != nil {
			return errs.New(errs.Failed, "unpack the kernel module %s: %w", name, err)
		}
	}
	return nil
}

// packInitramfs packs the guest program and the modules.
func packInitramfs(ctx context.Context, dir, out string) error {
	root, err := rootfs.ModuleRoot()
	if err != nil {
		return err
	}
	guest := filepath.Join(dir, "guest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", guest, "./testenv/vm/guest")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return errs.New(errs.Failed, "build the guest program: %w: %s", err, said)
	}
	var a archive
	a.folder("modules")
	if err := a.program("init", guest); err != nil {
		return err
	}
	files, err := os.ReadDir(filepath.Join(dir, "modules"))
	if err != nil {
		return errs.New(errs.Failed, "list the modules: %w", err)
	}
	for _, f := range files {
		if err := a.program("modules/"+f.Name(), filepath.Join(dir, "modules", f.Name())); err != nil {
			return err
		}
	}
	if err := os.WriteFile(out, a.bytes(), 0o644); err != nil {
		return errs.New(errs.Failed, "write the initramfs: %w", err)
	}
	return nil
}

func run(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return errs.New(errs.Failed, "%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
