package session

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/transfer"
	"drover/worker/tree"
)

// Kinds of files in a page stream.
const (
	kindImage   = "image"   // one of CRIU's images; the metadata is its name
	kindCarried = "carried" // a file of the tree; the metadata is a tree.CarriedFile
	kindRest    = "rest"    // the source's last word; the metadata is a rest
)

// rest is what a source says last.
type rest struct {
	FrozenFor time.Duration `json:"frozen_for_ns"` // how long the tree had not run when it said so
}

// outgoing turns what an engine and a tracker give into a page stream.
type outgoing struct {
	*transfer.Sender
	limiter *rate.Limiter
	cut     context.CancelFunc // ends the stream at once, from any goroutine
}

// newOutgoing opens the stream to the target. Until it is up it ends with ctx, then with life.
func (s *source) newOutgoing(ctx, life context.Context) (*outgoing, error) {
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := s.host.cfg.Dial(ctx, s.req.Target, transferOf(s.req), s.req.Permit)
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "reach %s at %s: %w", s.req.Target.Host, s.req.Target.Address, err).
				WithNext("see that the worker on %s runs and that this host can reach it", s.req.Target.Host)
		}
		return conn, nil
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	o := &outgoing{limiter: transfer.NewLimiter(s.req.Options.Bandwidth)}
	life, o.cut = context.WithCancel(life)
	defer context.AfterFunc(ctx, o.cut)()
	o.Sender, err = transfer.NewSender(life, conn, transfer.SenderConfig{
		Migration: s.req.Migration, Epoch: s.req.Epoch, Compression: s.req.Options.Compression, Limiter: o.limiter, Redial: dial,
	})
	if err != nil {
		o.cut()
		return nil, errs.New(errs.KindOf(err), "open the page stream to %s: %w", s.req.Target.Host, err)
	}
	return o, nil
}

func (o *outgoing) offer(s image.Space, addr uint64, data []byte) error {
	return o.Offer(spaceOf(s), addr, data)
}

// drop gives the target's room for spaces that are no more to others: a tree that forks all the time would fill it up.
func (o *outgoing) drop(gone []image.Space) error {
	for _, s := range gone {
		if err := o.Drop(spaceOf(s)); err != nil {
			return err
		}
	}
	return nil
}

// carry sends a file of the tree. It may be written meanwhile, so its size is what is read now; the final pass sends it again
// if it has changed.
func (o *outgoing) carry(f tree.CarriedFile, data io.Reader) error {
	meta, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return o.File(kindCarried, meta, -1, data)
}

func (o *outgoing) imageFile(f *os.File) error {
	return o.File(kindImage, []byte(filepath.Base(f.Name())), -1, f)
}

// finish returns the digest when the target has all and has said that its own is equal.
func (o *outgoing) finish(ctx context.Context, r rest) (string, error) {
	last, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	if err := o.File(kindRest, last, 0, eof{}); err != nil {
		return "", err
	}
	root, err := o.Finish(ctx)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(root[:]), nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// takeImage serves CRIU's page-server protocol on conn: every page goes on into the stream as it comes.
func (o *outgoing) takeImage(conn io.ReadWriter, hasParent bool) error {
	return image.ServePages(conn, &imageSink{out: o}, func(image.Space) bool { return hasParent })
}

// imageSink is a dump's pages on their way into the stream.
type imageSink struct {
	out   *outgoing
	space transfer.Space
}

func (k *imageSink) Open(s image.Space) error {
	k.space = spaceOf(s)
	return k.out.Begin(k.space)
}

func (k *imageSink) Run(addr uint64, flags uint32, data []byte) error {
	return k.out.Map(k.space, addr, flags, data)
}

// Hole maps what the parent image has to what its round has offered: the target's image has no parent.
func (k *imageSink) Hole(addr uint64, flags uint32, n uint64) error {
	if flags&image.PEParent != 0 {
		return k.out.MapHole(k.space, addr, flags&^image.PEParent|image.PEPresent, n)
	}
	return k.out.MapAbsent(k.space, addr, flags, n)
}

func (k *imageSink) Close() error { return nil }

func spaceOf(s image.Space) transfer.Space { return transfer.Space{Kind: uint8(s.Kind), ID: s.ID} }
