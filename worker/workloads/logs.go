package workloads

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	workerapi "drover/worker/api"
)

// Logs copies what a workload's command has written to w: the last lines of each stream or all of it, and with Follow what it
// writes from then on, until ctx is done or the tree has ended.
func (h *Host) Logs(ctx context.Context, name string, opts workerapi.LogOptions, w io.Writer) error {
	e, err := h.known(name)
	if err != nil {
		return err
	}
	streams := []string{"stdout", "stderr"}
	switch opts.Stream {
	case "":
	case "stdout", "stderr":
		streams = []string{opts.Stream}
	default:
		return errs.New(errs.Invalid, "there is no stream %q", opts.Stream).WithNext("choose stdout or stderr")
	}
	dir := h.store.output(name)
	changes, err := watchDir(dir)
	if err != nil {
		return errs.New(errs.NotFound, "workload %s has no output here: %w", name, err).WithNext("an adopted tree writes where it did before")
	}
	defer changes.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errs.New(errs.NotFound, "open the output of workload %s: %w", name, err)
	}
	defer root.Close()
	var tails []*tail
	for _, s := range streams {
		t, err := openTail(root, s, opts.Tail)
		if err != nil {
			return err
		}
		defer t.file.Close()
		tails = append(tails, t)
	}
	if err := copyAll(tails, w); err != nil || !opts.Follow {
		return err
	}
	return h.followLogs(ctx, e, changes, tails, w)
}

func (h *Host) followLogs(ctx context.Context, e *entry, changes *os.File, tails []*tail, w io.Writer) error {
	h.mu.Lock()
	exit, alive := e.exit, e.rec.alive()
	h.mu.Unlock()
	if !alive || exit == nil {
		return copyAll(tails, w)
	}
	written := make(chan struct{})
	go func() { // ends when changes is closed
		defer close(written)
		b := make([]byte, 4096)
		for {
			if _, err := changes.Read(b); err != nil {
				return
			}
			select {
			case written <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-exit:
			return copyAll(tails, w)
		case _, ok := <-written:
			if !ok {
				return nil
			}
			if err := copyAll(tails, w); err != nil {
				return err
			}
		}
	}
}

// watchDir is an inotify descriptor that becomes readable when a file of the directory is written.
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// tail is one stream and how far it has been copied.
type tail struct {
	file *os.File
	at   int64
}

// openOutput opens a file that a tree's stream goes to. Its directory is the tree's user's, who may have put a link there, or a pipe:
// nothing outside is opened, or given to that user, and nobody waits.
func openOutput(root *os.Root, stream string, flags int) (*os.File, error) {
	f, err := root.OpenFile(stream, flags|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "open the output: %w", err)
	}
	if err != nil {
		return nil, errs.New(errs.Refused, "what stands for the output %s in %s is not opened: %w", stream, root.Name(), err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errs.New(errs.Refused, "what stands for the output %s in %s is no regular file", stream, root.Name())
	}
	return f, nil
}

func openTail(root *os.Root, stream string, lines int) (*tail, error) {
	f, err := openOutput(root, stream, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	at, err := lastLines(f, lines)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &tail{file: f, at: at}, nil
}

// copyAll copies what each stream has more by now. One that was cut short begins again.
func copyAll(tails []*tail, w io.Writer) error {
	for _, t := range tails {
		info, err := t.file.Stat()
		if err != nil {
			return err
		}
		if info.Size() < t.at {
			t.at = 0
		}
		n, err := io.Copy(w, io.NewSectionReader(t.file, t.at, info.Size()-t.at))
		t.at += n
		if err != nil {
			return err
		}
	}
	return nil
}

// lastLines is where the last n lines of a file begin; 0 lines are all of it.
func lastLines(f *os.File, n int) (int64, error) {
	info, err := f.Stat()
	if err != nil || n <= 0 {
		return 0, err
	}
	end := info.Size()
	buf := make([]byte, 32<<10)
	for end > 0 {
		from := max(0, end-int64(len(buf)))
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			// The newline that ends the file ends the last line; it does not begin another.
			if b[i] == '\n' && from+int64(i) != info.Size()-1 {
				if n--; n == 0 {
					return from + int64(i) + 1, nil
				}
			}
		}
		end = from
	}
	return 0, nil
}
