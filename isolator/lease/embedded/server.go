// Package embedded is the lease authority of `holdfast dev`: linearizable registers in one bbolt file, served as
// JSON over unix sockets. It plays the part that ZooKeeper or Consul have in a cluster, and is held to the same suite.
//
// One goroutine applies all transactions, so that they have one order, and commits those that wait
// together with one fsync. A transaction is answered after its commit; reads see committed state only.
package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The limits of one transaction; what is larger is refused as Invalid.
const (
	MaxOps   = lease.MaxOps
	MaxKey   = lease.MaxKey
	MaxValue = lease.MaxValue
)

const (
	format     = "1"
	groupLimit = 256 // transactions that share one commit
)

var (
	bucketRegisters = []byte("registers")
	bucketMeta      = []byte("meta")
	keyRevision     = []byte("revision")
	keyFormat       = []byte("format")
)

// Server holds the registers. Make it with Open.
type Server struct {
	db    *bbolt.DB
	queue chan *pending
	hub   *hub

	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when the committer has ended
	once    sync.Once
	// revision is the last version given out; only the committer touches it.
	revision uint64

	listeners sync.Map // *Listener -> struct{}
}

type pending struct {
	ctx  context.Context
	ops  []lease.Op
	done chan outcome // buffered
}

type outcome struct {
	entries []lease.Entry
	err     error
}

// Open opens or makes the registers in the file at path. It fails as Conflict when another process has the file open.
func Open(path string) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open registers %s", path)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "open registers %s: another process has it open", path)
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "open registers %s", path)
	}
	s := &Server{db: db, queue: make(chan *pending, groupLimit), closing: make(chan struct{}), stopped: make(chan struct{})}
	if err := db.Update(s.load); err != nil {
		_ = db.Close()
		return nil, fault.Op(err, "open registers %s", path)
	}
	s.hub = newHub(s.revision)
	go s.commitLoop()
	return s, nil
}

func (s *Server) load(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(bucketRegisters); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	switch v := string(meta.Get(keyFormat)); v {
	case "":
		if err := meta.Put(keyFormat, []byte(format)); err != nil {
			return err
		}
	case format:
	default:
		return fault.New(fault.Invalid, "the file has format %q, this program knows %s", v, format)
	}
	if b := meta.Get(keyRevision); len(b) == 8 {
		s.revision = binary.BigEndian.Uint64(b)
	}
	s.revision = max(s.revision, 1) // 0 means "none" in versions and on the wire
	return nil
}

// Close ends every call and listener and closes the file. Transactions that were not begun are answered Unavailable.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		s.listeners.Range(func(l, _ any) bool { _ = l.(*Listener).Close(); return true })
		<-s.stopped
		err = s.db.Close()
	})
	return err
}

func (s *Server) txn(ctx context.Context, ops []lease.Op) ([]lease.Entry, error) {
	if err := lease.CheckOps(ops); err != nil {
		return nil, err
	}
	p := &pending{ctx: ctx, ops: ops, done: make(chan outcome, 1)}
	select {
	case s.queue <- p:
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "transaction")
	case <-s.closing:
		return nil, errClosed()
	}
	select {
	case o := <-p.done:
		return o.entries, o.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unknown, ctx.Err(), "transaction")
	case <-s.stopped:
		select { // it may have been answered with the last commit
		case o := <-p.done:
			return o.entries, o.err
		default:
			return nil, errClosed()
		}
	}
}

func errClosed() error { return fault.New(fault.Unavailable, "the registers are closed") }

func (s *Server) commitLoop() {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case p := <-s.queue:
			group := []*pending{p}
			for more := true; more && len(group) < groupLimit; {
				select {
				case p := <-s.queue:
					group = append(group, p)
				default:
					more = false
				}
			}
			s.commit(group)
		}
	}
}

// commit applies a group of transactions one after the other and makes them durable together. Within a transaction
// every expectation is looked at before anything is written, so that one that fails leaves nothing behind.
func (s *Server) commit(group []*pending) {
	outcomes := make([]outcome, len(group))
	revision := s.revision
	var changed []string
	err := s.db.Update(func(tx *bbolt.Tx) error {
		registers, meta := tx.Bucket(bucketRegisters), tx.Bucket(bucketMeta)
		for i, p := range group {
			if p.ctx.Err() != nil {
				outcomes[i].err = fault.Wrap(fault.Unavailable, p.ctx.Err(), "transaction")
				continue
			}
			if outcomes[i].err = expectations(registers, p.ops); outcomes[i].err != nil {
				continue
			}
			entries, keys, err := apply(registers, p.ops, &revision)
			if err != nil {
				return err
			}
			outcomes[i].entries = entries
			changed = append(changed, keys...)
		}
		if revision == s.revision {
			return errNothingToCommit
		}
		return meta.Put(keyRevision, binary.BigEndian.AppendUint64(nil, revision))
	})
	switch {
	case err == nil:
		s.revision = revision
		s.hub.publish(revision, changed)
	case errors.Is(err, errNothingToCommit): // rolled back: all were checks or refused
	default:
		// The revision is spent all the same: if the commit did reach the disk, its versions must not be given again.
		s.revision = revision
		for i := range outcomes {
			if outcomes[i].err == nil {
				outcomes[i] = outcome{err: fault.Wrap(fault.Unknown, err, "commit")}
			}
		}
	}
	for i, p := range group {
		p.done <- outcomes[i]
	}
}

var errNothingToCommit = errors.New("nothing to commit")

func expectations(b *bbolt.Bucket, ops []lease.Op) error {
	for _, op := range ops {
		version, _ := decodeRegister(b.Get([]byte(op.Key)))
		if version != op.Expect {
			return fault.New(fault.Conflict, "register %s has version %d, not %d", op.Key, version, op.Expect)
		}
	}
	return nil
}

func apply(b *bbolt.Bucket, ops []lease.Op, revision *uint64) (entries []lease.Entry, changed []string, err error) {
	for _, op := range ops {
		e := lease.Entry{Key: op.Key, Version: op.Expect}
		switch op.Kind {
		case lease.OpCheck:
			_, value := decodeRegister(b.Get([]byte(op.Key)))
			e.Value = append([]byte(nil), value...)
		case lease.OpPut:
			*revision++
			e.Version, e.Value = *revision, op.Value
			err = b.Put([]byte(op.Key), encodeRegister(e))
		case lease.OpDelete:
			*revision++
			e.Version = 0
			err = b.Delete([]byte(op.Key))
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s %s: %w", op.Kind, op.Key, err)
		}
		if op.Kind != lease.OpCheck {
			changed = append(changed, op.Key)
		}
		entries = append(entries, e)
	}
	return entries, changed, nil
}

func (s *Server) get(key string) (e lease.Entry, err error) {
	if err := lease.CheckKey(key); err != nil {
		return e, err
	}
	err = s.view(func(b *bbolt.Bucket) error {
		version, value := decodeRegister(b.Get([]byte(key)))
		if version == 0 {
			return fault.New(fault.NotFound, "register %s does not exist", key)
		}
		e = lease.Entry{Key: key, Version: version, Value: append([]byte(nil), value...)}
		return nil
	})
	return e, err
}

func (s *Server) list(prefix string) (entries []lease.Entry, err error) {
	if err := lease.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	err = s.view(func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
			version, value := decodeRegister(v)
			entries = append(entries, lease.Entry{Key: string(k), Version: version, Value: append([]byte(nil), value...)})
		}
		return nil
	})
	return entries, err
}

// difference is list for a client that has the entries as they were at revision known: entries that may have changed since, and keys that are
// gone. full says that it is everything. The revision is read before the registers: what is committed in between comes again.
func (s *Server) difference(prefix string, known uint64) (entries []lease.Entry, gone []string, full bool, revision uint64, err error) {
	if err := lease.CheckPrefix(prefix); err != nil {
		return nil, nil, false, 0, err
	}
	keys, revision, full := s.hub.changes(prefix, known)
	if full {
		entries, err = s.list(prefix)
		return entries, nil, true, revision, err
	}
	err = s.view(func(b *bbolt.Bucket) error {
		for _, k := range keys {
			version, value := decodeRegister(b.Get([]byte(k)))
			if version == 0 {
				gone = append(gone, k)
				continue
			}
			entries = append(entries, lease.Entry{Key: k, Version: version, Value: append([]byte(nil), value...)})
		}
		return nil
	})
	return entries, gone, false, revision, err
}

func (s *Server) view(f func(*bbolt.Bucket) error) error {
	select {
	case <-s.closing:
		return errClosed()
	default:
	}
	err := s.db.View(func(tx *bbolt.Tx) error { return f(tx.Bucket(bucketRegisters)) })
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return errClosed()
	}
	return err
}

func encodeRegister(e lease.Entry) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(e.Value)), e.Version), e.Value...)
}

func decodeRegister(b []byte) (version uint64, value []byte) {
	if len(b) < 8 {
		return 0, nil
	}
	return binary.BigEndian.Uint64(b), b[8:]
}
